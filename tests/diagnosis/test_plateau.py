"""A plateau is a loss of which it is sure that it stands still, not one whose fall is lost in the noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sightline.decisions import judge_run
from sightline.diagnosis import diagnose
from sightline.runs import Action, Finding, Run
from tests.diagnosis.courses import SPACING, falling, learnt, noisy, run_of, with_rows

STILL_FALLING = {
    "few and uneven": np.array([1.95, 0.2838, 0.2647, 0.2267, 0.2255, 0.2021, 0.1975]),
    "down at every evaluation": np.array([1.3, 1.05, 0.95, 0.9133, 0.906, 0.8955, 0.8744, 0.8683]),
    "noise as large as the fall": noisy(1.0 + np.exp(-5.0 * np.arange(1, 16) / 15), 0.09, 1),
    "a power": noisy(1.2 + 1.5 * (np.arange(1, 31) / 1.5 + 1.0) ** -0.5, 0.01, 2),
    "a second descent": noisy(falling(40) - 0.1 / (1.0 + np.exp(-np.arange(-30, 10))), 0.003, 3),
}


def plateau_of(run: Run) -> Finding | None:
    """Return the plateau that is found."""
    return next((found for found in diagnose(run).findings if found.kind == "plateau"), None)


@pytest.mark.parametrize("course", STILL_FALLING)
def test_a_loss_that_falls_on_has_no_plateau(course):
    """Whether the fall shows in each evaluation or only in all of them together."""
    losses = STILL_FALLING[course]
    assert plateau_of(run_of(losses, learnt(4 * len(losses)), max_steps=SPACING * len(losses))) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_stands_still_has_one_since_it_does(seed):
    """Nothing larger than the 1 % that matters was missed by ending where it says."""
    true = falling(60)
    found = plateau_of(run_of(noisy(true, 0.002, seed), learnt(240), max_steps=SPACING * 60))
    assert found is not None and isinstance(found.evidence["at_most"], float)
    at = found.from_step // SPACING - 1
    assert true[at] / true.min() - 1.0 < 0.01
    assert 0.0 <= found.evidence["at_most"] <= 0.01


def test_it_starts_at_a_step_that_equals_the_best():
    """So that it does not tell to end where the loss was worse."""
    diagnosis = diagnose(run_of(noisy(falling(60), 0.002), learnt(240), max_steps=SPACING * 60))
    found = next(f for f in diagnosis.findings if f.kind == "plateau")
    assert diagnosis.best is not None and found.from_step in diagnosis.best.equivalent_steps


def test_few_rows_leave_it_open():
    """Another choice of rows could have fallen on."""
    run = run_of(noisy(falling(60), 0.002), learnt(240), max_steps=SPACING * 60)
    assert plateau_of(with_rows(run, 400, 0.01)) is not None
    assert plateau_of(with_rows(run, 12, 0.5)) is None


def test_a_run_that_goes_on_is_not_told_where_to_end_next_time():
    """Whether to go on is the decision's; a plateau beside it must not say the contrary."""
    over = run_of(noisy(falling(24), 0.004, 1), learnt(96), max_steps=480)
    told = {}
    for run in (over, replace(over, max_steps=900)):
        verdict = judge_run(run)
        assert run.has_ended or verdict.decision.action is Action.CONTINUE
        told[run.has_ended] = next(f.message for f in verdict.diagnosis.findings if f.kind == "plateau")
    assert "end about there next time" in told[True] and "next time" not in told[False]
    assert "weighed in the decision" in told[False]
