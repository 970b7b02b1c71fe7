"""`sightline train` in processes that can be killed, forked from one that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.preloaded"])
PATIENCE_S = 240
"""Until a child is given up; a busy machine may take a while."""


def start(words: list[str], log: Path, fault: str | None = None) -> ForkServerProcess:
    """Start `sightline train`; ``fault`` is the name of an error and the step it comes in: ``"RuntimeError@4"``."""
    process = CONTEXT.Process(target=_train, args=(words, str(log), fault), daemon=True)
    process.start()
    return process


def finish(process: ForkServerProcess) -> int:
    """Return the exit code; negative for a signal."""
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        pytest.fail("the child did not end")
    return process.exitcode


def wait_until(happened: Callable[[], bool], process: ForkServerProcess) -> bool:
    """Return True as soon as it happened, False when the child ended without it."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if happened():
            return True
        if process.exitcode is not None:
            return happened()
        time.sleep(0.0005)
    return False


def _train(words: list[str], log: str, fault: str | None) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    from sightline.cli import main

    if fault is not None:
        _break(*fault.split("@"))
    sys.exit(main(["train", *words]))


def _break(error: str, step: str) -> None:
    """Have the training raise in a step."""
    import builtins

    import torch

    from sightline.training.trainer import WatchedTrainer

    kind = getattr(torch, error, None) or getattr(builtins, error)
    sound = WatchedTrainer.compute_loss

    def broken(self, *args, **kwargs):
        if self.state.global_step == int(step):
            raise kind("on purpose")
        return sound(self, *args, **kwargs)

    WatchedTrainer.compute_loss = broken
