"""Golden texts: what a page looked like when a person last looked at it.

SIGHTLINE_GOLDEN=write writes them anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

FOLDER = Path(__file__).with_name("golden")


def assert_golden(lines: Sequence[Text], name: str) -> None:
    """Compare lines with the golden text of a name."""
    text = "".join(line.plain + "\n" for line in lines)
    path = FOLDER / f"{name}.txt"
    if os.environ.get("SIGHTLINE_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
