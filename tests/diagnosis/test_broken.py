"""A training that broke, for good or in passing: blown up, no number, zeros, spikes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sightline.diagnosis import diagnose
from sightline.runs import Curve, Phase
from tests.diagnosis.cases import CASES, EVALS, LINES, NAN, STEPS, TRAIN, N, changed
from tests.diagnosis.courses import falling, kinds, learnt, noisy, run_of, with_rows


def test_broken_training_is_diverged():
    """NaN, hidden zeros and a loss that blew up for good are the phase, and said first."""
    for kind in ("non_finite_loss", "zero_loss", "loss_blown_up"):
        diagnosis = diagnose(CASES[kind][0])
        assert diagnosis.phase is Phase.DIVERGED
        assert diagnosis.findings[0].kind == kind


def test_a_spike_says_whether_the_loss_came_back():
    """One that came back is a note; one that did not is a warning."""
    message = next(f for f in diagnose(CASES["loss_spike"][0]).findings if f.kind == "loss_spike").message
    assert "it came back" in message


def test_one_spike_in_a_long_log_is_found():
    """However few points of a block its level is taken from: 101,003 lines, jumps at two of them."""
    loss = 1.5 + noisy(np.full(101_003, 0.5), 0.05)
    loss[[70_001, 100_999]] = 9.0, 6.0
    run = replace(run_of(falling(40)), curves={"loss": Curve.of(np.arange(1, loss.size + 1), loss)})
    spike = next(finding for finding in diagnose(run).findings if finding.kind == "loss_spike")
    assert (spike.evidence["spikes"], spike.evidence["highest"]) == (2, 9.0)
    assert (spike.from_step, spike.to_step) == (70_002, 101_000)


def test_a_jump_in_the_last_digit_of_a_loss_that_is_learnt_is_no_spike():
    """From 0.0001 to 0.0002 after it has fallen from 2."""
    known = changed(np.maximum(noisy(learnt(LINES), 0.02, 2), 0.0), slice(48, None), 0.0001)
    assert "loss_spike" not in kinds(diagnose(run_of(EVALS, changed(known, [70, 80], 0.0002))))
    assert "loss_spike" in kinds(diagnose(run_of(EVALS, changed(known, [70, 80], 0.2))))


def test_a_broken_run_is_told_its_break_and_nothing_that_follows_from_it():
    """Zeros are not rows known by heart, and evaluations after the break miss no label."""
    every = 5 * STEPS
    broken = every > 300
    run = run_of(
        changed(EVALS, slice(15, None), NAN),
        curves={
            "loss": Curve.of(every, np.where(broken, 0.0, TRAIN)),
            "grad_norm": Curve.of(every, np.where(broken, NAN, 1.0)),
        },
    )
    diagnosis = diagnose(run)
    assert diagnosis.phase is Phase.DIVERGED and kinds(diagnosis) == {"zero_loss"}
    live_then = diagnose(run.until(320))  # the first evaluation after the break
    assert live_then.phase is Phase.DIVERGED


def test_one_skipped_step_is_no_divergence():
    """In fp16 a step with an overflow is skipped: one zero and one norm that is no number, and the training goes on."""
    every = 5 * STEPS[:60]
    curves = {
        "loss": Curve.of(every, changed(TRAIN[:60], 59, 0.0)),
        "grad_norm": Curve.of(every, changed(np.ones(60), 59, NAN)),
    }
    assert diagnose(run_of(EVALS[:15], curves=curves)).phase is not Phase.DIVERGED


def test_a_broken_base_model_has_no_checkpoint_to_go_back_to():
    """Its evaluation at step 0 was no number already."""
    steps = np.arange(0, 100, 20)
    run = run_of(
        [], curves={"eval_loss": Curve.of(steps, np.full(5, NAN)), "loss": Curve.of(steps + 5, np.full(5, NAN))}
    )
    message = diagnose(run).findings[0].message
    assert "base model" in message and "go back" not in message
    only = run_of([], curves={"eval_loss": Curve.of(steps, np.full(5, NAN)), "loss": Curve.of(steps + 5, TRAIN[:5])})
    assert any("base model" in f.message for f in diagnose(only).findings if f.kind == "non_finite_eval_loss")


def test_the_rows_that_gave_no_number_are_counted():
    """They are what to look at."""
    whole = with_rows(run_of(EVALS, TRAIN), 40, 0.1)
    sums = changed(whole.evaluations[5].losses.loss_sums, [7, 9], NAN)
    bad = replace(whole.evaluations[5], eval_loss=NAN, losses=replace(whole.evaluations[5].losses, loss_sums=sums))
    run = replace(
        whole,
        evaluations=(*whole.evaluations[:5], bad, *whole.evaluations[6:]),
        curves={**whole.curves, "eval_loss": Curve.of(20 * np.arange(1, N + 1), changed(EVALS, 5, NAN))},
    )
    found = next(f for f in diagnose(run).findings if f.kind == "non_finite_eval_loss")
    assert "2 of 40 rows, the first is row 7" in found.message


def test_a_loss_that_doubles_far_below_where_it_began_is_not_broken():
    """It fell from 0.8 to 0.14 at once, and stands at 0.3 for a while."""
    loss = np.concatenate(([0.83, 0.3], np.full(20, 0.14), np.full(20, 0.3)))
    assert diagnose(run_of(EVALS[:10], noisy(loss, 0.03))).phase is not Phase.DIVERGED


def test_a_loss_that_comes_back_later_has_come_back():
    """Not only in the lines right after the jump."""
    high = changed(TRAIN, slice(40, 52), 3.0 + TRAIN[40:52])
    for loss, words in ((high, "it came back"), (changed(high, slice(52, None), 4.0), "not come back")):
        found = [f for f in diagnose(run_of([], loss)).findings if f.kind in ("loss_spike", "loss_blown_up")]
        assert any(words in f.message or "did not come back" in f.message for f in found)
    message = next(f.message for f in diagnose(CASES["loss_spike"][0]).findings if f.kind == "loss_spike")
    assert "jumped once, at step" in message
