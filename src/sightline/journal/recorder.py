"""Recorder: what happens in a run, appended to its journal while it happens.

It cannot hurt the run it records: after ``open`` nothing is ever raised, whatever the disk does; each event is one
``write`` of one line, so what was acknowledged survives ``kill -9``; only evaluations, checkpoints and ends wait for
the disk (``fsync``).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np

from sightline.errors import SightlineError
from sightline.journal import FOLDER, NAME
from sightline.journal.assembly import VALUE_REFUSED, RunAssembler
from sightline.journal.environment import describe
from sightline.journal.gold import judgement_as_json, judgement_of
from sightline.journal.intake import (
    checkpoint_fields,
    checkpoint_of,
    evaluation_fields,
    evaluation_of,
    metrics_of,
    relative_path,
)
from sightline.journal.judgement import decision_as_json, diagnosis_as_json, finding_as_json
from sightline.journal.lifetime import HEARTBEAT_S, Heartbeat, how_it_ended, unwatch, watch
from sightline.journal.lines import FORMAT, CheckpointEvent
from sightline.journal.opening import claim
from sightline.journal.process import identity
from sightline.journal.secrets import Masker
from sightline.journal.values import Refused, step_value, to_json_number
from sightline.journal.writer import JournalWriter
from sightline.runs import (
    Checkpoint,
    Decision,
    Diagnosis,
    Evaluation,
    Finding,
    Run,
    RunBuilder,
    Segment,
    Severity,
    Status,
)
from sightline.runs.gold import Judgement

_STEP_LIMIT = 2**63
_NOTE_LIMIT = 200

_Arguments = ParamSpec("_Arguments")


def _harmless(
    method: Callable[Concatenate[Recorder, _Arguments], None],
) -> Callable[Concatenate[Recorder, _Arguments], None]:
    """Let nothing out of a method: the training loop comes first. In a forked child it does nothing."""

    @wraps(method)
    def guarded(recorder: Recorder, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        if os.getpid() != recorder._pid:
            return
        try:
            with recorder._lock:
                if recorder._writer.problem is not None and (loss := recorder._writer.catch_up()):
                    recorder._builder.damage.append(loss)
                if recorder._is_closed:
                    recorder._after_close()
                else:
                    method(recorder, *args, **kwargs)
        except Exception as error:
            recorder._own_failure(error)

    return guarded


class Recorder:
    """Records one run into ``<output_dir>/sightline``; made by ``Recorder.open``.

    All methods may be called from any thread; in a forked child they do nothing.
    """

    def __init__(self, output_dir: Path, writer: JournalWriter, builder: RunBuilder, run_id: str) -> None:
        self.output_dir = output_dir
        self.id = run_id
        """32 hexadecimal digits, the same for all segments."""
        self._writer = writer
        self._builder = builder
        self._base = output_dir.absolute()
        self._masker = Masker(os.environ)
        self._lock = threading.RLock()  # a signal handler may record while its own thread records
        self._pid = os.getpid()
        self._noted: set[str] = set()
        self._is_closed = False
        self._history_seq = -1
        self._heartbeat: Heartbeat | None = None

    @classmethod
    def open(
        cls,
        output_dir: Path,
        *,
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        from_step: int | None = 0,
        max_steps: int | None = None,
        on_problem: Callable[[str], None] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> Recorder:
        """Open a run folder for recording.

        A folder that cannot be written is no error: ``problem`` says why, what is recorded waits in memory, and it is
        written when the disk is back.

        Parameters
        ----------
        output_dir : Path
            The run's folder; ``sightline/`` is made in it.
        config : mapping, optional
            Training arguments and whatever else describes the run; nested, secrets are masked.
        name : str, optional
            Short name for people, the folder's name unless given.
        resume : bool
            Go on with the run in the folder, if there is one.
        overwrite : bool
            Remove the run in the folder, if there is one. Checkpoints stay.
        from_step : int or None
            ``global_step`` a resume goes on from; recorded points above it are superseded. None: from the last one.
        max_steps : int, optional
            Optimizer steps planned.
        on_problem : callable, optional
            Told of a problem, once and at most every minute, perhaps from the thread of the heartbeat; unless given, a
            RuntimeWarning is issued.
        heartbeat_s : float
            Seconds of silence after which a ``heartbeat`` line is written.

        Returns
        -------
        Recorder

        Raises
        ------
        RunFolderInUse
            If a living process records into the folder.
        RunFolderExists
            If it holds a run and neither ``resume`` nor ``overwrite`` was asked.
        UsageError
            If both were asked.
        MalformedLog
            If a newer Sightline wrote the run to be resumed.
        """
        output_dir = Path(output_dir)
        writer = JournalWriter(output_dir.absolute() / FOLDER, on_problem)  # the program may change its directory
        try:
            earlier = claim(writer, output_dir, resume=resume, overwrite=overwrite)
        except SightlineError:
            raise
        except Exception as error:
            earlier = None
            writer.release()
            writer.report(f"{output_dir}: cannot be opened ({error!r:.300})")
        builder = RunBuilder(output_dir, NAME, output_dir.resolve().name) if earlier is None else earlier.builder
        builder.path = output_dir
        recorder = cls(output_dir, writer, builder, (earlier and earlier.id) or uuid.uuid4().hex)
        recorder._begin(earlier, config, name, max_steps, from_step)
        recorder._live(heartbeat_s)
        return recorder

    @_harmless
    def _begin(
        self,
        earlier: RunAssembler | None,
        config: Mapping[str, Any] | None,
        name: str | None,
        max_steps: int | None,
        from_step: int | None,
    ) -> None:
        """Write the first lines of this segment."""
        writer = self._writer
        if earlier is not None:
            writer.seq = earlier.next_seq
            writer.written = earlier.written
            if writer.journal.is_open:
                writer.mend()
                writer.retry(at_once=True)
        self.configure(config=config, max_steps=max_steps, name=name)
        if from_step is None:
            from_step = self._builder.build().last_step or 0
        self.segment(from_step)
        writer.sync()

    @_harmless
    def _live(self, heartbeat_s: float) -> None:
        """Let the heart beat."""
        watch(self)
        self._heartbeat = self._writer.alarm = Heartbeat(self, heartbeat_s)
        self._heartbeat.start()

    @property
    def problem(self) -> str | None:
        """What cannot be written at the moment and why; None while all is well."""
        return self._writer.problem

    @_harmless
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at a step: one line, handed to the operating system before this returns.

        Parameters
        ----------
        step : int
            ``global_step``.
        metrics : mapping of str to float
            By canonical name. What is no number is left out, and noted once for each name.
        """
        if step.__class__ is not int or not -_STEP_LIMIT <= step < _STEP_LIMIT:
            step = step_value(step)
        values: dict[str, float] = metrics if metrics.__class__ is dict else dict(metrics)
        shown: Mapping[str, Any] = values
        for name, value in values.items():
            if value.__class__ is not float or value - value != 0.0 or name.__class__ is not str:
                values = metrics_of(values, step, self.refuse)
                shown = {name: to_json_number(value) for name, value in values.items()}
                break
        if values:
            self._writer.record("log", step=step, metrics=shown)
            self._builder.log(step, values)

    @_harmless
    def evaluation(self, evaluation: Evaluation) -> None:
        """Record an evaluation: its losses by row, then its line, then ``fsync``."""
        with np.errstate(all="ignore"):  # losses may be infinite, and a program may have made warnings errors
            self._evaluation(evaluation)

    def _evaluation(self, evaluation: Evaluation) -> None:
        """Write rows and line of an evaluation."""
        stored = evaluation_of(evaluation, self.refuse)
        rows = {"losses": stored.losses, "probe": stored.probe}
        sets = {name: losses for name, losses in rows.items() if losses is not None}
        self._writer.check()
        self._writer.record_evaluation(sets, **evaluation_fields(stored))
        self._writer.sync()
        self._builder.evaluation(stored)

    @_harmless
    def checkpoint(self, checkpoint: Checkpoint, event: CheckpointEvent) -> None:
        """Record that a checkpoint was saved, verified or deleted, then ``fsync``."""
        path = relative_path(checkpoint.path, self._base)
        stored = checkpoint_of(checkpoint, event, self.output_dir / path)
        self._writer.record("checkpoint", **checkpoint_fields(stored, event, path))
        self._writer.check()
        self._writer.sync()
        self._builder.checkpoint(stored)

    @_harmless
    def decision(self, step: int, diagnosis: Diagnosis, decision: Decision) -> None:
        """Record what was decided at a step, and the diagnosis it rests on."""
        self._writer.record(
            "decision",
            step=step_value(step),
            diagnosis=self._masker.json(diagnosis_as_json(diagnosis)),
            decision=self._masker.json(decision_as_json(decision)),
        )

    @_harmless
    def alert(self, step: int | None, finding: Finding) -> None:
        """Record a finding worth telling at once."""
        self._writer.record(
            "alert",
            step=None if step is None else step_value(step),
            finding=self._masker.json(finding_as_json(finding)),
        )

    @_harmless
    def gold(self, judgement: Judgement) -> None:
        """Record what a gold set says of the run, then ``fsync``; it may come after the end."""
        payload = self._masker.json(judgement_as_json(judgement))
        self._writer.record("gold", judgement=payload)
        self._builder.judgement(judgement_of(payload))
        self._writer.sync()

    @_harmless
    def segment(self, from_step: int) -> None:
        """Begin a start or a resume: points above ``from_step`` are superseded, kept in the file, not in the run."""
        from_step, started = step_value(from_step), time.time()
        self._writer.begin_segment()
        self._writer.record("segment", format=FORMAT, from_step=from_step, started=started, process=identity())
        self._builder.segment(Segment(from_step, started))
        self._builder.status = Status.RUNNING

    @_harmless
    def configure(
        self, *, config: Mapping[str, Any] | None = None, max_steps: int | None = None, name: str | None = None
    ) -> None:
        """Record facts that became known or changed: the config key by key, the steps planned, the name."""
        builder = self._builder
        masked = self._masker.json(dict(config or {}))
        builder.config.update(masked)
        builder.max_steps = builder.max_steps if max_steps is None else step_value(max_steps)
        builder.name = builder.name if name is None else self._masker.text(str(name))
        self._writer.record(
            "run",
            format=FORMAT,
            id=self.id,
            name=builder.name,
            started=time.time(),
            max_steps=builder.max_steps,
            config=masked,
            environment=describe(self._masker),
        )

    @_harmless
    def end(self, status: Status, reason: str | None = None) -> None:
        """Record how the run ended, ``fsync``, and write history.parquet.

        Parameters
        ----------
        status : Status
            ``finished``, ``stopped``, ``failed``, or ``unknown`` where the program does not say.
        reason : str, optional
            Why, in words; secrets are masked. A later end counts over an earlier one.
        """
        status = Status(status)
        reason = None if reason is None else self._masker.text(str(reason))
        self._writer.record("end", status=status.value, reason=reason)
        self._builder.status, self._builder.end_reason = status, reason
        self._writer.retry(at_once=True)
        self._writer.check()
        self._writer.sync()
        self._write_history()

    def close(self) -> None:
        """Write what still waits, free the folder and stop the heart; closing twice does nothing."""
        if not self._is_closed:
            self._close()

    @_harmless
    def _close(self) -> None:
        """Close for good."""
        if not self.has_ended:
            self.end(Status.UNKNOWN, "closed without saying how the run ended")
        elif self._history_seq != self._writer.seq:  # something came after the end
            self._write_history()
        self._is_closed = True
        self._writer.close()
        unwatch(self)
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def run(self) -> Run:
        """Return the run as it stands, the very one a reader of the folder would see."""
        with self._lock:
            return self._builder.build()

    @property
    def has_ended(self) -> bool:
        """Whether an end was recorded in this segment."""
        return self._builder.status is not Status.RUNNING

    @_harmless
    def beat(self, silence_s: float) -> None:
        """Retry what waits, look after the files, and write a ``heartbeat`` line after so many seconds of silence."""
        self._writer.check()
        if not self.has_ended and self._writer.silence_s >= silence_s:
            self._writer.record("heartbeat", at=round(time.time(), 3))

    def forked(self) -> None:
        """Let go of the files in a forked child, so that the parent alone holds the lock."""
        self._is_closed = True
        self._lock = threading.RLock()  # another thread may have held it when the process was copied
        self._writer.release()

    def exiting(self, error: BaseException | None) -> None:
        """End with the interpreter where the program has not ended the run."""
        if not self._is_closed and not self.has_ended:
            if error is None:
                self.end(Status.UNKNOWN, "the program ended without saying how the run did")
            else:
                self.end(*how_it_ended(error))
        self.close()

    @_harmless
    def refuse(self, key: str, step: int, message: str) -> None:
        """Record, once for each key, that something given is left out and why."""
        if key not in self._noted and len(self._noted) < _NOTE_LIMIT:
            self._noted.add(key)
            self.alert(step, Finding(VALUE_REFUSED, Severity.INFO, message, from_step=step))

    def _write_history(self) -> None:
        """Write history.parquet; a failure is told and harms nothing."""
        from sightline.journal.history import FILE_NAME, write_history

        path = self._base / FOLDER / FILE_NAME
        if not self._writer.journal.is_in_place:  # the folder is not there, was moved, or is another run's by now
            self._writer.report(f"{path}: not written, the journal does not stand beside it")
            return
        try:
            write_history(self.run(), self.id, path)
            self._history_seq = self._writer.seq
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # polars panics with a BaseException
            self._writer.report(f"{path}: not written ({error!r:.300}); `sightline.journal.rebuild` makes it later")

    def _after_close(self) -> None:
        """Say once that nothing is recorded any more."""
        if "closed" not in self._noted:
            self._noted.add("closed")
            self._writer.report(f"{self.output_dir}: the run is closed, what comes now is not recorded", always=True)

    def _own_failure(self, error: Exception) -> None:
        """Tell of what could not be recorded, once for each kind of error, and let training go on."""
        key = type(error).__name__
        if key not in self._noted:
            self._noted.add(key)
            why = str(error) if isinstance(error, Refused) else repr(error)
            self._writer.report(f"{self.output_dir}: something could not be recorded: {why:.300}", always=True)
