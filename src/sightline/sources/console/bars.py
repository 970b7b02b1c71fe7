"""What stands between the dictionaries of a captured terminal: progress bars, drawn over and over."""

from __future__ import annotations

import re

from sightline.sources.console.lines import DIGITS, LOSS_WORDS

BAR = re.compile(rb"(?<![0-9])([0-9]{1,15})/([0-9]{1,15}) \[")
NEIGHBOURS = 4
"""Lines around a dictionary in which its bar is looked for."""
NEAR_BYTES = 400
CONTEXT = (b"poch", b" = ", b"***", b"==((", b"[step=", b"[batch=")
"""One of these is in every line that says where a run stands."""
_WORDS = (*LOSS_WORDS, *CONTEXT)
_LONG_BYTES, _MAX_KNOWN = 8192, 2000


class Gaps:
    """Texts between dictionaries; bars that differ only in their digits are looked at once."""

    def __init__(self) -> None:
        self._known: dict[bytes, bool] = {}

    def may_tell(self, gap: bytes) -> bool:
        """Return whether a text may say a loss, or where the run stands."""
        if len(gap) > _LONG_BYTES:
            return any(word in gap for word in _WORDS)
        shape = gap.translate(None, DIGITS)
        known = self._known.get(shape)
        if known is None:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            known = self._known[shape] = any(word in gap for word in _WORDS)
        return known


def bar_in(text: bytes, begin: int, end: int, *, last: bool = False) -> re.Match[bytes] | None:
    """Return the first (or last) progress bar in a stretch of text, none on the far side of another dictionary."""
    if not last:
        bar = BAR.search(text, begin, end)
        if bar is None or text.find(b"{'", begin, stop := bar.start()) >= 0:
            return None
        return bar if text.count(b"\n", begin, stop) + text.count(b"\r", begin, stop) <= NEIGHBOURS else None
    bars = list(BAR.finditer(text, max(begin, text.rfind(b"{'", begin, end)), end))
    return bars[-1] if bars else None
