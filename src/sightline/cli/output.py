"""Printing pages and JSON to standard output."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sightline.terminal.text import Glyphs, glyphs_for, is_tty

if TYPE_CHECKING:
    from rich.text import Text

WIDTH_OF_A_FILE = 100


def print_json(value: Any) -> None:
    """Print a value as one line of strict JSON, indented where a person looks at it."""
    from sightline.terminal.strict_json import strict_json

    indent = 2 if is_tty(sys.stdout) else None
    sys.stdout.write(strict_json(value, encoding=sys.stdout.encoding, indent=indent) + "\n")


def print_lines(lines: Sequence[Text], *, no_color: bool = False) -> None:
    """Print lines that are already as wide as they may be."""
    from sightline.terminal.painting import Painter

    painted = Painter(sys.stdout, color=False if no_color else None).paint(lines)
    sys.stdout.write("".join(line + "\n" for line in painted))


def output_width(width: int | None) -> int:
    """Return the columns to use: as asked, as COLUMNS says, the terminal's, or 100 for a file or a pipe."""
    return shutil.get_terminal_size((WIDTH_OF_A_FILE, 24)).columns if width is None else width


def output_glyphs() -> Glyphs:
    """Return the signs that standard output can carry."""
    return glyphs_for(sys.stdout.encoding)
