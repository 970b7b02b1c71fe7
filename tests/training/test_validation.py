"""Rows that are spared, and added when they are too few: the loss goes on from the rows before."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from torch import nn

from sightline.diagnosis.paired import compare
from sightline.evaluation import EvalSet, Row, RowSample
from sightline.runs import ExampleLosses
from sightline.training import spending as spending_module
from sightline.training import validation as module
from sightline.training.evaluation_plan import EvaluationPlan
from sightline.training.spending import Spending
from sightline.training.validation import Validation

ROWS = 400
COUNTS = np.random.default_rng(3).integers(4, 40, ROWS)
ORDER = RowSample.of(ROWS, ROWS).order
WHOLE = EvalSet([Row([5] * (c + 1), [-100] + [5] * c) for c in COUNTS])
PROBE = EvalSet([Row([5] * 9, [5] * 9)] * 3, name="train probe")


class World:
    """A clock, and the true loss of every row at every step: the rows of a set, and what scoring one of them costs."""

    def __init__(self, monkeypatch, *, row_s=0.001, broken=()):
        self.now, self.step, self.row_s, self.broken = 0.0, 0, row_s, broken
        rng = np.random.default_rng(0)
        self.level, self.drift = rng.gamma(4.0, 0.5, ROWS), rng.normal(0.0, 1.0, ROWS)
        for owner in (spending_module, module):
            monkeypatch.setattr(owner, "time", self)
        monkeypatch.setattr(module, "evaluate", self.evaluate)

    def monotonic(self):
        return self.now

    def means(self, step):
        """Fall to step 40, then rows change unlike each other, and rise a little."""
        falls = self.level * (1.0 - 0.006 * min(step, 40))
        return falls + max(0, step - 40) * (0.004 + 0.01 * self.drift)

    def true_loss(self, step, rows=slice(None)):
        return float((self.means(step) * COUNTS)[rows].sum() / COUNTS[rows].sum())

    def evaluate(self, model, rows):
        self.now += self.row_s * len(rows)
        if rows.name == "train probe":
            return ExampleLosses(np.ones(len(rows)), np.full(len(rows), 8))
        chosen = ORDER[: len(rows)]
        sums = (self.means(self.step) * COUNTS)[chosen]
        return ExampleLosses(sums * (np.nan if (self.step, len(rows)) in self.broken else 1.0), COUNTS[chosen])

    def at(self, validation, step, seconds=1.0):
        """Train up to a step and evaluate there."""
        self.now += seconds * (step - self.step)
        self.step = step
        found = validation.evaluate(nn.Identity(), step)
        validation.look_ahead(found)
        return found


def spared(rows=64, *, total_steps=200, share=0.1):
    validation = Validation(WHOLE, PROBE, Spending(total_steps))
    validation.share = share
    validation.score_only(EvaluationPlan(rows, 3))
    return validation


def test_a_sample_too_small_is_widened_once_the_loss_has_stopped_falling(monkeypatch):
    """While it falls by more than 1 % nothing is widened; then the next evaluation has the rows that are needed."""
    world, validation = World(monkeypatch), spared()
    widths = [len(world.at(validation, step).losses.loss_sums) for step in range(0, 130, 10)]
    assert widths[:6] == [64] * 6 and widths[-1] > 1.5 * 64
    assert sorted(widths) == widths
    assert all(b in (a, ROWS) or b >= 1.5 * a for a, b in itertools.pairwise(widths))


def test_the_loss_does_not_jump_where_rows_are_added(monkeypatch):
    """The curve goes on by what the rows of both widths have changed; the measured loss stands beside it."""
    world, validation = World(monkeypatch), spared()
    found = [world.at(validation, step) for step in range(0, 130, 10)]
    first = next(i for i, e in enumerate(found) if len(e.losses.loss_sums) > 64)
    narrow = [world.true_loss(e.step, ORDER[:64]) for e in found]
    for e, loss in list(zip(found, narrow, strict=True))[: first + 1]:  # up to the link: the first rows alone
        assert e.eval_loss == pytest.approx(loss, rel=1e-12)
    for before, now in itertools.pairwise(found[first:]):
        change = now.losses.first(len(before.losses.loss_sums)).loss - before.losses.loss
        assert now.eval_loss - before.eval_loss == pytest.approx(change, abs=1e-12)
    assert all(e.measured_loss is None for e in found[:first])
    for e in found[first:]:
        assert e.measured_loss == pytest.approx(world.true_loss(e.step, ORDER[: len(e.losses.loss_sums)]), rel=1e-12)
    assert abs(found[first].measured_loss - found[first].eval_loss) > 0.01 * found[first].eval_loss


def test_more_rows_bring_the_change_nearer_to_that_of_all_rows(monkeypatch):
    """What the loss has done since the sample was widened is what the whole set has done, and the pairs say so too."""
    world, validation = World(monkeypatch, row_s=1e-6), spared(16)
    found = [world.at(validation, step) for step in range(0, 160, 10)]
    linked = next(e for e in found if len(e.losses.loss_sums) == ROWS)
    last = found[-1]
    truth = world.true_loss(last.step) - world.true_loss(linked.step)
    assert last.eval_loss - linked.eval_loss == pytest.approx(truth, abs=1e-12)
    assert compare(last.losses, found[4].losses).rows == 16  # with an earlier one, on the rows of both


def test_rows_whose_losses_are_no_numbers_are_not_taken_up(monkeypatch):
    """The level of a wider sample is unknown where one of its rows breaks: the narrow one goes on, the next one tries."""
    world, validation = World(monkeypatch, row_s=1e-6), spared(16)
    found = [world.at(validation, step) for step in range(0, 60, 10)]
    wider = validation.state()["next_rows"]
    assert wider > 16
    world.broken = {(60, wider)}
    broken = world.at(validation, 60)
    assert len(broken.losses.loss_sums) == 16 and not np.isfinite(broken.eval_loss)
    again = world.at(validation, 70)
    assert len(again.losses.loss_sums) == wider and again.eval_loss - found[0].eval_loss == pytest.approx(
        world.true_loss(70, ORDER[:16]) - world.true_loss(0, ORDER[:16])
    )


def test_time_bounds_the_width_and_then_what_cannot_be_seen_is_said(monkeypatch):
    """Where ten evaluations of more rows do not fit the sample stays, and a person is told."""
    world, validation = World(monkeypatch, row_s=0.02), spared()
    widths = {len(world.at(validation, step).losses.loss_sums) for step in range(0, 130, 10)}
    assert widths == {64}
    assert validation.blindness is not None and validation.blindness.startswith("64 of 400 validation rows")


def test_without_a_share_all_rows_are_scored_and_none_is_added(monkeypatch):
    """eval_steps given: nothing is spared."""
    world, validation = World(monkeypatch), Validation(WHOLE, PROBE, Spending(200))
    monkeypatch.setattr(
        module, "evaluate", lambda model, rows: ExampleLosses(np.ones(len(rows)), np.ones(len(rows), int))
    )
    assert {len(world.at(validation, step).losses.loss_sums) for step in range(0, 90, 10)} == {ROWS}
    assert validation.blindness is None


@pytest.mark.parametrize("cut_at", [30, 50, 60, 90])
def test_a_resumed_run_goes_on_as_if_it_had_not_been_cut(monkeypatch, cut_at):
    """Width, level and what was to be widened are those of the checkpoint, wherever it was saved."""
    world, validation = World(monkeypatch), spared()
    whole = [world.at(validation, step) for step in range(0, 130, 10)]
    world, validation = World(monkeypatch), spared()
    before = [world.at(validation, step) for step in range(0, cut_at + 10, 10)]
    saved = validation.state()
    world.at(validation, cut_at + 10)  # done, and lost
    world.now, world.step = world.now + 99.0, cut_at
    resumed = Validation(WHOLE, PROBE, Spending(200))
    resumed.share = 0.1
    resumed.restore(saved)
    resumed.best = min(before, key=lambda e: e.eval_loss)
    after = [world.at(resumed, step) for step in range(cut_at + 10, 130, 10)]
    for one, other in zip(whole, before + after, strict=True):
        assert one.eval_loss == other.eval_loss and one.measured_loss == other.measured_loss
        assert one.losses.loss_sums.tolist() == other.losses.loss_sums.tolist()


def test_what_was_recorded_is_what_was_scored(monkeypatch):
    """Nothing but an evaluation at a wider width says measured_loss."""
    world, validation = World(monkeypatch), spared()
    found = world.at(validation, 0)
    assert dataclasses.replace(found).loss_of_rows == found.eval_loss == found.losses.loss
