"""Going through a captured terminal, and collecting what may be points of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sightline.runs import Run
from sightline.sources.console.dicts import dicts_from, holds_metrics
from sightline.sources.console.gaps import NEIGHBOURS, Gap, Gaps, line_begin
from sightline.sources.console.lines import LOSS_WORDS
from sightline.sources.console.numbers import DIGITS
from sightline.sources.console.printed_dicts import PrintedDicts
from sightline.sources.console.printed_lines import PrintedLines
from sightline.sources.console.rows import Rows
from sightline.sources.console.runs import runs_of_rows
from sightline.sources.json_text import collector_paused, parse
from sightline.sources.lines import LineSplitter

_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;:?<=>]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)|[@-Z\\^_=>])")
_OPENS = b"{'"


class Parser:
    """Reads a growing captured terminal piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._splitter = LineSplitter()
        self._recording: bool | None = None
        self._recorded = LineSplitter()
        self._gaps = Gaps()
        self._rows = Rows()
        self._dicts = PrintedDicts(self._rows)
        self._lines = PrintedLines(self._rows, self._dicts)

    @property
    def rows(self) -> int:
        """Points met so far."""
        return len(self._rows.tiers) + self._dicts.pending

    @property
    def sure(self) -> bool:
        """Whether something was met that only a training log has."""
        return self._dicts.met or self._lines.sure

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        if self._recording is None and piece.strip():
            self._recording = piece.lstrip()[:1] == b"{" and b'"version"' in piece[:400] and b"{'" not in piece[:2]
        if b"\x08" in piece:  # Keras draws its bar anew by going back
            piece = piece.replace(b"\x08", b"\r")
        block = self._splitter.feed_block(piece)
        with collector_paused():
            self._take(self._played(block) if self._recording else block)

    def next_file(self, file: Path) -> None:
        """Go on with another file of the same log: a line without its end is dropped."""
        self._splitter.begin_anew()

    def end(self) -> None:
        """Take the last line even if no line end follows it."""
        self._rows.table.complete = True
        last = self._splitter.tail
        if self._recording:
            self._take(self._played(last))
            last = self._recorded.tail
        if last:
            self._take(last + b"\n")

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        self._dicts.flush()
        self._lines.flush()
        self._rows.table.rows = len(self._rows.tiers)
        damage = []
        if self._splitter.skipped:
            damage.append(f"{self.path}: {self._splitter.skipped} lines longer than 1 MiB were left out")
        if self._dicts.skipped:
            damage.append(f"{self.path}: {self._dicts.skipped} broken dictionaries were left out")
        return runs_of_rows(self.path, self._rows, quoted=self._dicts.quoted, damage=damage)

    def _played(self, block: bytes) -> bytes:
        """Return the lines that an asciinema recording shows: a JSON array [time, "o", text] a line."""
        shown = []
        for line in block.splitlines():
            try:
                event = parse(line)
            except ValueError:
                continue
            if isinstance(event, list) and len(event) == 3 and event[1] == "o" and isinstance(event[2], str):
                shown.append(event[2])
        return self._recorded.feed_block("".join(shown).encode("utf-8", "replace"))

    def _take(self, block: bytes) -> None:
        """Take some whole lines, together where they are of one kind."""
        if not block:
            return
        if b"\x1b" in block:
            block = _ESCAPES.sub(b"", block)
        self._dicts.find_late_bar(block)
        if _OPENS not in block:
            self._take_plain(block)
        elif not (block.startswith(_OPENS) and self._dicts.take_block(block)) and not self._take_scattered(block):
            self._take_lines(block.splitlines())
        self._dicts.flush_if_many()
        self._lines.flush_if_many()

    def _take_scattered(self, block: bytes) -> bool:
        """Take lines of which some are dictionaries; return False, and take none, if they do not stand apart."""
        if self._lines.in_table or b"\0" in block:
            return False
        begins, *parts = block.split(_OPENS)
        pieces = [part.partition(b"}") for part in parts]
        texts = [_OPENS + inside + closed for inside, closed, _ in pieces]
        together = b"".join(texts)
        if together.count(b"}") < len(texts) or b"\n" in together or b"\r" in together:
            return False
        gaps = [b"\n" + begins, *(gap for _, _, gap in pieces)]
        kinds = self._gaps.of(gaps)
        if not all(kind.apart for kind in set(kinds)):
            return False
        others = [i for i, text in enumerate(texts) if not holds_metrics(text)]
        if others:
            if any(b"oss" in texts[i] for i in others):
                return False
            texts, gaps, kinds = _without(texts, gaps, kinds, self._gaps, others)
        begin = 0
        for i, kind in enumerate(kinds):
            if kind.tells:
                self._dicts.take_run(texts[begin:i], gaps[begin : i + 1], kinds[begin : i + 1])
                self._take_plain(gaps[i][: line_begin(gaps[i])])
                begin = i
        self._dicts.take_run(texts[begin:], gaps[begin:], kinds[begin:])
        return True

    def _take_plain(self, text: bytes) -> None:
        """Take lines without dictionaries: stretches of lines of known shapes together, the others one by one."""
        if self._lines.take_uniform(text):
            return
        lines = text.splitlines()
        taken = 0
        for begin, plans in self._lines.stretches(text, lines):
            self._take_lines(lines[taken:begin], lines[taken - 1] if taken else b"")
            taken = begin
            if not self._lines.in_table:
                taken = begin + len(plans)
                self._lines.take_alike(lines[begin:taken], plans, lines[begin - 1] if begin else b"")
        self._take_lines(lines[taken:], lines[taken - 1] if taken else b"")

    def _take_lines(self, lines: Sequence[bytes], before: bytes = b"") -> None:
        """Take lines one by one; ``before`` is the line before them."""
        skip_to = 0
        for i, line in enumerate(lines):
            if i < skip_to:
                continue
            if _OPENS in line and holds_metrics(line):
                alone = dicts_from(lines, i)
                if alone > i:
                    self._dicts.take_lines(lines[i:alone])
                    skip_to = alone
                else:
                    around = b"\n".join(lines[max(0, i - NEIGHBOURS) : i + 1 + NEIGHBOURS])
                    start = sum(map(len, lines[max(0, i - NEIGHBOURS) : i])) + min(i, NEIGHBOURS)
                    at_end = i + NEIGHBOURS >= len(lines)
                    self._dicts.take(line, around, start, start + len(line), at_end=at_end)
            elif not self._lines.in_table and not self._gaps.line_may_tell(line.translate(None, DIGITS)):
                continue
            elif b"oss" in line or self._lines.in_table:
                self._lines.take(line, lines[i - 1] if i else before)
            elif line[-1:] == b"]" and b"[step=" not in line:  # a progress bar, drawn anew many times
                continue
            elif any(word in line for word in LOSS_WORDS):
                self._lines.take(line, b"")
            else:
                self._lines.take_context(line)


def _without(
    texts: Sequence[bytes], gaps: Sequence[bytes], kinds: Sequence[Gap], known: Gaps, others: Sequence[int]
) -> tuple[list[bytes], list[bytes], list[Gap]]:
    """Return dictionaries and gaps with some dictionaries, that tell nothing, made part of the gap they stand in."""
    left_out = set(others)
    joined, kept = [gaps[0]], []
    for i, text in enumerate(texts):
        if i in left_out:
            joined[-1] += gaps[i + 1]
        else:
            kept.append(text)
            joined.append(gaps[i + 1])
    return kept, joined, known.of(joined)
