"""What was recorded is what is read, and what a RunBuilder makes of the same events."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, given, settings

from sightline.journal import read, rebuild
from sightline.runs import Status

from .comparing import plain
from .events import EVENTS, build_events, record_events

SLOW_DISK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW_DISK
@given(EVENTS)
def test_a_read_run_equals_the_recorded_one(events):
    """Any history: live, read while it runs, read after its end, and built without a journal, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder)
        recorder = record_events(output_dir, events)
        live = plain(recorder.run())
        assert plain(read(output_dir)) == live
        built = plain(build_events(output_dir, events).build())
        built["segments"] = live["segments"]  # the builder knows no clock
        assert [step for step, _ in live["segments"]] == [0, *(e[1] for e in events if e[0] in ("segment", "resume"))]
        assert live == built
        recorder.close()
        assert plain(read(output_dir / "sightline")) == plain(recorder.run())


@SLOW_DISK
@given(EVENTS)
def test_history_equals_the_journal_and_can_be_rebuilt(events):
    """history.parquet holds exactly the curves, at the end and when it is made again."""
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder)
        recorder = record_events(output_dir, events)
        recorder.end(Status.FINISHED)
        recorder.log(41, {"loss": 0.5})  # the Trainer may log after its end
        recorder.close()
        history = output_dir / "sightline" / "history.parquet"
        run = read(output_dir)
        expected = [
            (recorder.id, name, int(step), float(value).hex())
            for name, curve in sorted(run.curves.items())
            for step, value in zip(curve.steps, curve.values, strict=True)
        ]

        def rows() -> list[tuple[str, str, int, str]]:
            frame = pl.read_parquet(history)
            assert frame.schema == {"run_id": pl.String, "metric": pl.String, "step": pl.Int64, "value": pl.Float64}
            return [(run_id, name, step, value.hex()) for run_id, name, step, value in frame.rows()]

        assert rows() == expected
        history.unlink()
        assert rebuild(output_dir) == history
        assert rows() == expected
        assert [path.name for path in history.parent.iterdir() if path.name.startswith(".")] == []
