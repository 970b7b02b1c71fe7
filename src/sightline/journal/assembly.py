"""From lines to a Run: what the reader, the follower and a resuming recorder share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import MalformedLog
from sightline.journal import NAME
from sightline.journal.examples import FILE_NAME as EXAMPLES_NAME
from sightline.journal.examples import DamagedRows, ExampleReader, WrittenCounts
from sightline.journal.framing import DamagedLine, LineScanner, decode, salvage
from sightline.journal.lines import (
    FORMAT,
    KINDS,
    UPGRADES,
    AlertLine,
    CheckpointLine,
    EndLine,
    EvalLine,
    GoldLine,
    Line,
    LogLine,
    Rows,
    RunLine,
    SegmentLine,
)
from sightline.journal.process import is_alive
from sightline.journal.values import from_json_number, whole_number
from sightline.runs import Checkpoint, Evaluation, ExampleLosses, Run, RunBuilder, Segment, Status

SILENCE_S = 60.0
"""A process that cannot be looked at counts as dead after this many seconds without a line: four heartbeats."""
LINES_DROPPED = "lines_dropped"
"""Kind of the finding by which a recorder says that lines were lost for want of memory while the disk refused them."""
VALUE_REFUSED = "value_refused"
"""Kind of the finding by which it says that something logged was no number."""

_DAMAGE_LIMIT = 100


class RunAssembler:
    """Feeds lines, intact or not, into a RunBuilder and keeps what else a journal tells.

    Parameters
    ----------
    journal : Path
        The file the lines come from.
    path : Path
        What Run.path is to be.
    output_dir : Path
        The folder that relative checkpoint paths start from.
    """

    def __init__(self, journal: Path, path: Path, output_dir: Path) -> None:
        self.builder = RunBuilder(path, NAME, output_dir.resolve().name)
        self.journal = journal
        self.output_dir = output_dir
        self.scanner = LineScanner()
        self.id: str | None = None
        self.next_seq = 0
        """Number the next record will have."""
        self.process: Mapping[str, Any] = {}
        """Who recorded the last segment."""
        self.lines: list[Line] | None = None
        """Set it to a list to have each intact line put there, typed."""
        self.written: dict[str, WrittenCounts] = {}
        """Token counts that stand in ``examples.f32``."""
        self._examples = ExampleReader(journal.parent / EXAMPLES_NAME)
        self._damaged_rows: dict[str, int] = {}
        self._damage_count = 0
        self._damaged_since_intact = 0
        self._end: EndLine | None = None
        self._format = FORMAT

    @property
    def has_run(self) -> bool:
        """Whether any record of a run was found."""
        return self.next_seq > 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file.

        Parameters
        ----------
        chunk : bytes
            Lines may be cut anywhere; an unfinished last one waits.

        Raises
        ------
        MalformedLog
            If a newer Sightline wrote the journal.
        """
        for number, offset, line in self.scanner.feed(chunk):
            if line is None:
                self._note(number, offset, "too long for a line of ours, skipped")
                continue
            try:
                payload = decode(line)
            except DamagedLine as damage:
                self._damaged(number, offset, line, str(damage))
            else:
                self._accept(payload, number, offset)

    def finish(self) -> None:
        """Judge an unfinished last line: an intact one counts, a torn one is damage unless its writer still lives."""
        line = self.scanner.unfinished
        if not line:
            return
        number, offset = self.scanner.number, self.scanner.offset
        try:
            payload = decode(line)
        except DamagedLine as damage:
            if self._end is not None or not self.is_running():
                self._damaged(number, offset, line, f"the last line: {damage}")
        else:
            self._accept(payload, number, offset)

    def is_running(self) -> bool:
        """Return whether a living process records the run: by the process itself, else by the age of the file."""
        if self._end is not None or not self.has_run:
            return False
        alive = is_alive(self.process)
        if alive is not None:
            return alive
        try:
            age_s = time.time() - self.journal.stat().st_mtime
        except OSError:
            return False
        return abs(age_s) <= SILENCE_S

    def build(self) -> Run:
        """Return the run as the lines so far tell it."""
        run = self.builder.build()
        if self._end is not None:
            return replace(run, status=self._end.status, end_reason=self._end.reason)
        if self.is_running():
            return replace(run, status=Status.RUNNING)
        where = "before its first point" if run.last_step is None else f"at or after step {run.last_step}"
        return replace(run, status=Status.FAILED, end_reason=f"the process died without an end line, {where}")

    def note_damaged_rows(self) -> None:
        """Put what of examples.f32 could not be read into the damage, a sentence a cause."""
        for why, count in self._damaged_rows.items():
            self._add_damage(f"{why}: losses by row of {count} evaluation{'s' * (count > 1)} are missing")
        self._damaged_rows.clear()

    def _accept(self, payload: dict[str, Any], number: int, offset: int) -> None:
        """Take an intact record."""
        try:
            kind = payload.get("kind")
            if kind in ("run", "segment"):
                self._format = self._known_format(whole_number(payload["format"]))
            for version in range(self._format, FORMAT):
                payload = UPGRADES[version](payload)
            self._follow_numbers(whole_number(payload["seq"]), number, offset)
            if kind == "log" and self.lines is None:
                self._log(payload)
            elif (line_type := KINDS.get(str(kind))) is not None:
                line = line_type.of(payload)
                self._apply(line, number, offset)
                if self.lines is not None:
                    self.lines.append(line)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            self._note(number, offset, f"intact, but not a line of format {self._format} ({error!r:.200})")

    def _known_format(self, version: int) -> int:
        """Return a version if this Sightline reads it."""
        if version > FORMAT:
            raise MalformedLog(
                f"{self.journal}: written in format {version}, this Sightline reads up to {FORMAT}; "
                "update it: pip install -U sightline"
            )
        return version

    def _follow_numbers(self, seq: int, number: int, offset: int) -> None:
        """Name records that are missing between two intact ones, beyond the damaged lines already named."""
        missing = seq - self.next_seq - self._damaged_since_intact
        if missing > 0:
            self._note(number, offset, f"{missing} record{'s' * (missing > 1)} before it missing")
        self._damaged_since_intact = 0
        self.next_seq = max(self.next_seq, seq + 1)

    def _log(self, payload: dict[str, Any]) -> None:
        """Take a ``log`` record; nearly all lines are of this kind, so no record is built."""
        metrics = payload["metrics"]
        for value in metrics.values():
            if value.__class__ is not float:
                metrics = {name: from_json_number(value) for name, value in metrics.items()}
                break
        self.builder.log(whole_number(payload["step"]), metrics)

    def _apply(self, line: Line, number: int, offset: int) -> None:
        """Let a line change the run."""
        builder = self.builder
        if isinstance(line, RunLine):
            if self.id is not None and line.id != self.id:
                self._note(number, offset, "begins another run; its lines are read as if they were of the first")
            self.id = self.id or line.id
            builder.name, builder.max_steps = line.name, line.max_steps
            builder.config.update(line.config)
        elif isinstance(line, SegmentLine):
            self.process, self._end = line.process, None
            builder.segment(Segment(line.from_step, line.started))
        elif isinstance(line, EvalLine):
            self._evaluation(line)
        elif isinstance(line, CheckpointLine):
            path = self.output_dir / line.path
            builder.checkpoint(Checkpoint(line.step, path, line.size_bytes, line.verified, line.deleted))
        elif isinstance(line, AlertLine):
            if line.finding.kind == LINES_DROPPED:
                self._add_damage(line.finding.message)
        elif isinstance(line, GoldLine):
            builder.judgement(line.judgement)
        elif isinstance(line, EndLine):
            self._end = line
        elif isinstance(line, LogLine):
            builder.log(line.step, line.metrics)

    def _evaluation(self, line: EvalLine) -> None:
        """Take an evaluation with its losses by row, as far as they can be read."""
        losses, probe = self._rows("losses", line.losses), self._rows("probe", line.probe)
        with np.errstate(all="ignore"):  # losses may be infinite
            self.builder.evaluation(
                Evaluation(
                    line.step, line.eval_loss, losses, probe, line.reported_loss, line.runtime_s, line.measured_loss
                )
            )
        if probe is None and line.probe_loss is not None:
            self.builder.log(line.step, {"probe_loss": line.probe_loss})

    def _rows(self, name: str, place: Rows | None) -> ExampleLosses | None:
        """Read a set of rows; what cannot be read is counted by its cause."""
        if place is None:
            return None
        try:
            losses = self._examples.read(place)
        except DamagedRows as damage:
            self._damaged_rows[str(damage)] = self._damaged_rows.get(str(damage), 0) + 1
            return None
        self.written[name] = WrittenCounts(losses.token_counts, place.counts_offset, place.counts_crc)
        return losses

    def _damaged(self, number: int, offset: int, line: bytes, why: str) -> None:
        """Name a damaged line and read the intact records inside it."""
        records = salvage(line)
        kept = f"; {len(records)} intact record{'s' * (len(records) > 1)} in it read" if records else ""
        self._note(number, offset, why + kept)
        for payload in records:
            self._accept(payload, number, offset)
        if not records:
            self._damaged_since_intact += 1

    def _note(self, number: int, offset: int, why: str) -> None:
        """Name damage at a line."""
        self._add_damage(f"{self.journal.name} line {number:,} (byte {offset:,}): {why}")

    def _add_damage(self, sentence: str) -> None:
        """Add a sentence to the damage; past a hundred only their number grows."""
        damage = self.builder.damage
        self._damage_count += 1
        if self._damage_count <= _DAMAGE_LIMIT:
            damage.append(sentence)
            return
        more = f"… and {self._damage_count - _DAMAGE_LIMIT:,} more"
        if self._damage_count == _DAMAGE_LIMIT + 1:
            damage.append(more)
        else:
            damage[-1] = more
