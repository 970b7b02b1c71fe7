"""The hash manifest: every changed byte, missing file and misleading addition is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sightline.checkpoints.manifest import MANIFEST, damaged_files, read_manifest, write_manifest
from sightline.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a large file, an empty one, one with a strange name and one in a subfolder."""
    made = tmp_path / "checkpoint-5"
    (made / "inner").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 8192 + b"end")
    (made / "empty.txt").touch()
    (made / "na\u00efve \u2603.json").write_text("{}")
    (made / "inner" / "rank_0.pt").write_bytes(b"optimizer")
    return made


def kinds(folder: Path) -> list[tuple[str, str]]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return [(problem.kind, problem.file) for problem in damaged_files(folder, manifest)]


def test_manifest_is_read_as_it_was_written(folder: Path) -> None:
    """Every regular file is listed with its size and the digest that sha256sum prints."""
    written = write_manifest(folder)
    assert read_manifest(folder) == written
    assert set(written.files) == {"model.safetensors", "empty.txt", "na\u00efve \u2603.json", "inner/rank_0.pt"}
    content = (folder / "model.safetensors").read_bytes()
    assert written.files["model.safetensors"].digest == hashlib.sha256(content).hexdigest()
    assert written.files["model.safetensors"].size_bytes == len(content)
    assert kinds(folder) == []


def test_folder_without_manifest_has_none(folder: Path) -> None:
    assert read_manifest(folder) is None


def test_one_flipped_bit_is_found(folder: Path) -> None:
    write_manifest(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[1_500_000] ^= 4
    (folder / "model.safetensors").write_bytes(content)
    assert kinds(folder) == [("hash", "model.safetensors")]


def test_missing_longer_and_added_files_are_named(folder: Path) -> None:
    """A file that a loader would prefer is an addition that matters; a note of the user's is none."""
    write_manifest(folder)
    (folder / "empty.txt").unlink()
    with (folder / "inner" / "rank_0.pt").open("ab") as file:
        file.write(b"x")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "my notes.md").write_text("good one")
    assert kinds(folder) == [
        ("missing", "empty.txt"),
        ("size", "inner/rank_0.pt"),
        ("extra", "model.safetensors.index.json"),
    ]


def test_file_replaced_by_a_link_is_not_read(folder: Path, tmp_path: Path) -> None:
    """A link to the very same bytes is still not what was saved."""
    write_manifest(folder)
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    assert kinds(folder) == [("unreadable", "model.safetensors")]


def test_damaged_manifest_says_so(folder: Path) -> None:
    """A flipped bit in every third byte of a manifest is noticed or leaves its meaning as it was."""
    written = write_manifest(folder)
    whole = (folder / MANIFEST).read_bytes()
    silent = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        (folder / MANIFEST).write_bytes(damaged)
        try:
            silent += read_manifest(folder) != written
        except CheckpointError:
            continue
    assert silent == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sightline_manifest": 99}', "[" * 100_000, '{"sightline_manifest": 1, "files": 3}']
)
def test_unreadable_manifest_is_an_error_in_one_line(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=MANIFEST) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def test_names_in_a_manifest_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    """A forged manifest that names a file outside the folder gets it called missing, unread."""
    outside = tmp_path / "secret"
    outside.write_text("secret")
    write_manifest(folder)
    files = {"../secret": {"size": 6, "hash": hashlib.sha256(b"secret").hexdigest()}}
    digest = hashlib.sha256(
        json.dumps(["sha256", files, []], sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    forged = {"sightline_manifest": 1, "algorithm": "sha256", "files": files, "dropped": [], "digest": digest}
    (folder / MANIFEST).write_text(json.dumps(forged))
    assert ("missing", "../secret") in kinds(folder)


def test_manifest_in_a_folder_that_refuses_is_our_error(folder: Path) -> None:
    """What cannot be written leaves no half of it behind."""
    (folder / MANIFEST).mkdir()
    with pytest.raises(CheckpointError, match="could not be written"):
        write_manifest(folder)
    assert not list(folder.glob("*.partial"))
