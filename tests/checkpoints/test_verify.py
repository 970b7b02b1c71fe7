"""verify(): every half-written state is told incomplete, every damage is found and named, and a good one is let be."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from sightline.checkpoints import Verification, verify, write_manifest
from sightline.checkpoints.discover import find_checkpoints
from sightline.checkpoints.manifest import MANIFEST, files_of
from tests.checkpoints.conftest import KINDS

WRITE_ORDER = {
    "full": [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json",
        "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
    ],
    "lora": [
        "README.md", "adapter_model.safetensors", "adapter_config.json", "tokenizer_config.json", "tokenizer.json",
        "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
    ],
}  # fmt: skip
"""Files in the order the Trainer writes them, as seen with strace."""
FLIPS = 200


def names_of(verification: Verification) -> set[str]:
    return {problem.file for problem in verification.problems}


def with_tokenizer(folder: Path) -> Path:
    """Add the tokenizer files that the tiny model has not."""
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}\n')
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_trainer_saved_is_intact_and_complete(kind: str, trained: Callable[[str], Path]) -> None:
    """No false alarm: with nothing before it, or the one before."""
    checkpoints = find_checkpoints(trained(kind))
    assert [parts.step for parts in checkpoints] == [3, 6, 9, 12]
    for before, parts in pairwise((None, *checkpoints)):
        verification = verify(parts.path, previous=None if before is None else before.path)
        assert verification.problems == ()
        assert verification.intact and verification.complete and not verification.hashed
        assert parts.is_adapter is (kind == "lora")
        assert parts.holds == ("weights", "optimizer", "scheduler", "random states", "trainer state")


@pytest.mark.parametrize("kind", KINDS)
def test_every_half_written_state_is_incomplete(kind: str, run_copy: Callable[[str], Path], trials) -> None:
    """C1: a save that broke off before, at the start of or within any file is incomplete; the one before it counts."""
    tally = trials("C1", "half-written states told incomplete, the one before found instead")
    run = run_copy(kind)
    broken = with_tokenizer(run / "checkpoint-12")
    whole = {name: (broken / name).read_bytes() for name in WRITE_ORDER[kind]}
    for at, name in enumerate(WRITE_ORDER[kind]):
        for state, content in (("absent", None), ("empty", b""), ("half", whole[name][: len(whole[name]) // 2])):
            shutil.rmtree(broken)
            broken.mkdir()
            for written in WRITE_ORDER[kind][:at]:
                (broken / written).write_bytes(whole[written])
            if content is not None:
                (broken / name).write_bytes(content)
            told = not verify(broken).complete and not verify(broken, contents=False).complete
            complete = [parts.step for parts in find_checkpoints(run) if parts.is_complete]
            tally.count(told and complete[-1] == 9, f"{name} {state}")
    tally.check()


def flips(run: Path, count: int, seed: int) -> Iterator[tuple[Path, int]]:
    """Yield places of single bits: the files in turn, a random bit of each."""
    random_ = random.Random(seed)
    folder = run / "checkpoint-12"
    names = [*sorted(files_of(folder)), MANIFEST]
    for i in range(count):
        path = folder / names[i % len(names)]
        yield path, random_.randrange(path.stat().st_size * 8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found(kind: str, run_copy: Callable[[str], Path], trials) -> None:
    """C3: one flipped bit in any file, the manifest too, is found and its file named."""
    tally = trials("C3", "single flipped bits found by the hash manifest and the file named")
    run = with_tokenizer(run_copy(kind) / "checkpoint-12").parent
    write_manifest(run / "checkpoint-12")
    for path, bit in flips(run, FLIPS, seed=7):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        verification = verify(path.parent)
        if path.name == MANIFEST and not verification.problems:
            found = _means_the_same(whole, bytes(damaged))  # a flipped blank between two keys is no damage
        else:
            found = not verification.intact and path.name in names_of(verification)
        tally.count(found, f"{path.name} bit {bit}")
        path.write_bytes(whole)
    tally.check()


def _means_the_same(one: bytes, other: bytes) -> bool:
    import json

    return json.loads(one) == json.loads(other)


@pytest.mark.parametrize("kind", KINDS)
def test_coarse_damage_is_found(kind: str, run_copy: Callable[[str], Path], trials) -> None:
    """C3: a zeroed second half, a file of another step, and a removed file, each for every file."""
    tally = trials("C3", "zeroed halves, swapped and removed files found by the hash manifest")
    run = run_copy(kind)
    folder, other = run / "checkpoint-12", run / "checkpoint-9"
    write_manifest(folder)
    for name in sorted(files_of(folder)):
        path = folder / name
        whole = path.read_bytes()
        half = len(whole) // 2
        damages = {"zeroed": whole[:half] + bytes(len(whole) - half), "swapped": (other / name).read_bytes()}
        for damage, content in damages.items():
            if content != whole:
                path.write_bytes(content)
                tally.count(name in names_of(verify(folder)), f"{name} {damage}")
        path.unlink()
        tally.count(name in names_of(verify(folder)), f"{name} removed")
        path.write_bytes(whole)
    tally.check()
    assert verify(folder).problems == ()


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_the_training_states_is_found_without_a_manifest(
    kind: str, run_copy: Callable[[str], Path], trials
) -> None:
    """What torch.load passes over: a flipped bit in the records of optimizer, scheduler and random states."""
    tally = trials("C3", "flipped bits in optimizer, scheduler, random states found without a manifest")
    folder = run_copy(kind) / "checkpoint-12"
    random_ = random.Random(5)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        whole = (folder / name).read_bytes()
        for record, start, end in _records(folder / name):
            bit = random_.randrange(start * 8, end * 8)
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(damaged)
            verification = verify(folder)
            tally.count(not verification.intact and names_of(verification) == {name}, f"{name} {record}")
        (folder / name).write_bytes(whole)
    tally.check()


def _records(path: Path) -> list[tuple[str, int, int]]:
    """Name the records of a zip with the bytes of their data, by the standard library."""
    import zipfile

    found = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as record:
                start = record._orig_compress_start  # type: ignore[attr-defined]
            found.append((info.filename, start, start + info.file_size))
    return [record for record in found if record[2] > record[1]]


def test_state_of_another_step_is_named(run_copy: Callable[[str], Path]) -> None:
    """A copied trainer state says another step than the folder's name."""
    run = run_copy("full")
    shutil.copy(run / "checkpoint-9" / "trainer_state.json", run / "checkpoint-12")
    verification = verify(run / "checkpoint-12")
    assert not verification.complete
    assert any("it says 9" in str(problem) for problem in verification.problems)


def test_weights_without_training_states_are_no_damage(run_copy: Callable[[str], Path]) -> None:
    """What save_only_model leaves is intact, not complete, and no problem."""
    folder = run_copy("full") / "checkpoint-12"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).unlink()
    verification = verify(folder)
    assert verification.problems == () and verification.weights_only
    assert verification.intact and not verification.complete


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_absent_training_state_is_incomplete(name: str, run_copy: Callable[[str], Path]) -> None:
    """The Trainer resumes silently wrong without any one of them."""
    folder = run_copy("full") / "checkpoint-12"
    (folder / name).unlink()
    verification = verify(folder)
    assert not verification.complete and name in str(verification.problems[0])
