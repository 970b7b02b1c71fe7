"""A validation loss that has settled, or stands above its best: what equals it, and what is not enough to say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sightline.diagnosis import diagnose
from sightline.runs import Phase, Status
from tests.diagnosis.cases import CASES, NEVER_FELL, TRAIN, N, after_a_gap, changed
from tests.diagnosis.courses import kinds, learnt, noisy, run_of


def test_the_phase_after_the_fact_needs_less_than_the_alarm():
    """A log that is over is looked at once, a live run after every evaluation: the same curve, two levels."""
    evaluated = [4.0, 3.7, 3.6, 3.5, 3.52, 3.5, 3.58, 3.7, 3.6, 3.75, 3.9, 3.78]
    run = run_of(evaluated, learnt(4 * len(evaluated)))
    assert diagnose(run).phase is Phase.OVERFITTING
    assert diagnose(replace(run, status=Status.RUNNING)).phase is not Phase.OVERFITTING


def test_a_loss_above_its_best_has_no_plateau():
    """One sentence does not take back the other."""
    found = kinds(diagnose(run_of(NEVER_FELL)))
    assert "too_noisy" in found and "plateau" not in found


def test_equal_steps_lie_outside_a_rise():
    """What stands in an established or a suspected rise does not equal the best because the noise hides its beginning."""
    for kind in ("overfitting", "rise_suspected", "above_best", "both_losses_rise", "score_disagrees"):
        run = CASES[kind][0]
        diagnosis = diagnose(run)
        assert diagnosis.best is not None and run.eval_loss is not None
        assert diagnosis.best.step in diagnosis.best.equivalent_steps
        assert int(run.eval_loss.steps[-1]) not in diagnosis.best.equivalent_steps


def test_what_counts_as_an_improvement_is_no_equality():
    """Few evaluations know little of their noise; the forecast's band then is the smaller one."""
    diagnosis = diagnose(run_of([0.9, 0.5, 0.3, 0.219, 0.26, 0.23, 0.402]))
    assert diagnosis.best is not None and diagnosis.best.equivalent_steps[-1] < 7 * 20


def test_settled_rests_on_more_than_one_evaluation_after_a_gap():
    """One evaluation far beyond the others may be luck or lie beyond a turn."""
    assert diagnose(after_a_gap(60)).phase is Phase.UNDECIDED
    assert diagnose(after_a_gap(2)).phase is Phase.HEALTHY


def test_after_an_evaluation_that_is_no_number_nobody_is_told_to_train_longer():
    """The loss fell until then; how the model stands now is not known."""
    falling_on = 4.0 * np.arange(1, N + 1) ** -0.3
    run = run_of(changed(falling_on, N - 1, np.inf), TRAIN, max_steps=20 * N)
    assert diagnose(
        replace(run, curves={**run.curves, "eval_loss": run.curves["eval_loss"].until(20 * N - 1)})
    ).phase is (Phase.UNDERFITTING)
    assert diagnose(run).phase is Phase.UNDECIDED


def test_nothing_is_settled_under_a_noise_of_many_times_the_loss():
    """Such evaluations tell nothing, whatever their mean does."""
    wild = run_of(np.tile([1e-3, 1e3, 2.0], 8), TRAIN)
    assert diagnose(wild).phase is Phase.UNDECIDED


@pytest.mark.parametrize("training", ["rises", "falls"])
def test_a_run_that_never_came_near_its_first_evaluation_is_told_that_training_harms(training):
    """Not that it is too noisy to say."""
    losses = [2.553, 3.615, 3.491, 3.195, 3.959, 3.984, 3.72, 4.457, 4.003, 4.172, 3.639, 3.682, 3.934, 3.546, 3.453]
    train = [1.24, 2.03, 2.16, 1.98, 1.79] if training == "rises" else [2.2, 1.9, 1.6, 1.4, 1.2]
    found = [f for f in diagnose(run_of(losses, train)).findings if f.kind in ("above_best", "overfitting")]
    assert len(found) == 1 and "keep step 20" in found[0].message and "learning rate" in found[0].message


def test_a_lucky_first_evaluation_is_no_harm():
    """It lies no further from the others than one of them may."""
    said = [kinds(diagnose(run_of(noisy(np.full(12, 2.0), 0.02, seed), TRAIN))) for seed in range(40)]
    assert sum("above_best" in each for each in said) <= 2
