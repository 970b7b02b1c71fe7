"""The write path: lines go straight to the disk, wait in memory while it refuses them, and nothing is ever raised."""

from __future__ import annotations

import contextlib
import errno
import sys
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from sightline.journal import FILE_NAME
from sightline.journal.assembly import LINES_DROPPED
from sightline.journal.examples import FILE_NAME as EXAMPLES_NAME
from sightline.journal.examples import WrittenCounts, blocks
from sightline.journal.files import AppendFile, LockedElsewhere, is_full, sync_folder
from sightline.journal.framing import encode
from sightline.journal.judgement import finding_as_json
from sightline.journal.lifetime import Heartbeat
from sightline.runs import ExampleLosses, Finding, Severity

WAITING_LIMIT = 16 * 2**20
"""Bytes of lines held in memory while the disk refuses them; past it ``log`` lines are dropped and counted."""
RETRY_S = 1.0
"""Seconds between attempts to write what waits."""
HEAD_BYTES = 120
"""Bytes by which a journal is known again; the id of the run is among them."""

_RESERVE = 2**22  # room past the limit for the few lines that are not ``log``
_REPORT_S = 60.0


@dataclass(frozen=True, slots=True)
class WaitingEvaluation:
    """An ``eval`` line whose rows must reach examples.f32 first, for the line says where they stand."""

    payload: dict[str, Any]
    sets: Mapping[str, ExampleLosses]

    def __len__(self) -> int:
        """Return about how many bytes it holds."""
        return 1000 + sum(16 * losses.loss_sums.size for losses in self.sets.values())


