"""No look at a checkpoint runs anything that lies in it: pickles are bytes here, and configurations are text."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sightline.checkpoints.manifest import write_manifest
from sightline.cli import main
from tests.checkpoints.made import history, make_checkpoint, safetensors_bytes, weights

ROOT = Path(__file__).parents[2]
FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin", "adapter_model.bin")
FORMATS = ("zip", "legacy")
CONFIGS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"},
    "class names": {
        "architectures": ["evil.Model"],
        "_name_or_path": "evil",
        "dtype": "evil.run",
        "torch_dtype": "evil",
    },
}
ACTIONS = ([], ["verify"], ["verify", "--quick"], ["best"], ["diff", "10", "20"], ["prune"], ["prune", "--last", "2"])
_DANGEROUS = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")
_events: list[str] = []
_watching = False


class Payload:
    """What a hostile pickle holds: a command that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def poisoned(path: Path, form: str, mark: Path) -> None:
    """Write a payload as torch.save does, zipped or, as before torch 1.6, as bare pickles one after the other."""
    bare = pickle.dumps({"state": Payload(mark)}, protocol=2)
    if form == "legacy":
        magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
        path.write_bytes(magic + bare)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", bare)
        archive.writestr("archive/version", "3\n")


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watching and (event in _DANGEROUS or (event == "import" and "evil" in str(args))):
        _events.append(f"{event} {args}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect every class that a pickle asks for, every command, and every import of what lies in the folder."""
    global _watching
    if not getattr(sys, "_sightline_test_hook", False):
        sys.addaudithook(_hook)
        sys._sightline_test_hook = True  # type: ignore[attr-defined]
    _events.clear()
    _watching = True
    try:
        yield _events
    finally:
        _watching = False


def looked_at(run: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Do everything that reads a checkpoint; return what ran."""
    with watched() as ran:
        for action in ACTIONS:
            assert main(["checkpoints", str(run), *action, "--json"]) in (0, 1, 3)
        assert main(["checkpoints", str(run), "verify"]) in (0, 1)
        assert main(["read", str(run), "--json"]) in (0, 1, 3)
        write_manifest(run / "checkpoint-20")
    capsys.readouterr()
    return list(ran)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (10, 20):
        make_checkpoint(tmp_path / "run" / f"checkpoint-{step}", step, history({10: 3.0, 20: 2.0}, until=step))
    return tmp_path / "run"


def test_no_payload_runs(run: Path, tmp_path: Path, capsys, monkeypatch, trials) -> None:
    """C8: 6 files in 2 formats and 2 configurations, under every action, reading the run and hashing it."""
    monkeypatch.chdir(tmp_path)
    tally = trials("C8", "payloads in checkpoint files that did not run under any action")
    mark = tmp_path / "ran"
    folder = run / "checkpoint-20"
    for name in FILES:
        for form in FORMATS:
            kept = shutil.copytree(folder, tmp_path / "kept")
            if name.endswith("_model.bin"):
                (folder / "model.safetensors").unlink()
            poisoned(folder / name, form, mark)
            ran = looked_at(run, capsys)
            tally.count(not ran and not mark.exists(), f"{name} {form}: {ran}")
            shutil.rmtree(folder)
            kept.rename(folder)
    for what, config in CONFIGS.items():
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(f"import os\nos.system('touch {mark}')\n")
        ran = looked_at(run, capsys)
        tally.count(not ran and not mark.exists(), f"config.json {what}: {ran}")
    tally.check()


def test_the_payload_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    """The test can fail: unpickling leaves the mark."""
    poisoned(tmp_path / "x", "legacy", tmp_path / "ran")
    stream = io.BytesIO((tmp_path / "x").read_bytes())
    with watched() as ran:
        for _ in range(3):
            pickle.load(stream)  # noqa: S301
    assert (tmp_path / "ran").exists() and any(event.startswith("pickle.find_class") for event in ran)


def test_legacy_pickle_is_not_taken_for_verified(run: Path, tmp_path: Path) -> None:
    """Bare pickles have no checksum: nothing is said against them, and a note says so."""
    from sightline.checkpoints import verify
    from sightline.checkpoints.torch_zip import damaged_records, read_records

    poisoned(run / "checkpoint-20" / "optimizer.pt", "legacy", tmp_path / "ran")
    assert read_records(run / "checkpoint-20" / "optimizer.pt") is None
    assert damaged_records(run / "checkpoint-20" / "optimizer.pt") is None
    (note,) = verify(run / "checkpoint-20").notes
    assert note.startswith("optimizer.pt") and "no checksum" in note


def test_nothing_in_the_package_unpickles() -> None:
    """No pickle is loaded by checkpoints/, and no torch.load anywhere goes without weights_only=True."""
    for path in sorted((ROOT / "src" / "sightline").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, f"{path}: {call}"
        if path.parent.name == "checkpoints":
            assert not re.search(
                r"\bimport (pickle|torch|joblib|dill|marshal|shelve)\b|\bunpickle\(|pickle\.load", text
            ), path


def test_a_model_in_a_pickle_is_listed_and_not_opened(run: Path, tmp_path: Path, capsys) -> None:
    folder = run / "checkpoint-20"
    (folder / "model.safetensors").unlink()
    poisoned(folder / "pytorch_model.bin", "zip", tmp_path / "ran")
    assert main(["checkpoints", str(run), "diff", "10", "20"]) == 3
    assert "is a pickle, which is not opened" in capsys.readouterr().err
    assert main(["checkpoints", str(run), "verify"]) == 0


def test_length_prefix_of_a_pickle_is_no_header(tmp_path: Path) -> None:
    """A file that begins as safetensors and goes on as something else (a polyglot) breaks the format's promise."""
    from sightline.checkpoints.headers import read_header
    from sightline.errors import CheckpointError

    path = tmp_path / "model.safetensors"
    good = safetensors_bytes(weights())
    path.write_bytes(good + pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="belong to no tensor"):
        read_header(path)
    length = struct.unpack("<Q", good[:8])[0]
    path.write_bytes(struct.pack("<Q", length + 4) + good[8 : 8 + length] + b"    " + good[8 + length :])
    assert set(read_header(path).tensors) == set(weights())  # blanks after the header are the format's own padding
