"""Text that is safe to print: escaped, shortened, and numbers as people read them."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs a terminal can show."""

    braille: bool
    """True where charts may be drawn in Braille dots."""
    best: str
    """Marks the best step."""
    onset: str
    onset_low: str
    onset_high: str
    onset_span: str
    non_finite: str
    """Marks a NaN or an infinity."""
    guide: str
    """A vertical guide through the chart."""
    axis: str
    tick: str
    corner: str
    floor: str
    floor_tick: str
    rule: str
    bar_done: str
    bar_left: str
    bullet: str
    arrow: str
    dot: str
    """Stands between two facts on one line."""
    ellipsis: str
    minus: str
    times: str


UNICODE = Glyphs(
    braille=True,
    best="▲",
    onset="◆",
    onset_low="├",
    onset_high="┤",
    onset_span="─",
    non_finite="×",
    guide="┊",
    axis="│",
    tick="┤",
    corner="└",
    floor="─",
    floor_tick="┬",
    rule="─",
    bar_done="█",
    bar_left="░",
    bullet="•",
    arrow="→",
    dot="·",
    ellipsis="…",
    minus="−",
    times="×",
)

ASCII = Glyphs(
    braille=False,
    best="^",
    onset="#",
    onset_low="[",
    onset_high="]",
    onset_span="-",
    non_finite="x",
    guide=":",
    axis="|",
    tick="+",
    corner="+",
    floor="-",
    floor_tick="+",
    rule="-",
    bar_done="#",
    bar_left=".",
    bullet="*",
    arrow="->",
    dot="|",
    ellipsis="...",
    minus="-",
    times="x",
)

_PROBE = "⣿▲◆├┤─×┊│└┬█░•→·…−"
_PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "×": "x",
    "·": "|",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "±": "+/-",
    "≈": "~",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "\N{NO-BREAK SPACE}": " ",
}


def glyphs_for(encoding: str | None) -> Glyphs:
    """Return the signs that an output in ``encoding`` can carry."""
    try:
        _PROBE.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def is_tty(stream: TextIO) -> bool:
    """Return whether a stream is a terminal; False for a closed one."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def printable(text: object, limit: int | None = None) -> str:
    r"""Return text from a log or a file system so that it cannot steer a terminal.

    Parameters
    ----------
    text : object
        Anything; ``str()`` of it is taken.
    limit : int, optional
        Most characters to keep; the middle of a longer text is left out.

    Returns
    -------
    str
        One line: control, format, private, unassigned and lone surrogate characters become their escapes.

    Examples
    --------
    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    raw = str(text)
    if not (raw.isascii() and raw.isprintable()):
        raw = "".join(c if c == " " or not _steers(c) else _escaped(c) for c in raw)
    return raw if limit is None else shortened(raw, limit)


def shortened(text: str, limit: int) -> str:
    """Return text of at most ``limit`` characters, the middle left out.

    Examples
    --------
    >>> shortened("outputs/a-very-long-name/checkpoint-100", 20)
    'outputs/…kpoint-100'
    """
    if len(text) <= limit:
        return text
    if limit <= 3:
        return text[:limit]
    tail = (limit - 1) * 3 // 5
    return text[: limit - 2 - tail] + "…" + text[len(text) - tail :]


def plain(text: str) -> str:
    """Return text with the signs that ASCII lacks written out."""
    return "".join(_PLAIN.get(c, c) for c in text) if not text.isascii() else text


def number_text(value: float | None, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits, trailing zeros kept; ``-`` for none.

    Examples
    --------
    >>> [number_text(x) for x in (1.72, 0.00021, 12345.6, 0.0, float("inf"), None)]
    ['1.720', '2.100e-04', '12346', '0', 'inf', '-']
    """
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -3 or exponent >= 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def short_number(value: float) -> str:
    """Return a number as short as it can be with four digits: ``2e-05``, ``0.3``, ``1200``."""
    text = f"{value:.4g}"
    return {"nan": "NaN"}.get(text, text)


def count_text(value: float) -> str:
    """Return a count in at most five characters: 950, 12.4k, 3.1M.

    Examples
    --------
    >>> [count_text(n) for n in (950, 1234, 20_000, 3_100_000)]
    ['950', '1.2k', '20k', '3.1M']
    """
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            scaled = value / scale
            return f"{scaled:.1f}".removesuffix(".0") + unit if abs(scaled) < 100 else f"{scaled:.0f}{unit}"
    return f"{value:g}"


def size_text(size_bytes: float) -> str:
    """Return a size in decimal units, as disks are sold and ``ls -h --si`` prints them.

    Examples
    --------
    >>> [size_text(n) for n in (950, 12_400, 538_090_408, 13_476_000_000)]
    ['950 B', '12 kB', '538 MB', '13.5 GB']
    """
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= scale:
            scaled = size_bytes / scale
            return f"{scaled:.1f} {unit}" if scale >= 1e9 or scaled < 10 else f"{scaled:.0f} {unit}"
    return f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units.

    Examples
    --------
    >>> [duration(s) for s in (8, 75, 3700, 200_000)]
    ['8 s', '1 min 15 s', '1 h 01 min', '2 d 07 h']
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def steps_text(steps: tuple[int, ...], most: int = 4) -> str:
    """Return steps as a person lists them, the middle of many left out.

    Examples
    --------
    >>> steps_text((500,)), steps_text((500, 600, 700)), steps_text(tuple(range(100, 1000, 100)))
    ('step 500', 'steps 500, 600 and 700', 'steps 100, 200 … 800 and 900')
    """
    names = [str(step) for step in steps]
    if len(names) == 1:
        return f"step {names[0]}"
    if len(names) > most:
        return f"steps {names[0]}, {names[1]} … {names[-2]} and {names[-1]}"
    return f"steps {', '.join(names[:-1])} and {names[-1]}"


def unit_word(step_unit: str) -> str:
    """Return what a run's steps count, for people: its ``step_unit``, but ``entry`` (of the log) for ``index``."""
    return "entry" if step_unit == "index" else step_unit


def plural_unit(unit: str) -> str:
    """Return a unit of steps of several.

    Examples
    --------
    >>> plural_unit("epoch"), plural_unit("entry")
    ('epochs', 'entries')
    """
    return f"{unit.removesuffix('y')}ies" if unit.endswith("y") else f"{unit}s"


def _steers(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
