"""Afterwards: work that training need not wait for, done in order on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sightline.training.harmless import report_once


class Afterwards:
    """Jobs one after another, beside the training: hashing releases the interpreter, and so does the disk.

    A job that fails is reported once and hurts neither the training nor the jobs behind it. The interpreter waits for
    jobs that are left when it ends.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def do(self, job: Callable[..., None], *args: Any) -> None:
        """Have a job done after those that wait already."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sightline-afterwards")
        self._last = self._thread.submit(self._guarded, job, *args)

    def wait(self) -> None:
        """Return when every job is done."""
        if self._last is not None:
            self._last.result()

    def _guarded(self, job: Callable[..., None], *args: Any) -> None:
        try:
            job(*args)
        except Exception as error:
            report_once(self, f"{getattr(job, '__name__', 'a job')}: {type(error).__name__}: {error}")
