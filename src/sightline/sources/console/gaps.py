"""What stands between the dictionaries of a captured terminal: progress bars, drawn over and over, and whatever else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sightline.sources.console.lines import LOSS_WORDS
from sightline.sources.console.numbers import DIGITS

BAR = re.compile(rb"([0-9](?<![0-9][0-9])[0-9]{0,14})/([0-9]{1,15}) \[")
_FIRST_BAR = re.compile(BAR.pattern + rb"[^\0]*")
NEIGHBOURS = 4
"""Lines around a dictionary in which its bar is looked for."""
NEAR_BYTES = 400
CONTEXT = (b"poch", b" = ", b"***", b"==((", b"[step=", b"[batch=")
"""One of these is in every line that says where a run stands."""
GLOBAL_STEP = b"global_step="
_WORDS = (*LOSS_WORDS, *CONTEXT)
_RANK_WITHOUT_DIGITS = re.compile(rb"\s{0,4}\[?(?:rank[ :]?|default)?[\]:]", re.IGNORECASE)
_VALIDATES = re.compile(rb"eval|val|dev", re.IGNORECASE)
_LONG_BYTES, _MAX_KNOWN = 512, 2000
_NONE = (-1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """What a text between two dictionaries may hold, by its shape: the text without its digits."""

    apart: bool
    """Whether the dictionaries stand in lines of their own, and nothing behind the first changes what it says."""
    tells: bool
    """Whether the lines between them may say a loss, or where the run stands."""
    bar: bool
    """Whether it may show a bar."""
    near: bool
    """Whether its first bar stands close enough behind the first dictionary to be its own."""
    ranked: bool
    """Whether the second's line may begin with the number of a process."""
    validates: bool
    """Whether that line may call it an evaluation."""
    counted: bool
    """Whether that line shows a bar in front of it."""
    concludes: bool
    """Whether that line may name the last step in front of it."""

    @property
    def prefixed(self) -> bool:
        """Whether something in front of the second, in its line, changes what it says."""
        return self.ranked or self.validates or self.counted or self.concludes


class Gaps:
    """The shapes of gaps met so far: bars that differ only in their digits are looked at once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Gap] = {}
        self._lines: dict[bytes, bool] = {}

    def of(self, gaps: Sequence[bytes]) -> list[Gap]:
        """Return what each of some texts holds; none of them may have a NUL."""
        shapes = b"\0".join(gaps).translate(None, DIGITS).split(b"\0")
        known = {shape: self._known.get(shape) or self._looked_at(shape) for shape in set(shapes)}
        return list(map(known.__getitem__, shapes))

    def _looked_at(self, shape: bytes) -> Gap:
        ends = [end for end in (shape.find(b"\n"), shape.find(b"\r")) if end >= 0]
        behind = shape[: min(ends, default=0)]
        begin = line_begin(shape)
        before = shape[begin:]
        to_bar = shape[len(behind) : shape.find(b"/ [")]
        gap = Gap(
            apart=bool(ends) and b"}" not in behind and GLOBAL_STEP not in behind,
            tells=self._may_tell(shape[len(behind) : begin]),
            bar=b"/ [" in shape,
            near=to_bar.count(b"\n") + to_bar.count(b"\r") <= NEIGHBOURS and b"{'" not in shape,
            ranked=_RANK_WITHOUT_DIGITS.match(before) is not None,
            validates=_VALIDATES.search(before) is not None,
            counted=b"/ [" in before,
            concludes=GLOBAL_STEP in before,
        )
        if len(shape) <= _LONG_BYTES:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            self._known[shape] = gap
        return gap

    def _may_tell(self, text: bytes) -> bool:
        """Return whether a text may say a loss, or where the run stands."""
        return any(map(self.line_may_tell, set(text.splitlines())))

    def line_may_tell(self, line: bytes) -> bool:
        """Return whether a line, without its digits, may say a loss or where the run stands."""
        known = self._lines.get(line)
        if known is None:
            known = any(word in line for word in _WORDS)
            if len(line) <= _LONG_BYTES:
                if len(self._lines) > _MAX_KNOWN:
                    self._lines.clear()
                self._lines[line] = known
        return known


def line_begin(text: bytes) -> int:
    """Return where the last line of a text begins."""
    return max(text.rfind(b"\n"), text.rfind(b"\r")) + 1


def line_end(text: bytes) -> int:
    """Return where the first line of a text ends, its length if it does not."""
    end = text.find(b"\n")
    back = text.find(b"\r", 0, end if end >= 0 else len(text))
    return back if back >= 0 else end if end >= 0 else len(text)


def bars_behind(gaps: Sequence[bytes], kinds: Sequence[Gap]) -> list[tuple[int, int]]:
    """Return the count and the total of the bar behind each of some dictionaries, (-1, -1) where none is."""
    kinds_met = set(kinds)
    if not any(kind.bar for kind in kinds_met):
        return [_NONE] * len(gaps)
    if all(kind.bar and kind.near for kind in kinds_met):
        near = [gap[(end := line_end(gap)) : end + NEAR_BYTES] for gap in gaps]
        found = _FIRST_BAR.findall(b"\0".join(near))
        if len(found) == len(gaps):
            return [(int(count), int(total)) for count, total in found]
    bars = []
    for gap, kind in zip(gaps, kinds, strict=True):
        bar = bar_in(gap, end := line_end(gap), end + NEAR_BYTES) if kind.bar else None
        bars.append(_NONE if bar is None else (int(bar[1]), int(bar[2])))
    return bars


def bar_in(text: bytes, begin: int, end: int, *, last: bool = False) -> re.Match[bytes] | None:
    """Return the first (or last) progress bar in a stretch of text, none on the far side of another dictionary."""
    if not last:
        bar = BAR.search(text, begin, end)
        if bar is None or text.find(b"{'", begin, stop := bar.start()) >= 0:
            return None
        return bar if text.count(b"\n", begin, stop) + text.count(b"\r", begin, stop) <= NEIGHBOURS else None
    bars = list(BAR.finditer(text, max(begin, text.rfind(b"{'", begin, end)), end))
    return bars[-1] if bars else None
