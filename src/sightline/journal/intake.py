"""What a program hands over, made into what is kept: plain numbers and records, and the fields of their lines.

Whatever is no number, or no rows, is left out and told to ``refuse(key, step, message)``; nothing else is lost for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sightline.journal.examples import as_stored
from sightline.journal.lines import CheckpointEvent
from sightline.journal.values import Refused, metric_value, step_value, to_json_number
from sightline.runs import Checkpoint, Evaluation, ExampleLosses

Refuse = Callable[[str, int, str], None]


def metrics_of(metrics: Mapping[Any, Any], step: int, refuse: Refuse) -> dict[str, float]:
    """Return the metrics that are numbers as floats, by name."""
    values: dict[str, float] = {}
    for name, value in metrics.items():
        name = str(name).encode("utf-8", "backslashreplace").decode("utf-8")
        try:
            number = metric_value(value)
        except Refused as why:
            refuse(name, step, f"metric {name:.200} at step {step} is left out: {why}")
            continue
        if number is not None:
            values[name] = number
    return values


def evaluation_of(evaluation: Evaluation, refuse: Refuse) -> Evaluation:
    """Return the evaluation as a reader of the journal will see it.

    Raises
    ------
    Refused
        If its loss or its step is no number.
    """
    rows: dict[str, ExampleLosses] = {}
    for name, losses in (("losses", evaluation.losses), ("probe", evaluation.probe)):
        if losses is not None:
            try:
                rows[name] = as_stored(losses)
            except (ValueError, TypeError) as error:
                refuse(f"rows {name}", evaluation.step, f"{name} by row of an evaluation: {error}")
    return Evaluation(
        step=step_value(evaluation.step),
        eval_loss=_required(evaluation.eval_loss),
        losses=rows.get("losses"),
        probe=rows.get("probe"),
        reported_loss=metric_value(evaluation.reported_loss),
        runtime_s=metric_value(evaluation.runtime_s),
        measured_loss=metric_value(evaluation.measured_loss),
    )


def evaluation_fields(stored: Evaluation) -> dict[str, Any]:
    """Return the fields of an ``eval`` line; the writer fills in where the rows stand."""
    measured = {} if stored.measured_loss is None else {"measured_loss": to_json_number(stored.measured_loss)}
    return {
        "step": stored.step,
        "eval_loss": to_json_number(stored.eval_loss),
        "tokens": None if stored.losses is None else stored.losses.tokens,
        "reported_loss": to_json_number(stored.reported_loss),
        "probe_loss": to_json_number(stored.probe_loss),
        "runtime_s": to_json_number(stored.runtime_s),
        **measured,
        "losses": None,
        "probe": None,
    }


def relative_path(path: Path, base: Path) -> str:
    """Return a path relative to the output folder if it lies inside, so that the folder may be moved."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)


def checkpoint_of(checkpoint: Checkpoint, event: CheckpointEvent, path: Path) -> Checkpoint:
    """Return the checkpoint as it stands after an event."""
    return replace(
        checkpoint,
        step=step_value(checkpoint.step),
        path=path,
        verified=bool(checkpoint.verified) or event == "verified",
        deleted=bool(checkpoint.deleted) or event == "deleted",
    )


def checkpoint_fields(stored: Checkpoint, event: CheckpointEvent, path: str) -> dict[str, Any]:
    """Return the fields of a ``checkpoint`` line."""
    return {
        "event": event,
        "step": stored.step,
        "path": path,
        "size_bytes": stored.size_bytes,
        "verified": stored.verified,
        "deleted": stored.deleted,
    }


def _required(value: Any) -> float:
    """Return a number that must be there."""
    number = metric_value(value)
    if number is None:
        raise Refused("an evaluation without eval_loss")
    return number
