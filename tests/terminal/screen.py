"""Screen: as much of a terminal as the live display needs, to see what a person would see."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Screen:
    """Lines of a terminal with its scrollback; unknown sequences are kept in ``unknown``."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.scrollback: list[str] = []
        self.lines: list[str] = [""] * rows
        self.row = self.column = 0
        self.modes: set[str] = set()
        self.unknown: list[str] = []

    def feed(self, text: str) -> None:
        """Take in what was written to the terminal."""
        at = 0
        while at < len(text):
            if match := _SEQUENCE.match(text, at):
                self._sequence(*match.groups())
                at = match.end()
                continue
            self._character(text[at])
            at += 1

    def text(self) -> str:
        """Return scrollback and screen as a person can read them."""
        return "\n".join(line.rstrip() for line in [*self.scrollback, *self.lines]).rstrip()

    def _character(self, char: str) -> None:
        if char == "\n":
            self.column = 0  # the terminal's line discipline adds the carriage return
            self._down()
        elif char == "\r":
            self.column = 0
        else:
            if self.column >= self.columns:
                self.column = 0
                self._down()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        if self.row + 1 < self.rows:
            self.row += 1
        else:
            self.scrollback.append(self.lines.pop(0))
            self.lines.append("")

    def _sequence(self, private: str, numbers: str, letter: str) -> None:
        if private:
            (self.modes.add if letter == "h" else self.modes.discard)(numbers)
        elif letter == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif letter == "H":
            self.row = self.column = 0
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter == "J":
            first = 0 if numbers == "2" else self.row
            self.lines[self.row] = self.lines[self.row][: self.column] if first else ""
            for row in range(first + 1 if first else 0, self.rows):
                self.lines[row] = ""
        elif letter != "m":
            self.unknown.append(letter)
