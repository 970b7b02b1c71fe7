"""Spending: what evaluations have cost of a run's time, and how many more of them there is time for. No torch.

Whatever was really spent is held against the time that has really passed, so a guess that was wrong, a machine that
slows down or a validation set that grows show at once. With t seconds of the run so far that were not spent on
evaluations, n steps left and s seconds a step, evaluations may take

    B = share / (1 - share) (t + n s)

in all. What is left of that after the S seconds already spent and the check of the best weights, which comes last,
divided by what one evaluation costs, is how many more can be had; ``spacing`` spreads them over the n steps.

Steps that are left are taken to be quick ones: s is the median of the last steps or the mean of all, whichever is
shorter, and what evaluations cost is reckoned at the same pace. A first step that compiles or fills caches is thus no
promise, and neither is a slow stretch. If the steps turn out slower the time has grown once they have passed, and what
it pays for is spread over the rest.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

FREE_S = 1.0
"""Seconds that evaluations may take in any case: a run of a few seconds is there to be looked at."""
RECENT = 7
"""Last steps whose median tells how quick steps are now: three slow ones among them do not show."""
SAME_PACE = 2.0
"""Steps up to this many times as long or as short go at the same pace: a few of them do not tell more."""
PACES = 8.0
"""Most that a cost is scaled by where steps are quicker or slower than when it was taken: other work slows both alike."""
KEPT_BACK = 0.5
"""Part of an evaluation that is not given away: the last ones may turn out dearer."""
NUMBERS = ("spent_s", "next_s", "closing_s", "pace_s")
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
        self.next_s = 0.0
        """What one more evaluation will cost."""
        self.closing_s = 0.0
        """What will be spent after the last step."""
        self.last_step = 0
        """The last step that something was spent at."""
        self.pace_s = 0.0
        """Seconds of a step when the last evaluation took place; 0 where it is not known."""
        self._began = time.monotonic()
        self._closed_s: float | None = None
        self._stepped_s: float | None = None
        self._recent_s: deque[float] = deque(maxlen=RECENT)

    @property
    def passed_s(self) -> float:
        """Seconds of the run so far, those of earlier processes up to the checkpoint among them."""
        return time.monotonic() - self._began if self._closed_s is None else self._closed_s

    @property
    def trained_s(self) -> float:
        """Seconds of them that were not spent on evaluations."""
        return max(0.0, self.passed_s - self.spent_s)

    @property
    def share(self) -> float:
        """Part of the run's time so far that went to evaluations."""
        return self.spent_s / self.passed_s if self.passed_s > 0 else 0.0

    def stepped(self) -> None:
        """Take note that a training step has ended; the first one of a process tells nothing of the next."""
        now_s = self.trained_s
        if self._stepped_s is not None:
            self._recent_s.append(now_s - self._stepped_s)
        self._stepped_s = now_s

    def spend(self, seconds: float, *, step: int) -> None:
        """Take note of what was spent at a step."""
        self.spent_s += seconds
        if self._closed_s is not None:
            self._closed_s += seconds
        self.last_step = step
        self.pace_s = self._recent_step_s

    def close(self) -> None:
        """Stop the clock: the training is over, and only what is spent on evaluations still counts as time of the run."""
        self._closed_s = self.passed_s

    def left_s(self, share: float, step: int) -> float:
        """Return the seconds that all evaluations after this step may take together, the closing one included."""
        return max(share / (1.0 - share) * self._training_s(step), FREE_S) - self.spent_s

    def affordable(self, share: float, step: int) -> int:
        """Return how many evaluations there is time for after this step, that of the last step among them."""
        pace = self._pace(step)
        each_s = self.next_s * pace
        if share >= 1.0 or each_s <= 0:
            return self.total_steps
        return max(0, int((self.left_s(share, step) - self.closing_s * pace) / each_s - KEPT_BACK))

    def share_with(self, evaluations: int, step: int) -> float:
        """Return the share in the end with so many more evaluations."""
        spent_s = self.spent_s + (evaluations * self.next_s + self.closing_s) * self._pace(step)
        return spent_s / (spent_s + self._training_s(step))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the account."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return {**numbers, "passed_s": self.passed_s, "last_step": self.last_step, "recent_s": list(self._recent_s)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the account of a checkpoint."""
        for name in NUMBERS:
            setattr(self, name, float(state[name]))
        self.last_step = int(state["last_step"])
        self._began = time.monotonic() - float(state["passed_s"])
        self._recent_s.extend(state.get("recent_s", ()))
        self._stepped_s = None

    @property
    def _recent_step_s(self) -> float:
        return statistics.median(self._recent_s) if self._recent_s else 0.0

    def _step_s(self, step: int) -> float:
        """Seconds of a step that is still to come, if it is a quick one."""
        return min(self._recent_step_s, self.trained_s / max(step, 1))

    def _training_s(self, step: int) -> float:
        """Seconds of the whole run without evaluations."""
        return self.trained_s + max(0, self.total_steps - step) * self._step_s(step)

    def _pace(self, step: int) -> float:
        """How many times as long a step that is still to come takes as one did when costs were taken."""
        step_s = self._step_s(step)
        if step_s <= 0 or self.pace_s <= 0 or 1.0 / SAME_PACE < step_s / self.pace_s < SAME_PACE:
            return 1.0
        return min(max(step_s / self.pace_s, 1.0 / PACES), PACES)
