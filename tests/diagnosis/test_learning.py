"""What the training loss tells beside the validation loss: learnt by heart, not at all, stairs, rates, sums."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.diagnosis import diagnose
from sightline.runs import Curve, Finding, Phase, Severity
from tests.diagnosis.cases import EPOCHS, EVALS, LINES, STAIRS, STEPS, TRAIN, N, changed, rates
from tests.diagnosis.courses import falling, kinds, noisy, run_of


def test_stairs_measure_memorising_only_as_far_as_the_gap_on_equal_terms_grew():
    """The train probe decides: no gap beside the stairs, no memorising; a gap as high as the stairs, all of it."""
    epochs = {"epoch": EPOCHS}
    ends = np.arange(20, 20 * N + 1, 20)
    along = Curve.of(ends, EVALS - 0.002)
    apart = Curve.of(ends, EVALS * 0.8 ** np.floor(ends / 120))

    def stairs(probe: Curve) -> Finding:
        found = diagnose(run_of(EVALS, STAIRS, curves={**epochs, "probe_loss": probe})).findings
        return next(finding for finding in found if finding.kind == "staircase")

    no, yes = stairs(along), stairs(apart)
    assert no.evidence["memorised"] == pytest.approx(0.0, abs=0.01) and no.severity is Severity.INFO
    assert "not memorising" in no.message and "recognised" not in no.message
    assert yes.evidence["memorised"] == pytest.approx(yes.evidence["height"], rel=0.3)
    assert "recognised" in yes.message and "equal terms" in yes.message


def test_a_run_that_learns_nothing_is_not_called_healthy():
    """Its validation loss has settled, at what the model knew before."""
    idle = diagnose(run_of(np.full(N, 2.0), noisy(np.full(LINES, 2.0), 0.01)))
    assert idle.phase is Phase.UNDECIDED and "not_learning" in kinds(idle)


def test_what_was_learnt_in_the_first_lines_is_told():
    """A training loss that fell at once and never again is not one that never fell."""
    loss = changed(noisy(np.full(LINES, 0.5), 0.01), 0, 3.0)
    found = next(f for f in diagnose(run_of(np.full(N, 0.6), loss)).findings if f.kind == "not_learning")
    assert "fell from 3 in its first log lines" in found.message and "nothing more" in found.message


def test_a_loss_of_zero_from_the_start_is_not_called_learnt_by_heart_for_sure():
    """Nothing in the log says that it was ever learnt."""
    found = next(f for f in diagnose(run_of(EVALS, np.full(LINES, 0.001))).findings if f.kind == "memorised")
    assert "since the first log line" in found.message and "not what it seems" in found.message


def test_rows_known_by_heart_are_told_by_whichever_curve_says_so():
    """Few points of the train probe do not hide what the logged losses tell, and tell it alone."""
    known = changed(TRAIN, slice(60, None), 0.004)
    few = Curve.of([120, 240, 480], [0.9, 0.3, 0.2])
    exact = Curve.of([120, 240, 360, 420, 480], [0.9, 0.02, 0.005, 0.005, 0.004])
    assert "memorised" in kinds(diagnose(run_of(EVALS, known, curves={"probe_loss": few})))
    assert "memorised" in kinds(diagnose(run_of(EVALS, TRAIN, curves={"probe_loss": exact})))
    assert "memorised" not in kinds(diagnose(run_of(EVALS, TRAIN, curves={"probe_loss": few})))


def test_rows_known_by_heart_do_not_deny_a_later_best():
    """More steps did bring the validation loss down."""
    run = run_of(2.0 - 0.02 * np.arange(N), changed(TRAIN, slice(40, None), 0.004))
    found = next(f for f in diagnose(run).findings if f.kind == "memorised")
    assert "teach nothing" not in found.message and "lowest after that, at step 480" in found.message


def test_a_learning_rate_of_zero_leaves_no_plateau():
    """Nothing has stood still that was never moved, and the run is not healthy."""
    diagnosis = diagnose(run_of(noisy(np.full(60, 2.0), 0.001), TRAIN, curves={
        "learning_rate": Curve.of(5 * STEPS, np.zeros(LINES))}))  # fmt: skip
    assert diagnosis.phase is Phase.UNDECIDED and "plateau" not in kinds(diagnosis)


def test_a_constant_rate_after_a_warmup_has_warmed_up():
    """It does not rise at the last step, though it is never higher than there."""
    constant = 1e-4 * np.minimum(STEPS / (0.1 * LINES), 1.0)
    assert "warmup_never_ended" not in kinds(diagnose(rates(constant, max_steps=20 * N)))


@pytest.mark.parametrize("factor", [4, 16])
def test_a_summed_loss_is_told_by_its_ratio_where_the_setting_is_not_logged(factor):
    """A steady factor; one that wanders, or a run that accumulates nothing, has other reasons."""
    summed = factor * noisy(0.9 * falling(LINES), 0.02)
    told = diagnose(run_of(EVALS, summed))
    assert "loss_times_accumulation" in kinds(told) and "validation_below_training" not in kinds(told)
    wandering = summed * np.linspace(1.8, 0.6, LINES)
    for other in (run_of(EVALS, wandering), run_of(EVALS, summed, config={"gradient_accumulation_steps": 1})):
        found = diagnose(other)
        assert "loss_times_accumulation" not in kinds(found) and "validation_below_training" in kinds(found)


def test_the_reasons_of_a_validation_loss_below_name_weighting():
    """And it is said of the later half, which is what was compared."""
    found = {f.kind: f.message for f in diagnose(run_of(EVALS, 1.4 * noisy(falling(LINES), 0.02))).findings}
    assert "weighed" in found["validation_below_training"] and "throughout" not in found["validation_below_training"]


def test_smooth_curves_have_no_stairs():
    """The error of a stair counts all four quarters it is made of."""
    rng = np.random.default_rng(3)
    steps = np.arange(10, 1501, 10)
    found = 0
    for seed in range(60):
        floor, speed = rng.uniform(0.3, 1.6), rng.uniform(100.0, 800.0)
        loss = noisy((3.0 - floor) * np.exp(-steps / speed) + floor, 0.05, seed)
        curves = {"loss": Curve.of(steps, loss), "epoch": Curve.of(steps, steps / 500)}
        found += "staircase" in kinds(diagnose(run_of([], curves=curves)))
    assert found <= 2
