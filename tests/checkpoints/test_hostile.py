"""A checkpoint made to hurt: an error in words, in bounded time and memory, and nothing read outside its folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.hostile import CASES, make_all

ROOT = Path(__file__).parents[2]
SECONDS = 5.0
"""Processor seconds of listing and verifying twice; the promise is one second on a machine of today."""
PEAK_BYTES = 200e6
HARMLESS_IN_LIST = {"manifest_names_files_outside", "manifest_is_a_link"}
"""Cases that only verifying can see: the list does not open manifests."""


@pytest.fixture(scope="module")
def looked() -> Iterator[dict[str, Any]]:
    """What a process of its own found; in a folder that a user without rights may enter."""
    folder = Path(tempfile.mkdtemp(prefix="hostile"))
    folder.chmod(0o755)
    make_all(folder)
    try:
        command = [sys.executable, "-m", "tests.checkpoints.hostile", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        yield json.loads(done.stdout.splitlines()[-1])
    finally:
        for path in (folder / name / "run" / "checkpoint-10" for name in CASES):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_hostile_checkpoints_are_told_in_words(looked: dict[str, Any], trials) -> None:
    """C9: each is named by verify, quick or whole, and never called complete in the list."""
    tally = trials("C9", "hostile checkpoints told in one line, nothing opened outside, time and memory bounded")
    assert set(looked["cases"]) == set(CASES)
    for name, found in looked["cases"].items():
        told = found["problems"] and all("\n" not in line for line in found["problems"])
        told = told and (name in HARMLESS_IN_LIST or (found["quick"] and not found["complete_in_list"]))
        told = told or (name.startswith("sparse_weights") and found["quick"])  # its header is all right
        bounded = found["seconds"] < SECONDS and not found["outside"]
        tally.count(bool(told) and bounded, f"{name}: {found}")
    tally.check()
    assert looked["peak_bytes"] < PEAK_BYTES
