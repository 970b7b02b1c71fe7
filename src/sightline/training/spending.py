"""Spending: what evaluations have cost of a run's time, and whether one more keeps to their share. No torch.

Whatever was really spent is held against the time that has really passed, so a guess that was wrong, a machine that
slows down or a validation set that grows show at once: the next evaluation waits. With T seconds passed, S of them spent
on evaluations and c what one more will cost, it may take place when

    S - (1 - p) O + c + p E  <=  share (T + c + p E)

where O is what was spent before the first step (the base model), E what will be spent after the last one (the check of the
best weights), and p goes from 0 to 1 over the first half of the run: what has to be paid in any case is paid off evenly,
so that the beginning of the run is seen as well as the rest. From there on the share holds wherever the run ends. And
what is left must last for the evaluation of the last step: S + 2 c + E <= share (T' + 2 c + E), T' being the time that
will have passed after the training steps that are left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

PAID_OFF = 0.5
"""Part of the run over which what has to be spent in any case is paid off."""
FREE_S = 1.0
"""Seconds that evaluations may take in any case: a run of a few seconds is there to be looked at."""
PACES = 8.0
"""Most that a cost is scaled by when steps take longer or shorter than when it was taken."""
NUMBERS = ("spent_s", "opening_s", "next_s", "closing_s", "trained_s", "pace_s")
"""What a checkpoint keeps, besides the step of the last evaluation and the time that has passed."""


class Spending:
    """The account of a run's evaluations, this process's and those before a resume.

    Parameters
    ----------
    total_steps : int
        Optimizer steps of the whole run.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.spent_s = 0.0
        """All seconds spent on evaluations."""
        self.opening_s = 0.0
        """Those of them before the first step."""
        self.next_s = 0.0
        """What one more evaluation will cost."""
        self.closing_s = 0.0
        """What will be spent after the last step."""
        self.last_step = 0
        """The last step that something was spent at."""
        self.trained_s = 0.0
        """Seconds of the run up to then that were not spent on evaluations."""
        self.pace_s = 0.0
        """Seconds of a step before the last evaluation; 0 where there was none."""
        self._began = time.monotonic()
        self._closed_s: float | None = None

    @property
    def passed_s(self) -> float:
        """Seconds of the run so far, those of earlier processes up to the checkpoint among them."""
        return time.monotonic() - self._began if self._closed_s is None else self._closed_s

    @property
    def share(self) -> float:
        """Part of the run's time so far that went to evaluations."""
        return self.spent_s / self.passed_s if self.passed_s > 0 else 0.0

    def spend(self, seconds: float, *, step: int) -> None:
        """Take note of what was spent at a step."""
        self.spent_s += seconds
        if self._closed_s is not None:
            self._closed_s += seconds
        self.pace_s = self.step_s(step) if step > self.last_step else self.pace_s
        self.last_step, self.trained_s = step, self.passed_s - self.spent_s
        if step == 0:
            self.opening_s += seconds

    def close(self) -> None:
        """Stop the clock: the training is over, and only what is spent on evaluations still counts as time of the run."""
        self._closed_s = self.passed_s

    def step_s(self, step: int) -> float:
        """Mean seconds of a step since the last evaluation, whatever else is done in it."""
        since = step - self.last_step
        if since < 1:
            return self._mean_step_s(step)
        return max(0.0, self.passed_s - self.spent_s - self.trained_s) / since

    def lacking_s(self, share: float, step: int) -> float:
        """Return the seconds that are to pass before one more evaluation keeps to its share; 0 or less: none."""
        paid = min(1.0, step / (PAID_OFF * self.total_steps))
        if self._is_free(share, step):
            return 0.0
        coming = (self.next_s + paid * self.closing_s) * self._pace(step)
        owed = self.spent_s - (1.0 - paid) * self.opening_s + coming
        return owed / share - (self.passed_s + coming)

    def lasts(self, share: float, step: int) -> bool:
        """Whether one more evaluation leaves enough for that of the last step."""
        coming = self._coming_s(step)
        return self._is_free(share, step) or self.spent_s + coming <= share * (self._end_s(step) + coming)

    def left_s(self, share: float, step: int) -> float:
        """Return the seconds that all evaluations after this step may take together, the closing one included."""
        training_s = self._end_s(step) - self.spent_s
        return share / (1.0 - share) * training_s - self.spent_s

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps of the account."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return {**numbers, "passed_s": self.passed_s, "last_step": self.last_step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the account of a checkpoint."""
        for name in NUMBERS:
            setattr(self, name, float(state[name]))
        self.last_step = int(state["last_step"])
        self._began = time.monotonic() - float(state["passed_s"])

    def _is_free(self, share: float, step: int) -> bool:
        """Whether the run is so short that its share is less than what may be spent in any case, and that lasts."""
        return share * self._end_s(step) < FREE_S and self.spent_s + self._coming_s(step) <= FREE_S

    def _coming_s(self, step: int) -> float:
        """What this evaluation, that of the last step and the check of the best weights will cost."""
        return (2.0 * self.next_s + self.closing_s) * self._pace(step)

    def _pace(self, step: int) -> float:
        """How many times as long a step takes now as when costs were taken: other work slows both alike."""
        now_s = self.step_s(step) if step > self.last_step else 0.0
        return min(max(now_s / self.pace_s, 1.0 / PACES), PACES) if now_s > 0 and self.pace_s > 0 else 1.0

    def _end_s(self, step: int) -> float:
        """Seconds that will have passed after the training steps that are left, if they are quick ones."""
        step_s = min(self.step_s(step), self._mean_step_s(step))
        return self.passed_s + max(0, self.total_steps - step) * step_s

    def _mean_step_s(self, step: int) -> float:
        return max(0.0, self.passed_s - self.spent_s) / max(step, 1)
