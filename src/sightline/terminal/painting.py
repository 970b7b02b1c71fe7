"""Styled lines to what a stream can show: colours, encodings, and outputs that are cut off."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text

from sightline.terminal.text import is_tty


class Painter:
    """Turns lines into text with the escape sequences that an output understands, or with none.

    Parameters
    ----------
    stream : TextIO
        The output; nothing is written to it here.
    color : bool, optional
        False for no escape sequence at all. None: colours on a terminal, unless NO_COLOR is set; FORCE_COLOR asks for
        them anywhere.
    """

    def __init__(self, stream: TextIO, *, color: bool | None = None) -> None:
        if color is None:
            wanted = is_tty(stream) and os.environ.get("TERM") != "dumb"
            color = not os.environ.get("NO_COLOR") and (wanted or bool(os.environ.get("FORCE_COLOR")))
        self._buffer = io.StringIO()
        self._console = Console(
            file=self._buffer,
            force_terminal=color,
            color_system="auto" if color else None,
            width=1_000_000,  # lines come wrapped
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )

    def paint(self, lines: Iterable[Text]) -> list[str]:
        """Return each line as text, escape sequences included."""
        for line in lines:
            self._console.print(line, no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text.split("\n")[:-1]
