"""EvaluationBudget: evaluations are spread evenly over a run and take no more than their share of its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.diagnosis.context import portion
from sightline.training.ranks import Ranks
from sightline.training.spacing import FEWEST, fewest_left, next_evaluation
from sightline.training.spending import FREE_S, Spending

CLEARLY_ABOVE = 1.05
"""A share this many times what was asked for is told and explained: it can be kept to up to a part of an evaluation."""


class EvaluationBudget(TrainerCallback):  # type: ignore[misc]
    """Decides at which steps a run is evaluated: as planned where there is time for it, evenly spread where there is not.

    The base model and the last step are always evaluated. Rank 0 reads the clock and decides for all: every rank knows
    the step at which it is asked next, an interval later at most, so that a wrong estimate is soon mended.

    Parameters
    ----------
    interval : int
        Optimizer steps between evaluations as ``evals_per_epoch`` gives it; they are never closer.
    share : float
        Largest share of the wall time, above 0 and at most 1.
    spending : Spending
        What evaluations have cost so far; whoever evaluates keeps it.
    tell : callable
        Told in one sentence when the fewest evaluations that a run has will take more than their share.
    """

    def __init__(self, interval: int, share: float, spending: Spending, tell: Callable[[str], None]) -> None:
        self.interval = interval
        self.share = share
        self.spending = spending
        self.tell = tell
        self.next_step = interval
        """The step at which is asked next whether an evaluation is due."""
        self._ranks: Ranks | None = None
        self._looked_ahead = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Meet the other ranks; an evaluation that was due when the run was cut off is still due."""
        self._ranks = Ranks()
        self.next_step = max(self.spending.last_step + self.interval, state.global_step + 1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Evaluate when it is due."""
        step = state.global_step
        is_last = due = step >= state.max_steps
        self.spending.stepped()
        if step >= self.next_step and not is_last and self._ranks is not None:
            wait = self._ranks.told_by_first(self._wait(step))
            due = wait == 0
            self.next_step = step + (self.interval if due else min(wait, self.interval))
        if due and not is_last:
            self._tell_of_the_fewest(step)
        control.should_evaluate = due
        return control

    def _wait(self, step: int) -> int:
        """Steps until the next evaluation is due, as far as can be told now; 0 if it is."""
        spending = self.spending
        affordable = spending.affordable(self.share, step)
        due = next_evaluation(
            step, spending.last_step, spending.total_steps, interval=self.interval, affordable=affordable
        )
        return due - step

    def _tell_of_the_fewest(self, step: int) -> None:
        """At the first evaluation, say if there is no time for as many as a run has in any case."""
        if self._looked_ahead:
            return
        self._looked_ahead = True
        fewest = fewest_left(self.spending.last_step, self.spending.total_steps)
        expected = self.spending.share_with(fewest, step)
        if self.spending.affordable(self.share, step) < fewest and expected > CLEARLY_ABOVE * self.share:
            self.tell(
                f"a run has {FEWEST} evaluations at least: this one is so short that they will take about "
                f"{portion(expected)} of its time, not {portion(self.share)} as eval_time_budget "
                "asks; give eval_steps to choose yourself"
            )


def why_above(spending: Spending, share: float, evaluations: int) -> str:
    """Say why the evaluations of a run took more than their share of its time.

    Parameters
    ----------
    spending : Spending
        The account of a run that has ended.
    share : float
        What was asked for.
    evaluations : int
        How many there were, the base model's among them.
    """
    if spending.last_step < spending.total_steps:
        return "the run ended before the base model's evaluation and the check of the best weights were paid off"
    if evaluations <= FEWEST + 2 and spending.spent_s > FREE_S:
        return f"a run has {FEWEST} evaluations at least, and this one is short"
    if share / (1.0 - share) * spending.trained_s < FREE_S:
        return f"{spending.spent_s:.1f} s in all are not spared in so short a run"
    return "steps were quicker, or evaluations slower, than they had been"
