"""EvaluationBudget: evaluations take place as planned and take no more than their share of the run's time."""

from __future__ import annotations

import statistics
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.training.evaluation_plan import refit_interval
from sightline.training.ranks import Ranks

MEASURED_STEPS = 4
"""Steps whose time is taken before the interval is fitted; the first one warms up and does not count."""
MEASURED_COSTS = (1, 3)
"""Evaluations after which the interval is fitted: the base model's, which pays for what is made once, and two more."""
HEAD_START = 0.15
"""Share of the budget that may be spent before its part of the run has passed."""


class EvaluationBudget(TrainerCallback):  # type: ignore[misc]
    """Decides at each planned evaluation whether it takes place.

    Once a few steps have been timed, the interval is made to fit, longer than the estimate before the first step or
    shorter, but never shorter than what ``evals_per_epoch`` asks for; an evaluation that would break the bound all the
    same, because the machine got slower, is left out. The base model and the last step are always evaluated. Rank 0
    measures and decides for all.

    Parameters
    ----------
    interval : int
        Optimizer steps between evaluations as ``evals_per_epoch`` gives it; what is estimated before the first step
        is set later.
    share : float
        Largest share of the wall time, above 0 and at most 1.
    """

    def __init__(self, interval: int, share: float) -> None:
        self.wanted = interval
        self.interval = interval
        self.share = share
        self.left_out = 0
        self._ranks: Ranks | None = None
        self._fits = 0
        self._steps_s: list[float] = []
        self._step_began = 0.0
        self._costs_s: list[float] = []

    def took(self, seconds: float) -> None:
        """Take note of what an evaluation cost, the base model's first."""
        self._costs_s.append(seconds)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Meet the other ranks."""
        self._ranks = Ranks()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of a step."""
        self._step_began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Fit the interval when it can be fitted; evaluate when it says so and the budget allows it."""
        self._steps_s.append(time.monotonic() - self._step_began)
        if self._ranks is None:
            return control
        if len(self._steps_s) >= MEASURED_STEPS and self._can_fit:
            self.interval = self._ranks.told_by_first(self._fit(state.max_steps))
            self._fits += 1
        is_last = state.global_step >= state.max_steps
        due = state.global_step % self.interval == 0
        if due and not is_last and self._ranks.told_by_first(self._is_too_dear(state)):
            self.left_out += 1
            due = False
        control.should_evaluate = due or is_last
        return control

    @property
    def _can_fit(self) -> bool:
        """Whether more is known of an evaluation's cost than at the last fit."""
        return self._fits < len(MEASURED_COSTS) and len(self._costs_s) >= MEASURED_COSTS[self._fits]

    def _fit(self, total_steps: int) -> int:
        return refit_interval(
            self.wanted,
            evaluation_s=self._cost_s,
            step_s=self._step_s,
            total_steps=total_steps,
            share=self.share,
        )

    @property
    def _step_s(self) -> float:
        """Mean seconds of a step; the first one warms up and does not count."""
        return statistics.fmean(self._steps_s[1:] or self._steps_s)

    @property
    def _cost_s(self) -> float:
        """What one more evaluation will cost: the median, as a single slow one must not silence the rest."""
        return statistics.median(self._costs_s) if self._costs_s else 0.0

    def _is_too_dear(self, state: TrainerState) -> bool:
        """Whether one more evaluation is more than this part of the run may cost."""
        if self.share >= 1 or not self._costs_s:
            return False
        allowed_s = self.share / (1 - self.share) * self._step_s * state.max_steps
        passed = min(1.0, state.global_step / state.max_steps + HEAD_START)
        return bool(sum(self._costs_s) + self._cost_s > allowed_s * passed)
