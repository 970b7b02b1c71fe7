"""What must hold of every verdict, whatever the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sightline.decisions import judge_run, replay
from sightline.diagnosis import diagnose
from sightline.runs import Action, Curve, Evaluation, ExampleLosses, Phase, Run
from tests.diagnosis.courses import falling, kinds, learnt, noisy, run_of, turning, with_rows

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Draw a run of any usual course."""
    n = draw(st.integers(1, 30))
    shape = draw(st.sampled_from([falling, turning]))(n)
    evaluated = noisy(shape, draw(st.sampled_from([0.002, 0.01, 0.05])), draw(st.integers(0, 999)))
    return run_of(evaluated, noisy(learnt(4 * n), 0.03, n), max_steps=draw(st.sampled_from([None, 20 * n, 40 * n])))


@QUICK
@given(runs(), st.sampled_from([0.01, 0.37, 3.0, 250.0]))
def test_scaling_all_losses_changes_no_verdict(run, factor):
    """A loss in other units is the same course: phase, onset, decision and the step to keep stay."""
    scaled = replace(run, curves={name: Curve(c.steps, factor * c.values) for name, c in run.curves.items()})
    one, other = judge_run(run), judge_run(scaled)
    assert one.diagnosis.phase is other.diagnosis.phase
    assert one.diagnosis.onset == other.diagnosis.onset
    assert one.decision.action is other.decision.action
    assert one.decision.keep_step == other.decision.keep_step
    assert one.diagnosis.confidence == pytest.approx(other.diagnosis.confidence, abs=1e-6)


@QUICK
@given(runs(), st.floats(0.05, 0.95))
def test_the_verdict_on_a_part_never_depends_on_what_follows(run, share):
    """A replay of a run begins with the replay of its first part, to the last digit."""
    curve = run.curves["eval_loss"]
    part = run.until(int(curve.steps[int(share * len(curve))]))
    whole, cut = replay(run).moments, replay(part).moments
    assert whole[: len(cut)] == cut


@QUICK
@given(runs(), st.integers(0, 999))
def test_what_was_judged_before_changes_no_answer(run, seed):
    """Filters that are remembered from one call to the next give what they give from scratch."""
    before = diagnose(run)
    diagnose(run_of(noisy(falling(17), 0.01, seed)))
    diagnose(run.until(100))
    assert diagnose(run) == before


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factor", [0.9, 0.7, 0.3])
def test_a_constant_gap_alone_raises_no_alarm(factor, seed):
    """A training loss far below, as repetition makes it, says nothing of a turn: at no evaluation, with any gap."""
    evaluated = noisy(falling(30), 0.005, seed)
    for moment in replay(run_of(evaluated, noisy(factor * falling(120), 0.03, seed))).moments:
        assert moment.phase is not Phase.OVERFITTING


@pytest.mark.parametrize("spread", [0.02, 0.4])
def test_permuting_the_rows_changes_nothing(spread):
    """The order of the validation rows is of no account, only that it is the same at every evaluation."""
    run = with_rows(run_of(noisy(turning(24, 0.1), 0.004), learnt(96)), 60, spread)
    order = np.random.default_rng(5).permutation(60)
    shuffled = tuple(_in_order(evaluation, order) for evaluation in run.evaluations)
    one, other = diagnose(run), diagnose(replace(run, evaluations=shuffled))
    assert (one.phase, one.best, one.onset, kinds(one)) == (other.phase, other.best, other.onset, kinds(other))


def _in_order(evaluation: Evaluation, order: np.ndarray) -> Evaluation:
    assert evaluation.losses is not None
    losses = ExampleLosses(evaluation.losses.loss_sums[order], evaluation.losses.token_counts[order])
    return replace(evaluation, losses=losses)


@QUICK
@given(runs())
def test_a_confidence_is_a_probability_and_undecided_has_none(run):
    """Numbers a user sees stay in their range, and every finding is a sentence without a hole."""
    diagnosis = diagnose(run)
    assert (diagnosis.confidence is None) == (diagnosis.phase is Phase.UNDECIDED)
    assert diagnosis.confidence is None or 0.0 <= diagnosis.confidence <= 1.0
    if diagnosis.forecast is not None:
        assert 0.0 <= diagnosis.forecast.chance <= 1.0
        assert diagnosis.forecast.expected_gain >= 0.0
    assert (diagnosis.onset is not None) == (diagnosis.phase is Phase.OVERFITTING)
    assert all("nan" not in finding.message and "None" not in finding.message for finding in diagnosis.findings)


def test_obeying_a_strong_rise_stops_soon_and_keeps_the_best():
    """A rise of 40 % in the second half of 40 evaluations is stopped within eight of its turn."""
    evaluated = noisy(turning(40), 0.005)
    found = replay(run_of(evaluated, learnt(160), max_steps=800))
    assert found.stop is not None and found.stop.action is Action.STOP
    assert 20 < found.stop.step / 20 <= 28
    assert found.regret == 0.0
