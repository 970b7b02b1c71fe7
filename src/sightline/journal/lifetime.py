"""What happens to a recorder without a call: its heartbeat, a fork of its process, the end of the interpreter."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import Protocol
from weakref import WeakSet, ref

from sightline.runs import Status

HEARTBEAT_S = 15.0
"""Seconds of silence after which a heartbeat is written."""

_IN_TROUBLE_S = 1.0


class Living(Protocol):
    """What a recorder offers to this module."""

    @property
    def problem(self) -> str | None:
        """What cannot be written at the moment."""

    def beat(self, silence_s: float) -> None:
        """Do what is due without a call."""

    def forked(self) -> None:
        """Let go of everything in a forked child."""

    def exiting(self, error: BaseException | None) -> None:
        """End with the interpreter, and with the error that nobody caught."""


class Heartbeat:
    """A daemon thread that lets a recorder beat; it ends with the recorder and outlives every error.

    Parameters
    ----------
    recorder : Living
    interval_s : float
        Seconds between beats; while there is a problem it is at most one second.
    """

    def __init__(self, recorder: Living, interval_s: float = HEARTBEAT_S) -> None:
        self._recorder = ref(recorder)
        self._interval_s = interval_s
        self._in_trouble = recorder.problem is not None
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="sightline-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def hurry(self) -> None:
        """Look after a problem soon."""
        if not self._in_trouble:
            self._in_trouble = True
            self._wake.set()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        """Beat until stopped or until the recorder is gone."""
        while not self._stopped:
            if self._wake.wait(min(_IN_TROUBLE_S, self._interval_s) if self._in_trouble else self._interval_s):
                self._wake.clear()
                continue
            recorder = self._recorder()
            if recorder is None:
                return
            recorder.beat(self._interval_s)
            self._in_trouble = recorder.problem is not None
            del recorder  # held only while it beats, so that it can go


def how_it_ended(error: BaseException) -> tuple[Status, str]:
    """Return status and reason of a run that an exception ended: Ctrl-C stops it, anything else fails it."""
    if isinstance(error, KeyboardInterrupt):
        return Status.STOPPED, "interrupted by SIGINT (Ctrl-C)"
    first_line = (str(error).strip().splitlines() or [""])[0]
    return Status.FAILED, f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


_watched: WeakSet[Living] = WeakSet()
_is_watching = False


def watch(recorder: Living) -> None:
    """Tell a recorder of forks and of the end of the interpreter, until ``unwatch``."""
    global _is_watching
    _watched.add(recorder)
    if not _is_watching:
        _is_watching = True
        import concurrent.futures.thread  # noqa: F401  history.parquet may be due at the exit, too late to import this

        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child)


def unwatch(recorder: Living) -> None:
    """Tell it no more."""
    _watched.discard(recorder)


def _in_child() -> None:
    """Let every recorder go of its files in a forked child."""
    for recorder in list(_watched):
        recorder.forked()
    _watched.clear()


def _at_exit() -> None:
    """End every recorder that nobody has ended."""
    for recorder in list(_watched):
        recorder.exiting(_uncaught())


def _uncaught() -> BaseException | None:
    """Return the error that ends the program; at a prompt the last one may be long past and tells nothing."""
    if hasattr(sys, "ps1") or "IPython" in sys.modules:
        return None
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None
