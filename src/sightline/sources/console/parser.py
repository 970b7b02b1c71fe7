"""Going through a captured terminal line by line, and collecting what may be points of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sightline.runs import Run
from sightline.sources.console.bars import BAR, CONTEXT, NEAR_BYTES, NEIGHBOURS, Gaps, bar_in
from sightline.sources.console.dicts import (
    Entry,
    dicts_from,
    entries_of,
    entries_of_block,
    holds_metrics,
    says_quoted,
    tells_metrics,
)
from sightline.sources.console.lines import EPOCH, LOSS_WORDS, Plan, Plans, PrintedTable, printed_json, stretches
from sightline.sources.console.rows import NO_BAR, Hint, Rows
from sightline.sources.console.runs import runs_of_rows
from sightline.sources.json_text import collector_paused, parse
from sightline.sources.lines import LineSplitter
from sightline.sources.table import FOLDED, unfolded

_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;:?<=>]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)|[@-Z\\^_=>])")
_DENSE_BYTES = 200  # of text for each dictionary; with more there is other output between them
_STEP_LINE = re.compile(rb"\[(?:step|batch)=([0-9]{1,15})(?:/[0-9]{1,15})?\]")
"""A line of OLMo's and Composer's that names the step of the lines that follow it."""
_EPOCH_BAR = re.compile(rb"[Ee]poch[ :#=]{0,4}([0-9]{1,7})[^|]{0,40}\|[^|]{0,400}\| ")
_EPOCH_LINE = re.compile(rb"(?<![a-z_])epoch[ :#=]{0,4}([0-9]{1,7})(?![0-9.])")
_RANK = re.compile(rb"\s{0,4}\[?(?:rank[ :]?|default)?([0-9]{1,4})[\]:](?=[^0-9])", re.IGNORECASE)
_VALIDATES = re.compile(rb"(?<![\w/])(?:eval|evaluation|validation|valid|val|dev)(?![\w/])[^{]{0,40}$", re.IGNORECASE)
_BANNER = re.compile(
    rb"(num examples|num epochs|total steps|total optimization steps|total train batch size"
    rb"|total batch size|max_steps)[^=|]{0,60}= ?([0-9,]{1,20})(?: \||\s{0,4}$)?"
)
_BEGINS = (b"***** Running training *****", b"==((====))==")
_GLOBAL_STEP = re.compile(rb"global_step=([0-9]{1,15})")
_DICT_BATCH = 4_000
_LINE_BATCH = 50_000
_MANY_LINES = 8


@dataclass(slots=True)
class _Pending:
    """Dictionaries met and not parsed yet, each with the progress bar beside it."""

    texts: list[bytes] = field(default_factory=list)
    bars: list[tuple[int, int, int]] = field(default_factory=list)
    """Count before, count after, total; NO_BAR where none was seen."""
    validates: list[int] = field(default_factory=list)
    """Those whose line calls them an evaluation."""


class Parser:
    """Reads a growing captured terminal piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sure = False
        """Whether something was met that only a training log has."""
        self._lines = LineSplitter()
        self._recording: bool | None = None
        self._recorded = LineSplitter()
        self._plans = Plans()
        self._printed = PrintedTable()
        self._epoch: float | None = None
        self._step: float | None = None
        self._rank: bytes | None = None
        self._last_text = b""
        self._pending = _Pending()
        self._unresolved = False  # whether the bar after the last dictionary may be in the next piece
        self._planned: dict[Plan, tuple[list[int], list[bytes]]] = {}
        self._planned_rows = 0
        self._gaps = Gaps()
        self._quoted = False
        self._skipped_dicts = 0
        self._data = Rows()

    @property
    def rows(self) -> int:
        """Points met so far."""
        return len(self._data.tiers) + len(self._pending.texts)

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        if self._recording is None and piece.strip():
            self._recording = piece.lstrip()[:1] == b"{" and b'"version"' in piece[:400] and b"{'" not in piece[:2]
        if b"\x08" in piece:  # Keras draws its bar anew by going back
            piece = piece.replace(b"\x08", b"\r")
        block = self._lines.feed_block(piece)
        with collector_paused():
            self._take(self._played(block) if self._recording else block)

    def next_file(self, file: Path) -> None:
        """Go on with another file of the same log: a line without its end is dropped."""
        self._lines.begin_anew()

    def end(self) -> None:
        """Take the last line even if no line end follows it."""
        self._data.table.complete = True
        last = self._lines.tail
        if self._recording:
            self._take(self._played(last))
            last = self._recorded.tail
        if last:
            self._take(last + b"\n")

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        self._flush()
        damage = []
        if self._lines.skipped:
            damage.append(f"{self.path}: {self._lines.skipped} lines longer than 1 MiB were left out")
        if self._skipped_dicts:
            damage.append(f"{self.path}: {self._skipped_dicts} broken dictionaries were left out")
        return runs_of_rows(self.path, self._data, quoted=self._quoted, damage=damage)

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
        """Take some whole lines: one by one where dictionaries are dense, else from one dictionary to the next."""
        if not block:
            return
        if b"\x1b" in block:
            block = _ESCAPES.sub(b"", block)
        self._find_late_bar(block)
        dicts = block.count(b"{'")
        if not dicts:
            self._take_plain(block)
        elif dicts * _DENSE_BYTES > len(block) or self._printed.open:
            self._take_dense(block, dicts)
        else:
            self._take_sparse(block)
        if len(self._pending.texts) > _DICT_BATCH or self._planned_rows > _LINE_BATCH:
            self._flush()

    def _take_sparse(self, block: bytes) -> None:
        """Take lines of which few are dictionaries: what stands between them is looked at only if it may say a loss."""
        position = 0
        while True:
            found = block.find(b"{'", position)
            start = end = len(block)
            if found >= 0:
                start = max(block.rfind(b"\n", position, found), block.rfind(b"\r", position, found), position - 1) + 1
                end = block.find(b"\n", found)
                if (back := block.find(b"\r", found, end)) >= 0:
                    end = back
            if self._gaps.may_tell(block[position:start]):
                self._take_plain(block[position:start])
            if found < 0:
                return
            line = block[start:end]
            if holds_metrics(line):
                self._take_dict(line, block, start, end)
            elif b"oss" in line:
                self._take_line(line, b"")
            position = end

    def _take_dense(self, block: bytes, dicts: int) -> None:
        """Take lines of which most are dictionaries."""
        entries = entries_of_block(block, dicts)
        if entries is None:
            self._take_lines(block.splitlines())
            return
        self._flush_dicts()
        quoted = says_quoted(block[: block.find(b"\n")])
        all_tell = block.count(b"loss'") >= dicts and FOLDED.encode() not in block
        for begin in range(0, len(entries), _DICT_BATCH):
            self._add_entries(entries[begin : begin + _DICT_BATCH], quoted, checked=all_tell)
        self._last_text = block.rstrip()[block.rstrip().rfind(b"\n") + 1 :]
        self._unresolved = False
        self.sure = True

    def _take_plain(self, text: bytes) -> None:
        """Take lines without dictionaries: stretches of lines of known shapes together, the others one by one."""
        lines = text.splitlines()
        if len(lines) < _MANY_LINES:
            self._take_lines(lines)
            return
        plans = self._plans.of_lines(text, lines)
        taken = end = 0
        for epoch_named, stretch in stretches(plans):
            begin, end = end, end + len(stretch)
            if epoch_named is not None and len(stretch) >= _MANY_LINES:
                self._take_lines(lines[taken:begin], lines[taken - 1] if taken else b"")
                if not self._printed.open:
                    self._take_alike(lines[begin:end], stretch, lines[begin - 1] if begin else b"")  # type: ignore[arg-type]
                    taken = end
                else:
                    taken = begin
        self._take_lines(lines[taken:], lines[taken - 1] if taken else b"")

    def _take_alike(self, lines: Sequence[bytes], plans: Sequence[Plan], before: bytes) -> None:
        """Take lines that tell losses, each with its plan; all of them name an epoch, or none does."""
        self._flush_dicts()
        if plans[-1].has_epoch:
            self._epoch = plans[-1].value(EPOCH, lines[-1])
        elif (bar := _EPOCH_BAR.search(before)) is not None:
            self._epoch = float(bar[1])
        first = len(self._data.tiers)
        kinds = dict.fromkeys(plans)
        for plan in kinds:
            rows, texts = self._texts_of(plan)
            places = range(len(plans)) if len(kinds) == 1 else [i for i, each in enumerate(plans) if each is plan]
            rows.extend(map(first.__add__, places))
            texts.extend(map(lines.__getitem__, places))
        self._data.extend(bytes([plan.tier for plan in plans]), self._epoch, self._step)
        self._planned_rows += len(lines)

    def _texts_of(self, plan: Plan) -> tuple[list[int], list[bytes]]:
        """Return the rows and lines of a plan that wait for being parsed."""
        if plan not in self._planned:
            self._planned[plan] = ([], [])
            self.sure = self.sure or (len(plan.names) >= 3 and plan.tier == 1)
        return self._planned[plan]

    def _take_lines(self, lines: Sequence[bytes], before: bytes = b"") -> None:
        """Take lines one by one; ``before`` is the line before them."""
        skip_to = 0
        for i, line in enumerate(lines):
            if i < skip_to:
                continue
            if b"{'" in line and holds_metrics(line):
                alone = dicts_from(lines, i)
                if alone > i:
                    self._take_dicts(lines[i:alone])
                    skip_to = alone
                else:
                    around = b"\n".join(lines[max(0, i - NEIGHBOURS) : i + 1 + NEIGHBOURS])
                    start = sum(map(len, lines[max(0, i - NEIGHBOURS) : i])) + min(i, NEIGHBOURS)
                    self._take_dict(line, around, start, start + len(line))
            elif b"oss" in line or self._printed.open:
                self._take_line(line, lines[i - 1] if i else before)
            elif line[-1:] == b"]" and b"[step=" not in line:  # a progress bar, drawn anew many times
                continue
            elif any(word in line for word in LOSS_WORDS):
                self._take_line(line, b"")
            elif any(mark in line for mark in CONTEXT):
                self._take_context(line)

    def _take_dicts(self, lines: Sequence[bytes]) -> None:
        """Take lines that are nothing but a dictionary: there are no bars between them."""
        self._flush_dicts()
        for begin in range(0, len(lines), _DICT_BATCH):
            texts = lines[begin : begin + _DICT_BATCH]
            entries, origins, quoted = entries_of(texts)
            self._add_entries(entries, quoted)
            self._skipped_dicts += 0 if origins is None else len(texts) - len(set(origins))
        self._last_text = lines[-1]
        self._unresolved = False
        self.sure = True

    def _take_dict(self, line: bytes, around: bytes, start: int, end: int) -> None:
        """Take a dictionary in a line that lies in a text, and the progress bar it was printed beside."""
        pending = self._pending
        begin = 0 if line[:2] == b"{'" else line.find(b"{'")
        stop = len(line) if line[-1:] == b"}" else line.rfind(b"}") + 1
        text = line[begin:stop] if stop > begin else line[begin:]
        before = None
        if begin:
            prefix = line[:begin]
            rank = _RANK.match(prefix)
            if rank is not None and self._rank not in (None, rank[1]) and text == self._last_text:
                return  # every process of the group printed it
            self._rank = rank[1] if rank else self._rank
            if _VALIDATES.search(prefix) is not None:
                pending.validates.append(len(pending.texts))
            before = BAR.search(prefix)
            if b"global_step=" in line:
                self._hint("global_step", line)
                pending = self._pending
        self._last_text = text
        after = bar_in(around, end, end + NEAR_BYTES)
        if after is None and before is None:
            before = bar_in(around, max(0, start - NEAR_BYTES), start, last=True)
        pending.texts.append(text)
        if after is not None:
            pending.bars.append((int(before[1]) if before else -1, int(after[1]), int(after[2])))
        else:
            pending.bars.append((int(before[1]), -1, int(before[2])) if before else NO_BAR)
        self._unresolved = after is None and end + NEAR_BYTES > len(around)
        self.sure = True

    def _find_late_bar(self, block: bytes) -> None:
        """Look at the beginning of a piece for the bar after the last dictionary of the piece before."""
        if self._unresolved and self._pending.texts:
            bar = bar_in(block, 0, NEAR_BYTES)
            if bar is not None:
                self._pending.bars[-1] = (self._pending.bars[-1][0], int(bar[1]), int(bar[2]))
        self._unresolved = False

    def _take_line(self, line: bytes, before: bytes) -> None:
        plan = self._plans.of(line)
        if plan is None or self._printed.open:
            row = self._printed.row(line)
            if row is not None:
                self._flush_dicts()
                self._add(row)
                return
        if plan is None:
            if b'{"' in line and (row := printed_json(line)) is not None:
                self._flush_dicts()
                self._add(row)
            elif line[-1:] != b"]":
                self._take_context(line)
            return
        if self._pending.texts:
            self._flush_dicts()
        if plan.has_epoch:
            self._epoch = plan.value(EPOCH, line)
        elif (bar := _EPOCH_BAR.search(before)) is not None:
            self._epoch = float(bar[1])
        rows, texts = self._texts_of(plan)
        rows.append(len(self._data.tiers))
        texts.append(line)
        self._planned_rows += 1
        self._data.append(plan.tier, self._epoch, self._step)

    def _take_context(self, line: bytes) -> None:
        """Keep what a line without losses says of where the run stands."""
        lowered = line.lower()
        if (match := _EPOCH_LINE.search(lowered)) is not None:
            self._epoch = float(match[1])
        if (match := _STEP_LINE.search(line)) is not None:
            self._step = float(match[1])
        if any(mark in line for mark in _BEGINS):
            self._hint("begins", b"")
        elif b"=" in line:
            for name, number in _BANNER.findall(lowered):
                digits = number.replace(b",", b"")
                if digits:
                    self._flush_dicts()
                    self._data.hints.append(Hint(len(self._data.tiers), name.decode(), int(digits)))

    def _hint(self, name: str, text: bytes) -> None:
        self._flush_dicts()
        match = _GLOBAL_STEP.search(text)
        self._data.hints.append(Hint(len(self._data.tiers), name, int(match[1]) if match else 0))

    def _flush(self) -> None:
        self._flush_dicts()
        for plan, (rows, texts) in self._planned.items():
            numbers = np.array(rows, dtype=np.int64)
            for name, (keep, values) in plan.columns(texts).items():
                self._data.table.add_values(f"{plan.tier}:{name}", numbers if keep is None else numbers[keep], values)
        self._planned, self._planned_rows = {}, 0
        self._data.table.rows = len(self._data.tiers)

    def _flush_dicts(self) -> None:
        """Parse the dictionaries met since the last time."""
        pending = self._pending
        if not pending.texts:
            return
        self._pending = _Pending()
        entries, origins, quoted = entries_of(pending.texts)
        origins = list(range(len(entries))) if origins is None else origins
        self._skipped_dicts += len(pending.texts) - len(set(origins))
        for i in pending.validates:
            entries = [_as_evaluation(e) if o == i else e for e, o in zip(entries, origins, strict=True)]
        self._add_entries(entries, quoted, [pending.bars[origin] for origin in origins])

    def _add_entries(
        self,
        entries: Sequence[Entry],
        quoted: bool,
        bars: Sequence[tuple[int, int, int]] | None = None,
        *,
        checked: bool = False,
    ) -> None:
        """Add those entries that tell metrics, each with its bar; ``checked`` if all of them do."""
        shapes = set() if checked else set(map(tuple, entries))
        if any(FOLDED in names for names in shapes):
            entries = list(map(unfolded, entries))
        if not all(map(tells_metrics, shapes)):
            kept = [i for i, entry in enumerate(entries) if tells_metrics(tuple(entry))]
            entries, bars = [entries[i] for i in kept], bars and [bars[i] for i in kept]
        self._quoted = self._quoted or (quoted and bool(entries))
        self._data.table.rows = len(self._data.tiers)
        self._data.table.add(entries, prefix="0:")
        self._data.append_dicts(len(entries), bars)

    def _add(self, row: dict[str, float]) -> None:
        """Add a row of a printed table."""
        self._data.table.rows = len(self._data.tiers)
        self._data.table.add([row], prefix="1:")
        self._data.append(1, row.get(EPOCH))
        self.sure = True


def _as_evaluation(entry: Entry) -> Entry:
    """Return an entry that its line calls an evaluation under the names of one."""
    if any(name.startswith("eval_") for name in entry):
        return entry
    return {name if name in ("epoch", "step") else f"eval_{name}": value for name, value in entry.items()}