class JournalWriter:
    """Appends lines to a journal and rows to examples.f32; order is kept, nothing is raised but by ``open``.

    Parameters
    ----------
    folder : Path
        The ``sightline`` folder of a run.
    on_problem : callable, optional
        Told, at most once a minute, what cannot be written and why; without it a RuntimeWarning is issued.
    """

    def __init__(self, folder: Path, on_problem: Callable[[str], None] | None = None) -> None:
        self.journal = AppendFile(folder / FILE_NAME, locked=True)
        self.examples = AppendFile(folder / EXAMPLES_NAME)
        self.written: dict[str, WrittenCounts] = {}
        """Token counts that stand in examples.f32."""
        self.head = b""
        """First bytes of the journal, by which it is known again when it has to be opened anew."""
        self.overwrite = False
        """Another run that stands in the way may be removed."""
        self.problem: str | None = None
        """What cannot be written at the moment, None while all is well."""
        self.dropped = 0
        """Lines lost for want of memory since the last was accounted for."""
        self.seq = 0
        """Number of the next record."""
        self._started = self._last_line = monotonic()
        self.alarm: Heartbeat | None = None
        """Told of trouble, so that it looks after it soon."""
        self._on_problem = on_problem
        self._waiting: deque[bytes | WaitingEvaluation] = deque()
        self._waiting_bytes = 0
        self._begun: tuple[bytes, int] | None = None  # a line cut short by a full disk, and how much of it stands there
        self._retry_at = 0.0
        self._reported_at = -_REPORT_S
        self._folder_synced = False

    @property
    def is_blocked(self) -> bool:
        """Whether lines wait, or would have to."""
        return bool(self._waiting) or not self.journal.is_open

    def open(self) -> None:
        """Open and lock the journal; what the disk refuses is a problem remembered, not an exception.

        Raises
        ------
        LockedElsewhere
            If another process holds it.
        """
        try:
            self.journal.open()
        except OSError as error:
            self._refused(error)

    def begin_segment(self) -> None:
        """Count the seconds of the lines from now."""
        self._started = monotonic()

    def record(self, kind: str, /, **fields: Any) -> None:
        """Append a record: number, time and CRC are added here."""
        seq = self.seq
        line = encode(self._numbered(kind, fields))
        if not self.head:
            self.head = line[:HEAD_BYTES]
        if self.write(line, droppable=kind == "log"):
            self.seq = seq + 1  # not += 1: a signal handler may have recorded meanwhile

    def record_evaluation(self, sets: Mapping[str, ExampleLosses], /, **fields: Any) -> None:
        """Append the rows of an evaluation to examples.f32, then its ``eval`` line."""
        seq = self.seq
        if self._write_evaluation(WaitingEvaluation(self._numbered("eval", fields), sets)):
            self.seq = seq + 1

    def _numbered(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record with its number and time."""
        now = self._last_line = monotonic()
        return {"kind": kind, "seq": self.seq, "t": round(now - self._started, 3), **fields}

    @property
    def silence_s(self) -> float:
        """Seconds since the last record."""
        return monotonic() - self._last_line

    def catch_up(self) -> str | None:
        """Write what waits if the disk is back; return what was lost for good meanwhile."""
        self.retry()
        if self.is_blocked or not self.dropped:
            return None
        count, self.dropped = self.dropped, 0
        message = f"{count:,} lines were dropped: the disk refused them for longer than memory could hold them"
        finding = Finding(LINES_DROPPED, Severity.WARNING, message, evidence={"lines": count})
        self.record("alert", step=None, finding=finding_as_json(finding))
        return message

    def write(self, line: bytes, *, droppable: bool = False) -> bool:
        """Append a line now or, while the disk refuses, as soon as it can be; False if there is no room to wait."""
        if self._waiting or self.journal.fd < 0:
            return self._wait(line, droppable)
        try:
            written = self.journal.append(line)
        except OSError as error:
            self._refused(error)
            return self._wait(line, droppable)
        if written < len(line):
            self._begun = (line, written)
            self._waiting.append(line[written:])
            self._waiting_bytes += len(line) - written
            self._refused(self.journal.stopped_by)
        return True

    def _write_evaluation(self, item: WaitingEvaluation) -> bool:
        """Append rows and line; False if there is no room to wait."""
        encode(item.payload)  # raises here and now if it cannot be written, not when the disk is back
        if not self.is_blocked:
            try:
                return self.write(self._with_rows(item))
            except OSError as error:
                self._refused(error)
        return self._wait(item, droppable=False)

    def retry(self, *, at_once: bool = False) -> None:
        """Write what waits, in order, as far as the disk takes it.

        Does nothing within a second of the last attempt, unless ``at_once``.
        """
        if not self.is_blocked or (monotonic() < self._retry_at and not at_once):
            return
        try:
            if not self.journal.is_open:
                self._reopen()
            while self._waiting:
                line = self._waiting[0]
                if isinstance(line, WaitingEvaluation):
                    line = self._with_rows(line)
                    self._replace_first(line)  # its rows are written: not again, should the line itself be refused
                written = self.journal.append(line)
                if written < len(line):
                    begun = self._begun or (line, 0)
                    self._begun = (begun[0], begun[1] + written)
                    self._replace_first(line[written:])
                    raise self.journal.stopped_by
                self._begun = None
                self._waiting_bytes -= len(self._waiting.popleft())
        except OSError as error:
            self._refused(error)
        except LockedElsewhere:
            self.report(f"{self.journal.path}: another process records there")
            self._retry_at = monotonic() + RETRY_S
        else:
            self.problem = None

    def check(self) -> None:
        """Notice that files were removed under us, and bring them back."""
        for file in (self.journal, self.examples):
            try:
                if file.is_removed:
                    file.bring_back()
                    self._folder_synced = False
            except (OSError, LockedElsewhere) as error:
                why = error.strerror if isinstance(error, OSError) else "another process records there"
                self.report(f"{file.path}: removed while it was written, and cannot be brought back: {why}")
                return
        if not self.is_blocked:
            self.problem = None

    def clear(self) -> None:
        """Remove what another run left.

        Raises
        ------
        OSError
            If the journal cannot be emptied.
        """
        self.journal.truncate(0)
        with contextlib.suppress(OSError):
            self.examples.path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Wait until all that was written stands on the disk."""
        try:
            for file in (self.examples, self.journal):
                if file.is_open:
                    file.sync()
            if not self._folder_synced and self.journal.is_open:
                folder = self.journal.path.parent
                for place in (folder, folder.parent):
                    sync_folder(place)
                self._folder_synced = True
        except OSError as error:
            self.report(f"{self.journal.path}: {error.strerror or error}")

    def close(self) -> None:
        """Write what can still be written and close the files."""
        self.retry(at_once=True)
        self.check()
        if lost := len(self._waiting) + self.dropped:
            self.report(f"{self.journal.path}: {lost:,} lines were never written", always=True)
        self.release()

    def release(self) -> None:
        """Close the files as they are."""
        for file in (self.journal, self.examples):
            try:
                file.close()
            except OSError as error:
                self.report(f"{file.path}: {error.strerror or error}")

    def report(self, problem: str, *, always: bool = False) -> None:
        """Remember a problem and tell of it when it is new, at most once a minute."""
        is_new, self.problem = self.problem is None, problem
        if self.alarm is not None:
            self.alarm.hurry()
        now = monotonic()
        if not always and (not is_new or now - self._reported_at < _REPORT_S):
            return
        self._reported_at = now
        try:
            if self._on_problem is not None:
                self._on_problem(problem)
            else:
                warnings.warn(f"sightline: {problem}", RuntimeWarning, stacklevel=2)
        except Exception:  # a callback that fails, or warnings made errors: neither may reach the training loop
            print(f"sightline: {problem}", file=sys.__stderr__)

    def _refused(self, error: OSError) -> None:
        """Remember that the disk refused; the next attempt comes later."""
        self._retry_at = monotonic() + RETRY_S
        if not is_full(error):
            self.journal.close()  # a dead handle: open it anew
        self.report(
            f"{error.filename or self.journal.path}: {error.strerror or error}; "
            "training goes on, what is logged waits in memory until it can be written"
        )

    def _wait(self, item: bytes | WaitingEvaluation, droppable: bool) -> bool:
        """Keep an item in memory, unless there is too much already."""
        limit = WAITING_LIMIT if droppable else WAITING_LIMIT + _RESERVE
        if self._waiting_bytes + len(item) > limit or (droppable and self.dropped):
            self.dropped += 1
            return False
        self._waiting.append(item)
        self._waiting_bytes += len(item)
        return True

    def _replace_first(self, rest: bytes) -> None:
        """Let what is left of a line wait in its place."""
        self._waiting_bytes += len(rest) - len(self._waiting[0])
        self._waiting[0] = rest

    def _with_rows(self, item: WaitingEvaluation) -> bytes:
        """Append the rows of an evaluation and return its line."""
        payload = item.payload
        if item.sets:
            try:
                places = self._append_rows(item.sets)
            except OSError as error:
                if is_full(error):
                    raise
                self.examples.close()  # a dead handle: open it anew next time
                self.report(f"{self.examples.path}: {error.strerror or error}; losses by row are not recorded")
            else:
                payload = payload | places
        return encode(payload)

    def _append_rows(self, sets: Mapping[str, ExampleLosses]) -> dict[str, Any]:
        """Append rows to examples.f32, all or none, and return their places."""
        file = self.examples
        if not file.is_open:
            if not self.journal.is_in_place:  # the folder was moved or is another run's by now
                raise FileNotFoundError(errno.ENOENT, "its journal is no longer beside it")
            file.open()
        start = file.size()
        known = {name: counts for name, counts in self.written.items() if counts.end <= start}  # unless it was cut
        block, places, written = blocks(sets, start, known)
        try:
            if file.append(block) < len(block):
                raise file.stopped_by
        except OSError:
            file.truncate(start)
            raise
        self.written = written
        return {name: place.as_json() for name, place in places.items()}

    def _reopen(self) -> None:
        """Open the journal after all or again, and put its end in order."""
        self.journal.open()
        if self.journal.first(len(self.head)) != self.head[: self.journal.size()]:
            if not self.overwrite:
                self.journal.close()
                raise OSError(errno.EEXIST, "another run was recorded there meanwhile", str(self.journal.path))
            self.clear()
        self.mend()

    def mend(self) -> None:
        """End a torn last line, so that the next one begins on its own; a torn line of ours is finished or repeated."""
        begun, self._begun = self._begun, None
        if begun is not None:
            line, written = begun
            if self.journal.tail(written) == line[:written]:
                self._begun = begun
                return
            self._replace_first(line)
        if self.journal.tail(1) not in (b"", b"\n"):
            self._waiting.appendleft(b"\n")
            self._waiting_bytes += 1
