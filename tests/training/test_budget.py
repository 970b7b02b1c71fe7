"""Evaluation keeps to its share of the run's time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from sightline.training import spending as spending_module
from sightline.training.budget import EvaluationBudget
from sightline.training.spending import FREE_S, PAID_OFF, Spending

SHARE = 0.1


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(spending_module, "time", clock)
    return clock


class Training:
    """A run whose steps take a second and whose evaluations take what a test says, checked after each of them."""

    def __init__(self, clock, cost, *, steps=400, interval=1, step_s=lambda step: 1.0, resumed=None):
        self.clock, self.cost, self.step_s, self.steps = clock, cost, step_s, steps
        self.spending = Spending(steps)
        self.state = SimpleNamespace(global_step=0, max_steps=steps)
        if resumed is not None:
            self.state.global_step = resumed[0]
            self.spending.restore(resumed[1])
        self.evaluated: list[int] = []
        self.shares: dict[int, float] = {}
        self.budget = EvaluationBudget(interval, SHARE, self.spending)
        self.budget.on_train_begin(SimpleNamespace(), self.state, TrainerControl())

    def evaluate(self) -> None:
        step = self.state.global_step
        seconds = self.cost(step)
        self.clock.now += seconds
        self.spending.spend(seconds, step=step)
        self.spending.next_s, self.spending.closing_s = seconds, seconds / 2
        self.shares[step] = self.spending.share
        if step:
            self.evaluated.append(step)

    def run(self, until: int | None = None) -> Training:
        if self.state.global_step == 0:
            self.evaluate()
        for step in range(self.state.global_step + 1, (until or self.steps) + 1):
            self.clock.now += self.step_s(step)
            self.state.global_step = step
            control = self.budget.on_step_end(SimpleNamespace(), self.state, TrainerControl(should_evaluate=True))
            if control.should_evaluate:
                self.evaluate()
        return self

    def share_in_the_end(self) -> float:
        """Check of the best weights included."""
        self.spending.close()
        self.spending.spend(self.cost(self.steps) / 2, step=self.steps)
        return self.spending.share


@pytest.mark.parametrize("eval_s", [0.001, 0.05, 0.5, 1.0, 2.5])
def test_the_share_is_kept_and_the_run_is_seen(clock, eval_s):
    """Whatever one pass costs, base model and check of the best weights included: a tenth at most, and well used."""
    training = Training(clock, lambda step: eval_s).run()
    assert len(training.evaluated) >= 12 and training.evaluated[-1] == 400
    share = training.share_in_the_end()
    assert share <= SHARE
    assert share >= 0.9 * SHARE or training.evaluated == list(range(1, 401))


@pytest.mark.parametrize("eval_s", [0.2, 1.0, 2.5])
def test_a_run_that_is_stopped_has_kept_to_it_too(clock, eval_s):
    """From the middle of the run on the share holds after each evaluation; before, only the base model is not yet paid."""
    training = Training(clock, lambda step: eval_s).run()
    for step, share in training.shares.items():
        if step >= PAID_OFF * 400:
            assert share <= SHARE
        elif step:
            assert share <= SHARE + eval_s / step


def test_the_beginning_is_seen_as_well_as_the_rest(clock):
    """The base model's evaluation is paid off slowly: no part of the run is without evaluations."""
    evaluated = [0, *Training(clock, lambda step: 1.5).run().evaluated]
    gaps = [b - a for a, b in itertools.pairwise(evaluated)]
    assert max(gaps) <= 2.5 * min(gaps[:-1])


def test_cheap_evaluations_all_take_place_as_planned(clock):
    """An evaluation that costs a thousandth of a step is never put off."""
    assert Training(clock, lambda step: 0.001).run().evaluated == list(range(1, 401))
    assert Training(clock, lambda step: 0.1, interval=10).run().evaluated == list(range(10, 401, 10))


def test_one_slow_evaluation_does_not_silence_the_rest(clock):
    """One that takes twenty times as long is paid for, and then the plan goes on."""
    training = Training(clock, lambda step: 4.0 if step == 100 else 0.2, interval=10).run()
    assert training.evaluated[:10] == list(range(10, 101, 10))
    assert training.evaluated[-20:] == list(range(210, 401, 10))
    assert training.share_in_the_end() <= SHARE


@pytest.mark.parametrize("slower_from", [20, 150, 300])
def test_a_machine_that_slows_down_keeps_to_it(clock, slower_from):
    """Evaluations that suddenly cost four times as much are thinned out; one that began too dear is all that is lost."""
    training = Training(clock, lambda step: 2.0 if step >= slower_from else 0.5).run()
    assert training.evaluated[-1] == 400
    assert training.share_in_the_end() <= SHARE + 2.0 / 440


@pytest.mark.parametrize("slower_from", [20, 150, 300])
def test_steps_that_get_quicker_or_slower_are_reckoned_with(clock, slower_from):
    """What counts is the time that has passed, not what the first steps promised."""
    for factor in (0.25, 4.0):
        training = Training(clock, lambda step: 0.5, step_s=lambda s, f=factor: f if s >= slower_from else 1.0).run()
        assert training.evaluated[-1] == 400
        assert training.share_in_the_end() <= SHARE + 1.0 / clock.now


@pytest.mark.parametrize("slow", [range(100, 150), range(150, 200), range(200, 300)], ids=str)
def test_a_slow_part_of_a_run_promises_nothing(clock, slow):
    """Once a machine is quick again what is left of the run is taken to pass as quickly: the last evaluation fits."""
    for eval_s in (0.5, 1.0, 2.0, 3.0):
        training = Training(clock, lambda s, e=eval_s: e, step_s=lambda s: 10.0 if s in slow else 1.0).run()
        assert training.evaluated[-1] == 400
        assert training.share_in_the_end() <= SHARE


def test_a_machine_that_gets_quick_again_is_believed(clock):
    """What an evaluation cost while everything was slow is not what it costs now."""
    busy = range(100)
    training = Training(
        clock, lambda s: 10.0 if s in busy else 2.0, step_s=lambda s: 5.0 if s in busy else 1.0, steps=150
    ).run()
    assert sum(step >= 100 for step in training.evaluated) >= 3
    assert training.share_in_the_end() <= SHARE


def test_a_run_of_a_few_seconds_is_looked_at(clock):
    """What evaluations take below a second is not worth sparing; beyond it the share holds, also in a short run."""
    brief = {"steps": 20, "interval": 2, "step_s": lambda step: 0.05}
    assert Training(clock, lambda step: 0.05, **brief).run().evaluated == list(range(2, 21, 2))
    dear = Training(clock, lambda step: 0.3, **brief).run()
    assert dear.evaluated == [20] and dear.spending.spent_s <= FREE_S


def test_a_run_too_short_for_its_evaluations_has_the_first_and_the_last(clock):
    """Where even these break the share nothing else is scored."""
    assert Training(clock, lambda step: 30.0).run().evaluated == [400]


def test_a_resumed_run_goes_on_with_the_account(clock):
    """What was spent before counts, what came after the checkpoint does not, and an evaluation that waited is still due."""
    whole = Training(clock, lambda step: 1.3, interval=7).run()
    share = whole.share_in_the_end()
    first = Training(clock, lambda step: 1.3, interval=7).run(until=150)
    saved = first.spending.state()
    clock.now += 1000.0  # nobody trains
    second = Training(clock, lambda step: 1.3, interval=7, resumed=(150, saved)).run()
    assert first.evaluated + second.evaluated == whole.evaluated
    assert second.share_in_the_end() == pytest.approx(share)
