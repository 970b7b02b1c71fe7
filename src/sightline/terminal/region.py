r"""The lines at the foot of a terminal that are painted over again and again.

Nothing of the terminal's state is changed for longer than one write: no alternate screen, no hidden cursor, no
raw mode. So whatever ends the process, at whatever moment, leaves a terminal that works. What other code prints
meanwhile appears above the region.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from typing import Any, TextIO

from sightline.terminal.text import is_tty

_BEGIN_FRAME, _END_FRAME = "\x1b[?2026h", "\x1b[?2026l"  # synchronized output; terminals without it ignore both
_CLEAR_LINE, _CLEAR_BELOW, _CLEAR_SCREEN = "\x1b[K", "\x1b[J", "\x1b[H\x1b[2J"


class Region:
    """Lines at the foot of the terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._height = 0  # lines on the screen now
        self._size = terminal_size()
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._redirected: list[tuple[str, TextIO, _Above]] = []

    def open(self) -> None:
        """Have what is printed through sys.stdout and sys.stderr appear above the region."""
        for name in ("stdout", "stderr"):
            original = getattr(sys, name)
            if original is not None and not isinstance(original, _Above) and is_tty(original):
                proxy = _Above(original, self)
                setattr(sys, name, proxy)
                self._redirected.append((name, original, proxy))

    def close(self, *, erase: bool = False) -> None:
        """Give sys.stdout and sys.stderr back; the last lines stay unless ``erase``."""
        with self._lock:
            for name, original, proxy in self._redirected:
                if getattr(sys, name) is proxy:
                    setattr(sys, name, original)
                proxy.release()
            self._redirected.clear()
            if erase:
                self._write(self._up() + _CLEAR_BELOW)
            self._lines, self._height = [], 0

    def size(self) -> tuple[int, int]:
        """Return columns and rows of the terminal as they are now."""
        return terminal_size()

    def show(self, lines: Sequence[str]) -> None:
        """Paint lines over the ones shown before; lines must be narrower than the terminal."""
        with self._lock:
            self._lines = list(lines)
            self._paint()

    def above(self, text: str, stream: TextIO | None = None) -> None:
        """Print whole lines above the region."""
        with self._lock:
            if os.getpid() != self._process:  # a forked worker must not move the parent's cursor
                (stream or self._stream).write(text)
                return
            if self._height:
                self._write(self._up() + _CLEAR_BELOW)
                self._height = 0
            target = stream or self._stream
            target.write(text if text.endswith("\n") else text + "\n")
            target.flush()
            if self._lines:
                self._paint()

    def _paint(self) -> None:
        size = terminal_size()
        begin = self._up() if size == self._size else _CLEAR_SCREEN  # after a resize nobody knows where lines went
        self._size = size
        shown = self._lines[: max(1, size[1] - 1)]
        frame = "".join(f"{line}{_CLEAR_LINE}\n" for line in shown)
        try:
            self._write(f"{_BEGIN_FRAME}{begin}{frame}{_CLEAR_BELOW}{_END_FRAME}")
        finally:
            self._height = len(shown)

    def _up(self) -> str:
        return f"\r\x1b[{self._height}A" if self._height else "\r"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Above:
    """Stands in for sys.stdout or sys.stderr: whole lines go above the region, a half line waits for its end."""

    def __init__(self, stream: TextIO, region: Region) -> None:
        self._stream, self._region, self._half = stream, region, ""

    def write(self, text: str) -> int:
        *lines, half = (self._half + text).split("\n")
        self._half = half.rpartition("\r")[2][-4096:]  # a progress bar rewrites its own line
        if lines:
            self._region.above("\n".join(line.rpartition("\r")[2] for line in lines), self._stream)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._stream.flush()

    def release(self) -> None:
        """Let go of a half line that never ended."""
        if self._half.strip():
            self._region.above(self._half, self._stream)
        self._half = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def terminal_size() -> tuple[int, int]:
    """Return columns and rows of the terminal; 80 and 24 where nobody knows."""
    size = shutil.get_terminal_size()
    return max(size.columns, 10), max(size.lines, 3)
