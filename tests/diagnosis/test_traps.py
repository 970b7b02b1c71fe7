"""Courses that mislead rules of thumb, each of which has to come out right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sightline.decisions import judge_run, replay
from sightline.diagnosis import diagnose
from sightline.runs import Action, Curve, Phase, Segment
from tests.diagnosis.courses import SPACING, falling, kinds, learnt, live, noisy, run_of, turning

SEEDS = range(3)


def alarmed(run):
    """Whether any evaluation of a run, seen live, calls overfitting."""
    return any(moment.phase is Phase.OVERFITTING for moment in replay(run).moments)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_large_gap_from_repetition_is_no_overfitting(seed):
    """Training loss a third of the validation loss, both settled."""
    assert not alarmed(run_of(noisy(falling(30), 0.005, seed), noisy(0.33 * falling(120), 0.03, seed)))


@pytest.mark.parametrize("seed", SEEDS)
def test_stairs_at_the_ends_of_epochs_are_no_overfitting(seed):
    """The training loss drops by a fifth at each of three epochs, the validation loss is settled."""
    stairs = falling(120) * 0.8 ** np.floor(np.arange(120) / 40)
    assert not alarmed(run_of(noisy(falling(30), 0.005, seed), noisy(stairs, 0.02, seed)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bump_in_the_warm_up_is_no_overfitting(seed):
    """Both losses rise by a tenth while the learning rate rises, then fall."""
    done = np.arange(1, 31) / 30
    bump = falling(30) * (1.0 + 0.1 * np.sin(np.pi * np.minimum(done / 0.3, 1.0)))
    rate = Curve.of(SPACING * np.arange(1, 31), 1e-4 * np.minimum(done / 0.25, 1.0))
    assert not alarmed(run_of(noisy(bump, 0.005, seed), learnt(120), curves={"learning_rate": rate}))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plateau_is_healthy(seed):
    """Settled for half the run: said so, and at its end that no more steps are needed."""
    verdict = judge_run(run_of(noisy(falling(40), 0.005, seed), learnt(160), max_steps=800))
    assert verdict.diagnosis.phase is Phase.HEALTHY
    assert verdict.decision.action is Action.STOP


@pytest.mark.parametrize("seed", SEEDS)
def test_a_late_second_descent_is_not_called_overfitting(seed):
    """Settled for a third of the run, then it falls again: healthy or underfitting throughout."""
    done = np.arange(1, 41) / 40
    shape = falling(40) - 0.3 / (1.0 + np.exp(-25.0 * (done - 0.7)))
    assert not alarmed(run_of(noisy(shape, 0.005, seed), learnt(160)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_noisy_small_validation_set_is_not_overconfident(seed):
    """Noise of 5 % on a loss that falls and settles: no alarm in 30 evaluations."""
    assert not alarmed(run_of(noisy(falling(30), 0.05, seed), learnt(120)))


def test_evaluation_more_frequent_than_logging_is_said_and_judged():
    """Thirty evaluations beside five training losses still have a verdict."""
    diagnosis = diagnose(run_of(noisy(turning(40), 0.005), learnt(5)))
    assert diagnosis.phase is Phase.OVERFITTING
    assert "logging_rare" in kinds(diagnosis)


def test_a_training_loss_above_the_validation_loss_is_explained():
    """Dropout and NEFTune are in the training loss only; the phase does not come from the gap."""
    run = run_of(noisy(falling(30), 0.005), 1.5 * falling(120), config={"neftune_noise_alpha": 5})
    found = {finding.kind: finding for finding in diagnose(run).findings}
    assert "NEFTune" in found["validation_below_training"].message


@pytest.mark.parametrize("accumulation", [2, 8, 16])
def test_a_loss_times_accumulation_is_recognised(accumulation):
    """The training loss is the accumulation times too large: said, and nothing else changes."""
    config = {"arguments": {"gradient_accumulation_steps": accumulation}}
    plain = run_of(noisy(turning(40), 0.005), learnt(160))
    summed = run_of(noisy(turning(40), 0.005), accumulation * falling(160), config=config)
    assert "loss_times_accumulation" in kinds(diagnose(summed))
    assert diagnose(summed).phase is diagnose(plain).phase


def test_a_resumed_run_is_judged_without_what_was_superseded():
    """A rise that was rolled back is no rise."""
    run = replace(run_of(noisy(falling(30), 0.004), learnt(120)), segments=(Segment(0), Segment(300)))
    diagnosis = diagnose(run)
    assert diagnosis.phase is Phase.HEALTHY
    assert "resumed" in kinds(diagnosis)


def test_a_rising_score_decides_against_a_rising_loss():
    """Exact match still rises while the loss does: go on, and keep the step of the best score."""
    steps = SPACING * np.arange(1, 41)
    score = Curve.of(steps, np.linspace(0.1, 0.7, 40))
    verdict = judge_run(live(run_of(noisy(turning(40), 0.005), learnt(160), curves={"eval_exact_match": score})))
    assert verdict.decision.action is Action.CONTINUE
    assert verdict.decision.keep_step == 800
    replayed = replay(verdict.run)
    assert (replayed.judged_by, replayed.best_step, replayed.kept_step) == ("eval_exact_match", 800, 800)
    assert replayed.regret == 0.0


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
def test_a_settled_score_stops_a_run_whose_loss_has_risen(scale):
    """It rose while the loss turned and has stood still since: a fraction, in percent, or of no known bound."""
    steps, done = SPACING * np.arange(1, 61), np.arange(1, 61) / 60
    score = scale * (0.5 + 0.2 * np.minimum(done / 0.6, 1.0) + 0.002 * np.random.default_rng(1).standard_normal(60))
    risen = live(run_of(noisy(turning(60), 0.005), learnt(240)))

    def judged(score, planned):
        told = {**risen.curves, "eval_exact_match": Curve.of(steps, score)}
        verdict = judge_run(replace(risen, curves=told, max_steps=planned * SPACING))
        assert "score_disagrees" in kinds(verdict.diagnosis) and "eval_exact_match" in verdict.decision.why
        return verdict.decision.action

    assert judged(score, 63) is Action.STOP
    assert judged(score + 0.2 * scale * done, 120) is Action.CONTINUE


def test_token_accuracy_is_no_task_score():
    """It is measured on the reference answer and shadows the loss: it decides nothing."""
    score = Curve.of(SPACING * np.arange(1, 41), np.linspace(0.1, 0.7, 40))
    run = run_of(noisy(turning(40), 0.005), learnt(160), curves={"eval_mean_token_accuracy": score})
    assert diagnose(run).phase is Phase.OVERFITTING


def test_unstable_training_is_not_called_memorising():
    """Where the training loss rises too, hope is left to the forecast: a rise of both often comes back."""
    rising = noisy(turning(24), 0.005)
    both = diagnose(live(run_of(rising[:18], noisy(turning(96), 0.01)[:72])))
    alone = diagnose(live(run_of(rising[:18], learnt(96)[:72])))
    assert both.forecast is not None and alone.forecast is not None
    assert both.forecast.chance >= alone.forecast.chance


def test_a_curve_rounded_to_four_digits_is_not_overread():
    """Steps of the last digit are rounding, not a course."""
    rounded = [1.501, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.501, 1.501, 1.501, 1.501, 1.501, 1.501]
    assert not alarmed(run_of(rounded, significant_digits=4))


def test_few_evaluations_give_less_sure_answers():
    """The same course, seen at ten evaluations instead of forty, is told with less confidence."""
    many, few = (diagnose(run_of(noisy(turning(n, 0.2), 0.01), learnt(4 * n))) for n in (40, 10))
    assert many.confidence is not None
    assert few.confidence is None or few.confidence < many.confidence
