"""The rows that memorising costs most, as the page and the JSON of a run name them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.cli import main
from sightline.decisions import Verdict, judge_run
from sightline.decisions.rising import PLACES, rising_rows
from sightline.journal import Recorder
from sightline.runs import Evaluation, ExampleLosses, Phase, Status
from sightline.terminal.page import verdict_page

COUNTS = np.full(20, 10)


def memorising_run(folder: Path, *, with_rows: bool = True) -> None:
    """Record a run of 24 evaluations whose loss rises after the eighth, most in rows 3 and 7."""
    rng = np.random.default_rng(0)
    recorder = Recorder.open(folder, config={PLACES: [f"val.jsonl:{i + 1}" for i in range(20)]}, max_steps=240)
    for i in range(24):
        sums = 10.0 * (1.0 + np.exp(-i / 2.0)) + rng.normal(0, 0.01, 20)
        sums += 0.6 * max(0, i - 7)
        sums[[3, 7]] += np.array([3.0, 1.5]) * max(0, i - 7)
        losses = ExampleLosses(sums, COUNTS)
        probe = ExampleLosses(sums * 0.9**i, COUNTS)
        recorder.log(10 * i, {"loss": float(0.85**i) + 0.1})
        recorder.evaluation(
            Evaluation(10 * i, losses.loss, *((losses, probe) if with_rows else (None, None)), reported_loss=1.5)
        )
    recorder.end(Status.FINISHED)
    recorder.close()


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """Return the verdict on that run as it is read back."""
    from sightline.journal import reader

    folder = tmp_path_factory.mktemp("memorising") / "run"
    memorising_run(folder)
    return judge_run(reader.read(folder))


def test_the_rows_that_rose_are_named_with_their_share(verdict: Verdict) -> None:
    """Shares add up to the rise; the row that costs most is first."""
    found = rising_rows(verdict.run, verdict.diagnosis)
    assert found is not None and found.to_step == 230
    assert [place for place, *_ in found.worst(2)] == ["val.jsonl:4", "val.jsonl:8"]
    assert 2 < len(found.changes.drivers()) < 10
    run = verdict.run
    assert found.changes.total == pytest.approx(run.eval_loss.at(230) - run.eval_loss.at(found.from_step), abs=1e-6)


def test_only_a_run_that_memorises_has_them(verdict: Verdict) -> None:
    """Neither a healthy run, nor one without losses by row, nor one whose rows are other ones."""
    healthy = replace(verdict.diagnosis, phase=Phase.HEALTHY)
    assert rising_rows(verdict.run, healthy) is None
    *others, last = verdict.run.evaluations
    for losses in (None, ExampleLosses(np.ones(3), np.ones(3, np.int64))):
        evaluations = (*others, replace(last, losses=losses))
        earlier = rising_rows(replace(verdict.run, evaluations=evaluations), verdict.diagnosis)
        assert earlier is None or earlier.to_step == 220


def test_rows_without_places_are_numbered(verdict: Verdict) -> None:
    """A Trainer's own data set has no file; whatever else stands in the configuration is not believed."""
    for config in ({}, {PLACES: "val.jsonl"}, {PLACES: [1, 2]}):
        found = rising_rows(replace(verdict.run, config=config), verdict.diagnosis)
        assert found is not None and found.worst(1)[0][0] == "validation row 3"


@pytest.mark.parametrize("width", [40, 100])
def test_the_page_names_them_and_both_gaps(verdict: Verdict, width: int) -> None:
    """Beside the gap on equal terms stands the one to the logged loss, and the Trainer's number with its error."""
    text = "\n".join(line.plain for line in verdict_page(verdict, width=width))
    assert "Rows that memorising" in text and "val.jsonl:4" in text
    assert ("gap to the logged training loss" if width == 100 else "gap, logged") in text
    assert "off by" in text


def test_read_gives_them_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program finds the same under rising_rows; null where the rows are not known."""
    for with_rows in (True, False):
        folder = tmp_path / str(with_rows)
        memorising_run(folder, with_rows=with_rows)
        assert main(["read", str(folder), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)["runs"][0]["rising_rows"]
        assert (found is None) is not with_rows
        if found is not None:
            assert [row["place"] for row in found["rows"][:2]] == ["val.jsonl:4", "val.jsonl:8"]
            assert found["rows_of"] == 20
