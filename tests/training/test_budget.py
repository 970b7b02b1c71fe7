"""Evaluation keeps to its share of the run's time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from sightline.training import budget as budget_module
from sightline.training.budget import EvaluationBudget


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget_module, "time", clock)
    return clock


def simulate(
    clock: Clock, eval_s: float, *, interval: int = 1, estimate: int | None = None, slower_from: int = 10**9,
    slow_once: int = -1, steps: int = 400,
) -> tuple[float, list[int]]:  # fmt: skip
    """Train with steps of a second; return the share of time that evaluations took, and their steps."""
    budget = EvaluationBudget(interval, 0.1)
    budget.interval = estimate or interval
    state, spent, evaluated = SimpleNamespace(global_step=0, max_steps=steps), 0.0, []

    def evaluation() -> None:
        nonlocal spent
        slow = state.global_step >= slower_from or state.global_step == slow_once
        cost = eval_s * (4.0 if slow else 1.0)
        clock.now += cost
        spent += cost
        budget.took(cost)

    budget.on_train_begin(SimpleNamespace(), state, TrainerControl())
    evaluation()
    for step in range(1, steps + 1):
        budget.on_step_begin(SimpleNamespace(), state, TrainerControl())
        clock.now += 1.0
        state.global_step = step
        control = budget.on_step_end(SimpleNamespace(), state, TrainerControl(should_evaluate=True))
        if control.should_evaluate:
            evaluated.append(step)
            evaluation()
    return spent / clock.now, evaluated


@pytest.mark.parametrize("eval_s", [0.001, 0.05, 0.5, 1.0, 3.0])
def test_the_share_is_kept_and_the_run_is_seen(clock, eval_s):
    """Whatever one pass costs, all of them take about a tenth at most, and a dozen take place at least."""
    share, evaluated = simulate(clock, eval_s)
    assert share <= 0.105
    assert len(evaluated) >= 12 and evaluated[-1] == 400


def test_cheap_evaluations_all_take_place(clock):
    """An evaluation that costs a thousandth of a step is never left out."""
    _, evaluated = simulate(clock, 0.001)
    assert evaluated == list(range(1, 401))


def test_an_estimate_that_was_too_careful_is_put_right(clock):
    """Where steps turn out slower than thought the run gets the evaluations it asked for, and not one more."""
    share, evaluated = simulate(clock, 0.5, interval=10, estimate=60)
    assert evaluated == list(range(10, 401, 10)) and share <= 0.105


def test_one_slow_evaluation_does_not_silence_the_rest(clock):
    """The base model's pass took four times as long; the others take place all the same."""
    _, evaluated = simulate(clock, 0.5, interval=10, slow_once=0)
    assert len(evaluated) >= 20


def test_a_machine_that_slows_down_is_held_to_the_bound(clock):
    """Evaluations that suddenly cost four times as much are thinned out."""
    share, evaluated = simulate(clock, 0.5, slower_from=150)
    assert share <= 0.12
    assert evaluated[-1] == 400
