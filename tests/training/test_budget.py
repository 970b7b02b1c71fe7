"""Evaluations are spread evenly over a run and keep to their share of its time."""

from __future__ import annotations

import itertools
import random
import statistics
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import TrainerControl

from sightline.diagnosis.context import portion
from sightline.training import spending as spending_module
from sightline.training.budget import EvaluationBudget, why_above
from sightline.training.spacing import FEWEST, next_evaluation
from sightline.training.spending import FREE_S, Spending

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
    """A run whose steps take a second and whose evaluations take what a test says."""

    def __init__(self, clock, cost, *, steps=400, interval=1, step_s=lambda step: 1.0, resumed=None):
        self.clock, self.cost, self.step_s, self.steps = clock, cost, step_s, steps
        self.spending = Spending(steps)
        self.state = SimpleNamespace(global_step=0, max_steps=steps)
        if resumed is not None:
            self.state.global_step = resumed[0]
            self.spending.restore(resumed[1])
        self.evaluated: list[int] = []
        self.costs: list[float] = []
        self.told: list[str] = []
        self.budget = EvaluationBudget(interval, SHARE, self.spending, self.told.append)
        self.budget.on_train_begin(SimpleNamespace(), self.state, TrainerControl())

    def evaluate(self) -> None:
        step = self.state.global_step
        self.costs.append(self.cost(step))
        self.clock.now += self.costs[-1]
        self.spending.spend(self.costs[-1], step=step)
        self.spending.next_s = statistics.median(self.costs[-3:])
        self.spending.closing_s = self.spending.next_s / 2
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
        self.spending.spend(self.costs[-1] / 2, step=self.steps)
        return self.spending.share

    @property
    def gaps(self) -> list[int]:
        return [later - step for step, later in itertools.pairwise([0, *self.evaluated])]


def _first_slow(steps, times):
    return lambda step: times if step <= steps else 1.0


STEP_TIMES = {
    "constant": lambda n, rng: lambda step: 1.0,
    "first step slow": lambda n, rng: _first_slow(1, 50.0),
    "first five slow": lambda n, rng: _first_slow(5, 20.0),
    "first tenth slow": lambda n, rng: _first_slow(n // 10, 10.0),
    "slower and slower": lambda n, rng: lambda step: 1.0 + 3.0 * step / n,
    "quicker and quicker": lambda n, rng: lambda step: 4.0 - 3.0 * step / n,
    "noise": lambda n, rng: _listed([rng.lognormvariate(0.0, 0.3) for _ in range(n + 1)]),
    "bursts": lambda n, rng: _listed([10.0 if rng.random() < 0.1 else 1.0 for _ in range(n + 1)]),
    "slow stretches": lambda n, rng: lambda step: 10.0 if step // 40 % 3 == 1 else 1.0,
}


def _listed(seconds):
    return lambda step: seconds[step]


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.sampled_from(sorted(STEP_TIMES)), steps=st.sampled_from([30, 180, 450, 1200]), eval_s=st.floats(0.01, 40.0),
    spread=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 1000), wanted=st.sampled_from([10, 15, 45]),
)  # fmt: skip
def test_whatever_steps_and_passes_take_the_whole_run_is_seen_within_its_share(
    clock, shape, steps, eval_s, spread, seed, wanted
):
    """No hole, no cluster, and the share holds up to what a few evaluations are off, or there are only the fewest."""
    rng = random.Random(seed)
    clock.now, interval = 0.0, max(1, steps // wanted)
    training = Training(
        clock,
        lambda step: eval_s * rng.lognormvariate(0.0, spread),
        steps=steps,
        interval=interval,
        step_s=STEP_TIMES[shape](steps, rng),
    ).run()
    few = min(FEWEST, steps // interval)
    assert training.evaluated[-1] == steps and len(training.evaluated) >= few
    assert min(training.gaps) >= interval
    assert max(training.gaps) <= max(1.5 * steps / FEWEST, 2 * interval)
    if len(training.evaluated) > 2 * FEWEST:
        assert max(training.gaps) <= 4.0 * max(interval, steps / len(training.evaluated))
    spent_s, share = training.spending.spent_s, training.share_in_the_end()
    unforeseen_s = (6.0 if "first" in shape else 2.0 if spread or shape != "constant" else 0.0) * max(training.costs)
    assert share <= SHARE + unforeseen_s / clock.now or spent_s <= FREE_S or len(training.evaluated) <= FEWEST + 1


@pytest.mark.parametrize("eval_s", [0.05, 0.3, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("steps", [180, 450, 2000])
def test_evaluations_of_one_price_are_spread_evenly(clock, steps, eval_s):
    """With steps and passes that take what they took before, the widest hole is hardly wider than the others."""
    interval = max(1, steps // 45)
    training = Training(clock, lambda step: eval_s, steps=steps, interval=interval).run()
    even = max(interval, steps / len(training.evaluated))
    assert max(training.gaps) <= 2.0 * even
    assert training.share_in_the_end() <= SHARE or len(training.evaluated) <= FEWEST


@given(st.integers(1, 500), st.integers(1, 50), st.integers(0, 600))
def test_a_run_that_affords_what_it_affords_is_evaluated_that_often(steps, interval, affordable):
    """At fixed prices the steps are even, never closer than the interval, and the last one is among them."""
    evaluated = [0]
    while evaluated[-1] < steps:
        left = max(0, affordable - len(evaluated) + 1)
        evaluated.append(next_evaluation(evaluated[-1], evaluated[-1], steps, interval=interval, affordable=left))
    gaps = [later - step for step, later in itertools.pairwise(evaluated)]
    assert evaluated[-1] == steps and (len(gaps) == 1 or min(gaps) >= interval)
    assert len(gaps) <= max(FEWEST, affordable)
    assert len(gaps) >= min(FEWEST, affordable, steps // interval)
    assert max(gaps) - min(gaps) <= 1 or min(interval, steps) == min(gaps) or affordable < FEWEST


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
    """A second of evaluations is never spared, and it is spread like any other time."""
    brief = {"steps": 20, "interval": 2, "step_s": lambda step: 0.05}
    assert Training(clock, lambda step: 0.05, **brief).run().evaluated == list(range(2, 21, 2))
    dear = Training(clock, lambda step: 0.12, **brief).run()
    assert len(dear.evaluated) == 6 and max(dear.gaps) <= 4 and dear.spending.spent_s <= FREE_S
    assert dear.share_in_the_end() > SHARE and "so short" in why_above(dear.spending, SHARE, 7)


def test_a_run_too_short_for_its_evaluations_has_the_fewest_and_says_so(clock):
    """Where they break the share a run is still seen at every quarter, and a person is told what that takes."""
    training = Training(clock, lambda step: 30.0).run()
    assert training.evaluated == [100, 200, 300, 400]
    assert len(training.told) == 1 and "4 evaluations at least" in training.told[0]
    assert f"{portion(training.share_in_the_end())} of its time" in training.told[0]
    assert "4 evaluations at least" in why_above(training.spending, SHARE, len(training.costs))
    assert Training(clock, lambda step: 1.0).run().told == []


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
