"""EvaluationBudget: evaluations take place as planned and take no more than their share of the run's time."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.training.ranks import Ranks
from sightline.training.spending import Spending


class EvaluationBudget(TrainerCallback):  # type: ignore[misc]
    """Decides at each planned evaluation whether it takes place now or waits until it keeps to its share.

    Planned are the multiples of the interval. One that would be too dear waits for the first step at which it is not;
    those it has waited past are left out. The base model and the last step are always evaluated. Rank 0 reads the
    clock and decides for all: every rank knows the step at which it is asked next.

    Parameters
    ----------
    interval : int
        Optimizer steps between evaluations as ``evals_per_epoch`` gives it.
    share : float
        Largest share of the wall time, above 0 and at most 1.
    spending : Spending
        What evaluations have cost so far; whoever evaluates keeps it.
    """

    def __init__(self, interval: int, share: float, spending: Spending) -> None:
        self.interval = interval
        self.share = share
        self.spending = spending
        self.next_step = interval
        """The step at which an evaluation is due, or has waited for."""
        self._ranks: Ranks | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Meet the other ranks; an evaluation that waited when the run was cut off is still due."""
        self._ranks = Ranks()
        self.next_step = max(self._planned_after(self.spending.last_step), state.global_step + 1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Evaluate when it is due and the budget allows it."""
        step = state.global_step
        is_last = step >= state.max_steps
        due = step >= self.next_step
        if due and not is_last and self._ranks is not None:
            wait = self._ranks.told_by_first(self._wait(step))
            due = wait == 0
            self.next_step = step + wait
        if due:
            self.next_step = self._planned_after(step)
        control.should_evaluate = due or is_last
        return control

    def _planned_after(self, step: int) -> int:
        return (step // self.interval + 1) * self.interval

    def _wait(self, step: int) -> int:
        """Steps until the evaluation that is due keeps to the share, as far as can be told now; 0 if it does."""
        if self.share >= 1 or self.spending.next_s <= 0:
            return 0
        if not self.spending.lasts(self.share, step):
            return self._planned_after(step) - step
        lacking_s = self.spending.lacking_s(self.share, step)
        return math.ceil(lacking_s / max(self.spending.step_s(step), 1e-6)) if lacking_s > 0 else 0
