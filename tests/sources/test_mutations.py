"""Random mutations of valid logs: no crash, no hang, no undeclared error, whatever becomes of them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import SourceError
from sightline.runs import Run
from sightline.sources.readers import READERS
from tests.sources.test_console import PRINTED, trainer_text
from tests.sources.test_trainer_state import history
from tests.sources.writers import WandbLog, event, file_version

FEW, MANY = 150, 100_000
SLOWEST_S = 2.0
PIECES = (
    b"NaN",
    b"1e400",
    b"-1",
    b"{",
    b"}",
    b"[" * 2000,
    b'"',
    b"\\",
    b"\0",
    b"\xff\xfe",
    b"\r",
    b"\n",
    b",",
    b":",
    b"'loss'",
)


def wandb_log() -> bytes:
    """Return a ``.wandb`` file of two blocks."""
    log = WandbLog()
    for i in range(60):
        log.history(i, {"train/loss": 1 / (i + 1), "eval/loss": 2.0, "text": f'"{"x" * 700}"'})
    return bytes(log.content)


def database() -> bytes:
    """Return a trackio project."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE metrics (run_name TEXT, step INTEGER, metrics TEXT); CREATE TABLE configs (a);"
    )
    rows = [("a", step, json.dumps({"loss": 1 / (step + 1), "eval/loss": 2.0})) for step in range(50)]
    connection.executemany("INSERT INTO metrics VALUES (?, ?, ?)", rows)
    return connection.serialize()


def records() -> bytes:
    """Return an event file with both kinds of scalars."""
    return file_version() + b"".join(
        event(s, {"train/loss": 1.0, "eval/loss": 2.0}, tensor=s % 3 == 0) for s in range(60)
    )


SEEDS: dict[str, Callable[[], bytes]] = {
    "trainer_state": lambda: json.dumps({"global_step": 300, "log_history": history(300)}, indent=2).encode(),
    "tensorboard": records,
    "wandb": wandb_log,
    "trackio": database,
    "jsonl": lambda: b"".join(json.dumps(entry).encode() + b"\n" for entry in history(300)),
    "json": lambda: json.dumps({"history": {"loss": [1.0] * 50, "val_loss": [2.0] * 50}, "log": history(200)}).encode(),
    "csv": lambda: b"epoch,step,train_loss,val_loss\n" + b"".join(b"%d,%d,1.5,2.5\n" % (i // 9, i) for i in range(90)),
    "mlflow": lambda: b"".join(b"17000000000%02d 1.5 %d\n" % (i, i) for i in range(90)),
    "console": lambda: trainer_text(bars=True).encode() + "".join(text for text, *_ in PRINTED.values()).encode(),
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a text with a few bytes flipped, cut out, doubled, moved or put in."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, len(changed) + 1))
        length = int(rng.integers(1, 64)) ** int(rng.integers(1, 3))
        match int(rng.integers(0, 6)):
            case 0 if changed:
                changed[min(place, len(changed) - 1)] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = changed[place : place + length]
            case 3:
                other = int(rng.integers(0, len(changed) + 1))
                changed[place:place] = changed[other : other + length]
            case 4:
                changed[place:place] = PIECES[int(rng.integers(0, len(PIECES)))]
            case _:
                changed[place : place + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    return bytes(changed)


def check(path: Path, name: str) -> None:
    """Read a file with its own reader, recognised or not, and as whatever it is taken for."""
    began = time.process_time()
    for reader in READERS:
        try:
            if reader.recognises(path) or name == reader.name:
                runs = reader.runs(path)
                assert all(isinstance(run, Run) and len(run.curves) <= 10_001 for run in runs)
        except SourceError as error:
            assert "\n" not in str(error)
    assert time.process_time() - began < SLOWEST_S


@pytest.mark.parametrize("name", SEEDS)
def test_mutations(name: str, tmp_path: Path) -> None:
    """A sample of the mutations below."""
    run_mutations(name, tmp_path, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_a_hundred_thousand_mutations(name: str, tmp_path: Path) -> None:
    """A hundred thousand mutations for each format, or as ``SIGHTLINE_MUTATIONS=first:end`` says."""
    first, _, end = os.environ.get("SIGHTLINE_MUTATIONS", f"0:{MANY}").partition(":")
    run_mutations(name, tmp_path, range(int(first), int(end)))


def run_mutations(name: str, tmp_path: Path, numbers: range) -> None:
    """Check some of the mutations of a format's seed, each with random numbers of its own."""
    seed = SEEDS[name]()
    path = tmp_path / "log"
    for i in numbers:
        content = mutated(seed, np.random.default_rng([i, len(seed)]))
        path.write_bytes(content)
        try:
            with warnings.catch_warnings(action="error"):
                check(path, name)
        except Exception as error:  # whatever it is, it must say which mutation made it
            raise AssertionError(f"{name}: mutation {i} gave {type(error).__name__}: {error}") from error
