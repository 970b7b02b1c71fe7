"""The Trainer's dictionaries as they are met in a captured terminal, each with the progress bar beside it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from sightline.sources.console.dicts import Entry, entries_of, entries_of_block, says_quoted, tells_metrics
from sightline.sources.console.gaps import BAR, GLOBAL_STEP, NEAR_BYTES, Gap, bar_in, bars_behind, line_begin, line_end
from sightline.sources.console.rows import NO_BAR, Hint, Rows
from sightline.sources.table import FOLDED, alike, unfolded

_RANK = re.compile(rb"\s{0,4}\[?(?:rank[ :]?|default)?([0-9]{1,4})[\]:](?=[^0-9])", re.IGNORECASE)
_VALIDATES = re.compile(rb"(?<![\w/])(?:eval|evaluation|validation|valid|val|dev)(?![\w/])[^{]{0,40}$", re.IGNORECASE)
_STEP = re.compile(GLOBAL_STEP + rb"([0-9]{1,15})")
_BATCH = 4_000
_ENOUGH = 1_000

Bars = tuple[int, int, int]
"""Count before, count after, total; NO_BAR where none was seen."""


@dataclass(slots=True)
class _Pending:
    """Dictionaries met and not parsed yet."""

    texts: list[bytes] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    validates: list[int] = field(default_factory=list)
    """Those whose line calls them an evaluation."""
    hints: list[tuple[int, str, int]] = field(default_factory=list)
    """Number of those before it, name, value."""


class PrintedDicts:
    """Collects dictionaries and adds their numbers to the rows, many at a time."""

    def __init__(self, rows: Rows) -> None:
        self.skipped = 0
        """Broken ones."""
        self.quoted = False
        """Whether numbers are rounded to four digits."""
        self.met = False
        self._rows = rows
        self._pending = _Pending()
        self._rank: bytes | None = None
        self._last_text = b""
        self._unresolved = False  # whether the bar after the last dictionary may be in the next piece

    @property
    def pending(self) -> int:
        """Number of those that wait for being parsed."""
        return len(self._pending.texts)

    def take_block(self, block: bytes) -> bool:
        """Take lines of which each is a dictionary; return False, and take none, if one is not."""
        entries = entries_of_block(block)
        if entries is None:
            return False
        self.flush()
        self._add(entries, says_quoted(block[: block.find(b"\n")]))
        self._end_alone(block[block.rfind(b"\n", 0, len(block) - 1) + 1 :].rstrip())
        return True

    def take_lines(self, lines: Sequence[bytes]) -> None:
        """Take lines that are nothing but a dictionary: there are no bars between them."""
        self.flush()
        for begin in range(0, len(lines), _BATCH):
            texts = lines[begin : begin + _BATCH]
            entries, origins, quoted = entries_of(texts)
            self._add(entries, quoted)
            self.skipped += 0 if origins is None else len(texts) - len(set(origins))
        self._end_alone(lines[-1])

    def take_run(self, texts: Sequence[bytes], gaps: Sequence[bytes], kinds: Sequence[Gap]) -> None:
        """Take dictionaries of lines of their own, with the gap before the first, those between them, and the last."""
        if not texts:
            return
        self.met = True
        behind = bars_behind(gaps[1:], kinds[1:])
        kinds_before = set(kinds[:-1])
        if any(kind.prefixed for kind in kinds_before):
            for text, gap, kind, (count, total) in zip(texts, gaps, kinds, behind, strict=False):
                self._take_prefixed(text, gap, kind, count, total)
        elif any(kind.bar for kind in kinds_before) and min(behind)[0] < 0:
            for text, gap, kind, (count, total) in zip(texts, gaps, kinds, behind, strict=False):
                before = None if count >= 0 or not kind.bar else _last_bar(gap)
                self._append(text, before, count, total)
        else:
            self._pending.texts += texts
            self._pending.bars += [NO_BAR if count < 0 else (-1, count, total) for count, total in behind]
        self._last_text = texts[-1]
        self._unresolved = behind[-1][0] < 0 and len(gaps[-1]) - line_end(gaps[-1]) < NEAR_BYTES

    def _take_prefixed(self, text: bytes, gap: bytes, kind: Gap, count: int, total: int) -> None:
        """Take a dictionary with the gap before it and the bar behind it."""
        before = None
        if kind.prefixed:
            prefix = gap[line_begin(gap) :]
            if (kind.ranked or kind.validates or kind.concludes) and self._said_before(prefix, text):
                return
            before = BAR.search(prefix) if kind.counted else None
        if before is None and count < 0 and kind.bar:
            before = _last_bar(gap)
        self._last_text = text
        self._append(text, before, count, total)

    def take(self, line: bytes, around: bytes, start: int, end: int, *, at_end: bool) -> None:
        """Take a dictionary in a line that lies in a text, after which another piece of the log may follow."""
        self.met = True
        begin = 0 if line[:2] == b"{'" else line.find(b"{'")
        stop = len(line) if line[-1:] == b"}" else line.rfind(b"}") + 1
        text = line[begin:stop] if stop > begin else line[begin:]
        before = None
        if begin:
            if self._said_before(line[:begin], text, line):
                return
            before = BAR.search(line, 0, begin)
        self._last_text = text
        after = bar_in(around, end, end + NEAR_BYTES)
        if after is None and before is None:
            before = bar_in(around, max(0, start - NEAR_BYTES), start, last=True)
        count, total = (int(after[1]), int(after[2])) if after else (-1, -1)
        self._append(text, before, count, total)
        self._unresolved = at_end and after is None and end + NEAR_BYTES > len(around)

    def find_late_bar(self, block: bytes) -> None:
        """Look at the beginning of a piece for the bar after the last dictionary of the piece before."""
        if self._unresolved and self._pending.texts:
            bar = bar_in(block, 0, NEAR_BYTES)
            if bar is not None:
                self._pending.bars[-1] = (self._pending.bars[-1][0], int(bar[1]), int(bar[2]))
        self._unresolved = False

    def add_hint(self, name: str, value: int) -> None:
        """Keep what a line behind the dictionaries met so far says of the run."""
        self._pending.hints.append((self.pending, name, value))
        if not self._pending.texts:
            self.flush()

    def flush_if_many(self) -> None:
        """Parse those that wait if they are many; the last one goes on waiting while its bar may still come."""
        if self.pending <= _ENOUGH:
            return
        pending, last = self._pending, self.pending - 1
        if not self._unresolved or last in pending.validates or pending.hints:
            self.flush()
            return
        waiting = _Pending([pending.texts.pop()], [pending.bars.pop()])
        self.flush()
        self._pending = waiting

    def flush(self) -> None:
        """Parse the dictionaries met since the last time."""
        pending = self._pending
        if not pending.texts and not pending.hints:
            return
        self._pending = _Pending()
        entries, origins, quoted = entries_of(pending.texts)
        bars = pending.bars
        if origins is not None:
            self.skipped += len(pending.texts) - len(set(origins))
            bars = [bars[origin] for origin in origins]
        for i in pending.validates:
            places = range(len(entries)) if origins is None else origins
            entries = [_as_evaluation(e) if o == i else e for e, o in zip(entries, places, strict=True)]
        first = len(self._rows.tiers)
        kept = self._add(entries, quoted, bars)
        if origins is not None:
            kept = [origins[i] for i in kept]
        for before, name, value in pending.hints:
            self._rows.hints.append(Hint(first + bisect_left(kept, before), name, value))

    def _end_alone(self, last: bytes) -> None:
        self._last_text = last
        self._unresolved = False
        self.met = True

    def _said_before(self, prefix: bytes, text: bytes, line: bytes = b"") -> bool:
        """Take what stands in front of a dictionary; return whether another process of the group printed it already."""
        rank = _RANK.match(prefix)
        if rank is not None and self._rank not in (None, rank[1]) and text == self._last_text:
            return True
        self._rank = rank[1] if rank else self._rank
        if _VALIDATES.search(prefix) is not None:
            self._pending.validates.append(len(self._pending.texts))
        if GLOBAL_STEP in (line or prefix):
            step = _STEP.search(line or prefix)
            self.add_hint("global_step", int(step[1]) if step else 0)
        return False

    def _append(self, text: bytes, before: re.Match[bytes] | None, count: int, total: int) -> None:
        """Keep a dictionary with the bar before it and count and total of the one behind it, -1 for none."""
        self._pending.texts.append(text)
        if count >= 0:
            self._pending.bars.append((int(before[1]) if before else -1, count, total))
        else:
            self._pending.bars.append((int(before[1]), -1, int(before[2])) if before else NO_BAR)

    def _add(self, entries: Sequence[Entry], quoted: bool, bars: Sequence[Bars] | None = None) -> Sequence[int]:
        """Add those entries that tell metrics, each with its bar; return which they are."""
        kept: Sequence[int] = range(len(entries))
        groups = list(alike(entries))
        empty = sum(places.size for _, places, _ in groups) < len(entries)
        if empty or not all(tells_metrics(names) and FOLDED not in names for names, _, _ in groups):
            entries = list(map(unfolded, entries))
            kept = [i for i, entry in enumerate(entries) if tells_metrics(tuple(entry))]
            entries, bars = [entries[i] for i in kept], bars and [bars[i] for i in kept]
            groups = list(alike(entries))
        self.quoted = self.quoted or (quoted and bool(entries))
        self._rows.table.rows = len(self._rows.tiers)
        self._rows.table.add_alike(groups, len(entries), prefix="0:")
        self._rows.append_dicts(len(entries), bars)
        return kept


def _last_bar(gap: bytes) -> re.Match[bytes] | None:
    """Return the bar nearest to the end of the lines in a gap."""
    end = line_begin(gap)
    return bar_in(gap, max(0, end - NEAR_BYTES), end, last=True)


def _as_evaluation(entry: Entry) -> Entry:
    """Return an entry that its line calls an evaluation under the names of one."""
    if any(name.startswith("eval_") for name in entry):
        return entry
    return {name if name in ("epoch", "step") else f"eval_{name}": value for name, value in entry.items()}
