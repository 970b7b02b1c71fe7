"""Pairs of evaluations across a sample of rows that was widened in between."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.diagnosis.paired import equivalent_to_best, rise_over_rows
from sightline.diagnosis.series import EvalSeries
from sightline.runs import Curve, Evaluation, ExampleLosses, Run

NARROW, WIDE = 40, 160
BEST, LINK = 30, 40
STEPS = (10, 20, 30, 40, 50, 60, 70)


class Rows:
    """Rows drawn from all rows there could be: loss per token falls to step 30, then some rows rise far more than others."""

    def __init__(self, seed: int, rise: float = 0.004) -> None:
        rng = np.random.default_rng(seed)
        self.counts = rng.integers(4, 40, WIDE)
        self.level = rng.gamma(4.0, 0.5, WIDE)
        self.drift = rise + rng.normal(0.0, 0.02, WIDE)

    def losses(self, step: int, rows: int) -> ExampleLosses:
        means = self.level + 0.01 * max(0, BEST - step) + self.drift * max(0, step - BEST)
        return ExampleLosses((means * self.counts)[:rows], self.counts[:rows])

    def series(self, *, widened: bool = True) -> EvalSeries:
        """Evaluations whose eval_loss goes on from the narrow rows."""
        found, beyond = [], 0.0
        for step in STEPS:
            rows = WIDE if widened and step >= LINK else NARROW
            losses = self.losses(step, rows)
            if widened and step == LINK:
                beyond = losses.loss - losses.first(NARROW).loss
            found.append(Evaluation(step, losses.loss - beyond, losses, measured_loss=losses.loss if beyond else None))
        curve = Curve.of(list(STEPS), [e.eval_loss for e in found])
        return EvalSeries.of(
            Run(path=None, format="journal", name="", curves={"eval_loss": curve}, evaluations=tuple(found))
        )  # type: ignore[arg-type]


def test_the_difference_is_that_of_the_curve() -> None:
    """The mean of the last three less the best, by way of the evaluation that added rows, is what the curve shows."""
    series = Rows(0, rise=0.02).series()
    rise = rise_over_rows(series)
    assert rise is not None and rise.rows == WIDE
    assert rise.mean == pytest.approx(series.losses[-3:].mean() - series.losses[2], abs=1e-12)


@pytest.mark.parametrize("widened", [False, True])
def test_its_error_is_that_of_rows_drawn_again(widened: bool) -> None:
    """The standard error is the spread of the difference over other choices of rows."""
    found = []
    for seed in range(600):
        series = Rows(seed, rise=0.02).series(widened=widened)
        rise = rise_over_rows(series)
        if rise is not None and series.at_best == 2:
            found.append((rise.mean, rise.standard_error))
    means, errors = np.array(found).T
    assert len(found) > 500
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_rows_that_are_added_make_a_rise_surer() -> None:
    """With the best evaluation on few rows, what has risen since more are scored counts with their smaller error."""
    ratios = []
    for seed in range(40):
        errors = [rise_over_rows(Rows(seed, rise=0.02).series(widened=w)).standard_error for w in (False, True)]  # type: ignore[union-attr]
        ratios.append(errors[1] / errors[0])
    assert np.median(ratios) < 0.75


def test_steps_equal_to_the_best_are_told_across_the_widening() -> None:
    """Before and after it: those that differ from the best by less than the rows explain."""
    same = equivalent_to_best(Rows(3, rise=0.05).series())
    assert same is not None and BEST in same and STEPS[0] not in same and STEPS[-1] not in same
