"""Random changes of valid files: an answer or our own error, never anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sightline.checkpoints.headers import read_header
from sightline.checkpoints.manifest import MANIFEST, read_manifest, write_manifest
from sightline.checkpoints.parts import read_parts
from sightline.checkpoints.state import read_state
from sightline.checkpoints.torch_zip import damaged_records
from sightline.checkpoints.verify import verify
from sightline.errors import CheckpointError
from tests.checkpoints.made import history, make_checkpoint

MUTATIONS, SAMPLE = 5_000, 300
READERS: dict[str, Callable[[Path], Any]] = {
    "model.safetensors": lambda folder: read_header(folder / "model.safetensors"),
    "optimizer.pt": lambda folder: damaged_records(folder / "optimizer.pt"),
    "trainer_state.json": read_state,
    MANIFEST: read_manifest,
}
TOKENS = (b"null", b"-1", b"1e999", b"[]", b"{}", b'""', b"NaN", b"\xff", b"\x00" * 8, b"\xff" * 8, b"9" * 30, b"true")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, double, or put something odd in the place of something else, one to four times."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(data)))
        kind = rng.random()
        if kind < 0.4 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.5:
            del data[at:]
        elif kind < 0.6:
            del data[at : at + rng.randint(1, 40)]
        elif kind < 0.7:
            data[at:at] = data[at : at + rng.randint(1, 200)]
        else:
            token = rng.choice(TOKENS)
            data[at : at + rng.randint(0, len(token))] = token
    return bytes(data)


@pytest.mark.parametrize(
    ("first", "count"), [(0, SAMPLE), pytest.param(SAMPLE, MUTATIONS - SAMPLE, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", READERS)
def test_mutated_files_give_an_answer_or_our_error(name: str, first: int, count: int, tmp_path: Path, trials) -> None:
    """I8: the reader of each file, and for some of them the whole verification."""
    tally = trials("I8", "mutated checkpoint files: an answer or an error of our own")
    folder = make_checkpoint(tmp_path / "checkpoint-10", 10, history({5: 3.0, 10: 2.0}))
    write_manifest(folder)
    whole = (folder / name).read_bytes()
    for seed in range(first, first + count):
        (folder / name).write_bytes(mutated(whole, random.Random(seed)))
        try:
            READERS[name](folder)
            if seed % 20 == 0:
                verify(folder)
                read_parts(folder)
        except CheckpointError as error:
            tally.count("\n" not in str(error), f"seed {seed}: {error}")
        except Exception as error:
            tally.count(False, f"seed {seed}: {type(error).__name__}: {error}")
        else:
            tally.count(True)
    tally.check()
