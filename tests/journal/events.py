"""Random histories of a run, to be recorded and to be built directly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sightline.journal import Recorder
from sightline.runs import Checkpoint, Evaluation, ExampleLosses, RunBuilder, Segment, Status

STEPS = st.integers(0, 40)
NAMES = st.sampled_from(["loss", "grad_norm", "learning_rate", "epoch", 'a name with "quotes" and ü', ""])
VALUES = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1]))


def _losses(values: list[tuple[float, int]]) -> ExampleLosses:
    sums = np.array([value for value, _ in values])
    return ExampleLosses(sums, np.array([count for _, count in values], dtype=np.int64))


ROWS = st.one_of(
    st.none(),
    st.lists(st.tuples(st.floats(width=32), st.integers(0, 5000)), min_size=1, max_size=6).map(_losses),
)
EVALUATIONS = st.builds(
    Evaluation, STEPS, st.floats(), ROWS, ROWS, st.none() | st.floats(), st.none() | st.floats(0, 100)
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("log"), STEPS, st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)),
        st.tuples(st.just("evaluation"), EVALUATIONS),
        st.tuples(st.just("checkpoint"), STEPS, st.none() | st.integers(0, 2**40), st.booleans(), st.booleans()),
        st.tuples(st.just("segment"), STEPS),
        st.tuples(st.just("resume"), STEPS),
        st.tuples(st.just("configure"), st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)), st.integers(1, 99)),
        st.tuples(st.just("end"), st.sampled_from([Status.FINISHED, Status.STOPPED, Status.FAILED]), st.just("why")),
    ),
    max_size=14,
)


def record_events(output_dir: Path, events: list[tuple[Any, ...]]) -> Recorder:
    """Record a history; a resume closes the recorder and opens the folder again."""
    recorder = Recorder.open(output_dir, name="random")
    for kind, *event in events:
        if kind == "resume":
            recorder.close()
            recorder = Recorder.open(output_dir, resume=True, from_step=event[0])
        elif kind == "checkpoint":
            step, size, verified, deleted = event
            checkpoint = Checkpoint(step, output_dir / f"checkpoint-{step}", size, verified, deleted)
            recorder.checkpoint(checkpoint, "saved")
        elif kind == "configure":
            recorder.configure(config=event[0], max_steps=event[1])
        else:
            getattr(recorder, kind)(*event)
    return recorder


def build_events(output_dir: Path, events: list[tuple[Any, ...]]) -> RunBuilder:
    """Build the run of a history without a journal; segments have no time."""
    builder = RunBuilder(output_dir, "journal", "random")
    act: dict[str, Callable[..., None]] = {
        "log": builder.log,
        "evaluation": builder.evaluation,
        "segment": lambda step: builder.segment(Segment(step)),
        "resume": lambda step: builder.segment(Segment(step)),
        "checkpoint": lambda step, *rest: builder.checkpoint(
            Checkpoint(step, output_dir / f"checkpoint-{step}", *rest)
        ),
    }
    builder.segment(Segment(0))
    builder.status = Status.RUNNING
    for kind, *event in events:
        if kind == "configure":
            builder.config.update(event[0])
            builder.max_steps = event[1]
        elif kind == "end":
            builder.status, builder.end_reason = event
        else:
            act[kind](*event)
        if kind in ("segment", "resume"):
            builder.status = Status.RUNNING
    return builder
