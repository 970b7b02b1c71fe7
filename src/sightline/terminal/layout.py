"""Lines of text for a terminal: wrapped by what characters take on the screen, and set in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from sightline.terminal.text import Glyphs, plain


def wrap(text: str, width: int, *, first: str = "", rest: str | None = None, style: str = "") -> list[Text]:
    """Break text into lines of at most ``width`` cells.

    Parameters
    ----------
    text : str
        Words; runs of blanks count as one.
    width : int
        Cells a line may take, its indentation included.
    first, rest : str
        What the first and the other lines begin with; the others begin with as many blanks unless told.
    style : str
        Style of the words, not of what the lines begin with.
    """
    rest = " " * cell_len(first) if rest is None else rest
    lines, line, begin = [], "", first
    room = max(8, width - cell_len(first))
    words = list(reversed(text.split()))
    while words:
        word = words.pop()
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= room:
            line = joined
            continue
        if not line:  # a word longer than the line: as much of it as fits
            line, left = chop_cells(word, room)[0], word[len(chop_cells(word, room)[0]) :]
            words.append(left)
        else:
            words.append(word)
        lines.append(Text(begin).append(line, style=style))
        line, begin, room = "", rest, max(8, width - cell_len(rest))
    if line or not lines:
        lines.append(Text(begin).append(line, style=style))
    return lines


def columns(
    rows: Sequence[Sequence[tuple[str, str]]],
    align: str,
    *,
    gap: int = 2,
    indent: str = "",
    flexible: int | None = None,
    width: int = 80,
) -> list[Text]:
    """Set rows of cells in columns as wide as their widest cell.

    Parameters
    ----------
    rows : sequence of sequence of (text, style)
        Cells of each row; all rows of one length.
    align : str
        ``l`` or ``r`` for each column.
    gap : int
        Blanks between columns.
    indent : str
        What each line begins with.
    flexible : int, optional
        Column that gives way when the whole would be wider than ``width``.
    width : int
        Cells a line may take.
    """
    if not rows:
        return []
    sizes = [max(cell_len(row[i][0]) for row in rows) for i in range(len(align))]
    if flexible is not None:
        excess = cell_len(indent) + sum(sizes) + gap * (len(sizes) - 1) - width
        sizes[flexible] = max(4, sizes[flexible] - max(0, excess))
    lines = []
    for row in rows:
        line = Text(indent)
        for i, (text, style) in enumerate(row):
            fitted = text if cell_len(text) <= sizes[i] else fit(text, sizes[i])
            blanks = " " * (sizes[i] - cell_len(fitted))
            line.append(blanks if align[i] == "r" else "").append(fitted, style=style)
            line.append((blanks if align[i] == "l" else "") + " " * gap)
        line.rstrip()
        lines.append(line)
    return lines


def fit(text: str, width: int) -> str:
    """Return text that takes at most ``width`` cells, its middle left out."""
    if cell_len(text) <= width:
        return text
    if width < 4:
        return set_cell_size(text, width).rstrip()
    tail, used = "", 0
    for char in reversed(text):
        size = cell_len(char)
        if used + size > (width - 1) * 3 // 5:
            break
        tail, used = char + tail, used + size
    head = set_cell_size(text, width - 1 - used).rstrip()
    return f"{head}…{tail}"


def for_terminal(lines: Iterable[Text], glyphs: Glyphs, width: int | None = None) -> list[Text]:
    """Return the lines with only signs that the terminal can show, cut off at ``width`` if it is given."""
    shown = [line if glyphs.braille or line.plain.isascii() else _ascii(line) for line in lines]
    for line in shown:
        if width is not None and cell_len(line.plain) > width:
            line.truncate(width, overflow="crop")
    return shown


def words_width(width: int, glyphs: Glyphs) -> int:
    """Return the cells that words may take: signs written out in ASCII need more room than they had."""
    return width if glyphs.braille else max(16, width - 4)


def _ascii(line: Text) -> Text:
    """Write every sign out in ASCII; styles stay where they are."""
    result = Text(style=line.style)
    for piece in line.divide(sorted({edge for span in line.spans for edge in (span.start, span.end)})):
        written = plain(piece.plain).encode("ascii", "backslashreplace").decode("ascii")
        result.append(written, style=piece.spans[0].style if piece.spans else "")
    return result
