"""The kinds of line a journal holds: the format on disk, in one place.

Every line is a JSON object with ``kind`` first and ``crc`` last (``framing``), and in between

- ``seq``: number of the record in this journal, counted from 0, without a gap unless records were lost;
- ``t``: seconds since its segment began, by a clock that never goes back;
- the fields of its kind, below.

Numbers are JSON numbers; NaN and infinities the strings "NaN", "Infinity", "-Infinity".

docs/journal.md says the same for people who read the file with other tools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from sightline.journal.gold import judgement_of
from sightline.journal.judgement import decision_of, diagnosis_of, finding_of
from sightline.journal.values import (
    from_json_number,
    mapping,
    optional_number,
    optional_text,
    optional_whole_number,
    text,
    whole_number,
)
from sightline.runs import Decision, Diagnosis, Finding, Status
from sightline.runs.gold import Judgement

FORMAT = 1
"""Version of the format on disk that this Sightline writes."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Format version -> the function that lifts a record to the next version. Version 1 is the first."""

CheckpointEvent = Literal["saved", "verified", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What every line has."""

    kind: ClassVar[str]
    seq: int
    t: float

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Self:
        """Return the line that a decoded record is.

        Raises
        ------
        KeyError, ValueError
            If a field is missing or is not what it should be.
        """
        fields = cls._fields(payload)
        return cls(seq=whole_number(payload["seq"]), t=from_json_number(payload["t"]), **fields)

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine(Line):
    """The first line: what the run is. It comes again when facts change; later values win, the config key by key."""

    kind: ClassVar[str] = "run"
    format: int
    """Version of the format."""
    id: str
    """32 hexadecimal digits, drawn at the start, the same for all segments."""
    name: str
    started: float
    """Unix time in seconds; for people only, nothing is ordered by it."""
    max_steps: int | None
    """Optimizer steps planned."""
    config: Mapping[str, Any]
    """Training arguments and what else was given, secrets masked."""
    environment: Mapping[str, Any]
    """Machine, versions and command line (``environment.py``), secrets masked."""

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "format": whole_number(payload["format"]),
            "id": text(payload["id"]),
            "name": text(payload["name"]),
            "started": from_json_number(payload["started"]),
            "max_steps": optional_whole_number(payload.get("max_steps")),
            "config": mapping(payload["config"]),
            "environment": mapping(payload["environment"]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentLine(Line):
    """A start or a resume, and who records it; points of earlier segments above from_step are superseded."""

    kind: ClassVar[str] = "segment"
    format: int
    """Version of the format from here on."""
    from_step: int
    """``global_step`` it goes on from; 0 for a fresh start."""
    started: float
    """Unix time in seconds."""
    process: Mapping[str, Any]
    """Who writes: pid, host, boot_id, pid_namespace, start_ticks (``process.py``)."""

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "format": whole_number(payload["format"]),
            "from_step": whole_number(payload["from_step"]),
            "started": from_json_number(payload["started"]),
            "process": mapping(payload["process"]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine(Line):
    """Metrics at one optimizer step."""

    kind: ClassVar[str] = "log"
    step: int
    """``global_step``."""
    metrics: Mapping[str, float]
    """Canonical name -> value."""

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        metrics = mapping(payload["metrics"])
        return {
            "step": whole_number(payload["step"]),
            "metrics": {name: from_json_number(value) for name, value in metrics.items()},
        }


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the losses of a set of rows stand in ``examples.f32``."""

    offset: int
    """First byte of the loss sums: little-endian float32, one a row, in the order of the set."""
    rows: int
    crc: str
    """zlib.crc32 of their bytes, 8 hexadecimal digits."""
    counts_offset: int
    """First byte of the labelled tokens of each row, float32 too; written once as long as they stay the same."""
    counts_crc: str

    @classmethod
    def of(cls, payload: object) -> Rows | None:
        """Return the place that an ``eval`` line names, None where it has none."""
        if payload is None:
            return None
        fields = mapping(payload)
        counts = mapping(fields["token_counts"])
        return cls(
            offset=whole_number(fields["offset"]),
            rows=whole_number(fields["rows"]),
            crc=text(fields["crc"]),
            counts_offset=whole_number(counts["offset"]),
            counts_crc=text(counts["crc"]),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object that an ``eval`` line holds."""
        counts = {"offset": self.counts_offset, "crc": self.counts_crc}
        return {"offset": self.offset, "rows": self.rows, "crc": self.crc, "token_counts": counts}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalLine(Line):
    """An evaluation; its losses by row stand in ``examples.f32``."""

    kind: ClassVar[str] = "eval"
    step: int
    eval_loss: float
    """Validation loss the run is judged by, nats per token."""
    tokens: int | None
    """Labelled tokens of all validation rows."""
    reported_loss: float | None
    """The Trainer's own ``eval_loss``."""
    probe_loss: float | None
    """Token-weighted mean loss of the train probe, nats per token."""
    runtime_s: float | None
    measured_loss: float | None
    """Token mean of the rows scored, where they became more in the middle of the run and eval_loss goes on from fewer."""
    losses: Rows | None
    """The validation rows."""
    probe: Rows | None
    """The rows of the train probe."""

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "step": whole_number(payload["step"]),
            "eval_loss": from_json_number(payload["eval_loss"]),
            "tokens": optional_whole_number(payload.get("tokens")),
            "reported_loss": optional_number(payload.get("reported_loss")),
            "probe_loss": optional_number(payload.get("probe_loss")),
            "runtime_s": optional_number(payload.get("runtime_s")),
            "measured_loss": optional_number(payload.get("measured_loss")),
            "losses": Rows.of(payload.get("losses")),
            "probe": Rows.of(payload.get("probe")),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLine(Line):
    """A checkpoint was saved, verified or deleted; the line tells all that is known of it then."""

    kind: ClassVar[str] = "checkpoint"
    event: str
    """``saved``, ``verified`` or ``deleted``."""
    step: int
    path: str
    """Its folder, relative to the output folder where it lies inside."""
    size_bytes: int | None
    verified: bool
    deleted: bool

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "event": text(payload["event"]),
            "step": whole_number(payload["step"]),
            "path": text(payload["path"]),
            "size_bytes": optional_whole_number(payload.get("size_bytes")),
            "verified": payload["verified"] is True,
            "deleted": payload["deleted"] is True,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLine(Line):
    """What was decided at an evaluation, and the diagnosis it rests on."""

    kind: ClassVar[str] = "decision"
    step: int
    diagnosis: Diagnosis
    decision: Decision

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "step": whole_number(payload["step"]),
            "diagnosis": diagnosis_of(mapping(payload["diagnosis"])),
            "decision": decision_of(mapping(payload["decision"])),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldLine(Line):
    """What a gold set says of the run's checkpoints; comes after the end where the run was judged later."""

    kind: ClassVar[str] = "gold"
    judgement: Judgement

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {"judgement": judgement_of(mapping(payload["judgement"]))}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine(Line):
    """A finding worth telling at once, among them what the recorder itself had to refuse or drop."""

    kind: ClassVar[str] = "alert"
    step: int | None
    finding: Finding

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "step": optional_whole_number(payload.get("step")),
            "finding": finding_of(mapping(payload["finding"])),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatLine(Line):
    """The process lives though it has nothing to say; only written after a while of silence."""

    kind: ClassVar[str] = "heartbeat"
    at: float
    """Unix time in seconds."""

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {"at": from_json_number(payload["at"])}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLine(Line):
    """How the segment ended; without one its process lives or died."""

    kind: ClassVar[str] = "end"
    status: Status
    reason: str | None
    """Why, in words: the first line of an error, the name of a signal, the decision."""

    @classmethod
    def _fields(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": Status(payload["status"]), "reason": optional_text(payload.get("reason"))}


KINDS: dict[str, type[Line]] = {
    line.kind: line
    for line in (
        RunLine,
        SegmentLine,
        LogLine,
        EvalLine,
        CheckpointLine,
        DecisionLine,
        GoldLine,
        AlertLine,
        HeartbeatLine,
        EndLine,
    )
}
"""Every kind of line by its name; a reader skips a kind it does not know."""
