"""Whatever a log holds, there is a phase or ``undecided`` with the reason, and never an exception."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sightline.decisions import judge_run, replay, verdict_as_json
from sightline.runs import Curve, Evaluation, ExampleLosses, Phase
from tests.diagnosis.courses import kinds, learnt, run_of

NAN, INF = float("nan"), float("inf")

CASES = {
    "no evaluations": (run_of([], learnt(40)), "no_evaluations"),
    "nothing at all": (run_of([]), "no_evaluations"),
    "one evaluation": (run_of([2.0], [2.0]), "too_few_evaluations"),
    "three evaluations": (run_of([2.0, 1.9, 1.8]), "too_few_evaluations"),
    "all NaN": (run_of([NAN] * 8, learnt(40)), "no_evaluations"),
    "all infinite": (run_of([INF] * 8), "no_evaluations"),
    "NaN but for one": (run_of([NAN, NAN, 2.0, NAN, NAN]), "too_few_evaluations"),
    "negative": (run_of([-0.1, -0.3, -0.5, -0.8, -1.0, -1.3]), "not_a_loss"),
    "of both signs": (run_of([0.4, 0.2, 0.0, -0.2, -0.3, -0.5]), "not_a_loss"),
    "all zero": (run_of([0.0] * 10), "not_a_loss"),
    "steps only": (run_of([], curves={"epoch": Curve.of(range(50), np.linspace(0, 1, 50))}), "no_evaluations"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_judged_is_undecided_with_the_reason(name):
    """The first thing said is why, and which setting would change it."""
    run, reason = CASES[name]
    verdict = judge_run(run)
    assert verdict.diagnosis.phase is Phase.UNDECIDED
    assert verdict.diagnosis.confidence is None
    assert reason in kinds(verdict.diagnosis)


ODD = {
    "all equal": [1.7] * 20,
    "tiny": 1e-9 * (1.0 + np.exp(-np.arange(20.0))),
    "huge": 1e9 * (1.0 + np.exp(-np.arange(20.0))),
    "from tiny to huge": np.geomspace(1e-9, 1e9, 20),
    "from huge to tiny": np.geomspace(1e9, 1e-9, 20),
    "smallest floats": [5e-324] * 10,
    "largest floats": [1.7e308] * 10,
    "largest and smallest": [1.7e308, 5e-324] * 8,
    "zeros among them": [2.0, 1.0, 0.0, 0.0, 0.5, 0.0, 0.2, 0.0],
    "NaN among them": [2.0, NAN, 1.5, 1.4, INF, 1.3, 1.29, NAN, 1.28],
    "one jump": [1.0] * 15 + [100.0] + [1.0] * 4,
    "alternating": [1.0, 2.0] * 12,
    "four": [2.0, 1.5, 1.4, 1.39],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("trained", ["none", "falls", "same", "NaN"])
def test_odd_numbers_get_a_phase(name, trained):
    """No exception, no warning of NumPy's, and JSON that carries it; at the end and at every evaluation."""
    losses = ODD[name]
    train = {"none": None, "falls": learnt(80), "same": losses, "NaN": [2.0, NAN] * 20}[trained]
    run = run_of(losses, train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(verdict_as_json(judge_run(run))["phase"], str)
        assert len(replay(run).moments) == len(losses)


def test_equal_losses_are_settled():
    """A loss that does not move at all is neither falling nor rising."""
    assert judge_run(run_of([1.7] * 20)).diagnosis.phase is Phase.HEALTHY


def test_of_two_points_at_one_step_the_last_one_counts():
    """A resumed run logs steps twice; the curve has each once."""
    steps = [20, 40, 60, 80, 80, 100, 120, 140]
    curve = Curve.of(steps, [2.0, 1.8, 1.7, 9.0, 1.65, 1.62, 1.61, 1.6])
    verdict = judge_run(run_of([], curves={"eval_loss": curve}))
    assert verdict.diagnosis.best is not None and verdict.diagnosis.best.step == 140
    assert 9.0 not in curve.values


def test_a_million_points_are_judged():
    """Length is no obstacle, neither of the training loss nor of the evaluations."""
    train = Curve.of(np.arange(1, 1_000_001), np.linspace(3.0, 1.0, 1_000_000))
    evaluated = Curve.of(np.arange(1, 100_001) * 10, 1.5 + np.exp(-np.arange(100_000) / 2e4))
    verdict = judge_run(run_of([], curves={"loss": train, "eval_loss": evaluated}))
    assert verdict.diagnosis.phase in (Phase.UNDERFITTING, Phase.HEALTHY)


def test_rows_without_tokens_or_numbers_are_left_out():
    """A row whose loss is NaN, or that has no labelled token, hides no other."""
    losses = ExampleLosses(np.array([1.0, NAN, 0.0, 3.0]), np.array([1, 4, 0, 2]))
    evaluations = tuple(Evaluation(20 * i, 2.0 / i, losses) for i in range(1, 9))
    run = run_of([2.0 / i for i in range(1, 9)], evaluations=evaluations)
    assert judge_run(run).diagnosis.best is not None


def test_rows_that_change_between_evaluations_are_not_compared():
    """Two sets of rows have no pairs; the curve alone is judged."""
    one, two = (ExampleLosses(np.ones(n), np.ones(n, dtype=np.int64)) for n in (3, 5))
    evaluations = tuple(Evaluation(20 * i, 2.0 / i, one if i % 2 else two) for i in range(1, 9))
    assert judge_run(run_of([2.0 / i for i in range(1, 9)], evaluations=evaluations)).diagnosis.best is not None
