"""How fast a fine-tune goes and how long it still takes."""

from __future__ import annotations

from collections.abc import Mapping

TOKEN_RATES = ("tokens_per_second", "train_tokens_per_second")
"""Metrics that say the rate themselves."""
TOKEN_COUNTS = ("num_input_tokens_seen", "num_tokens")
"""Running counts from which the rate follows."""


class Pace:
    """Steps and tokens over time; every time is given by the caller, in seconds."""

    def __init__(self, *, max_steps: int, first_step: int, now: float) -> None:
        self.max_steps, self.first_step, self.step = max_steps, first_step, first_step
        self.tokens_per_second: float | None = None
        self._begun = now
        self._tokens: tuple[float, float] | None = None

    def logged(self, metrics: Mapping[str, float], now: float) -> None:
        """Take the token rate from what was logged, or work it out from a running count."""
        rate = next((metrics[name] for name in TOKEN_RATES if name in metrics), None)
        if rate is not None:
            self.tokens_per_second = rate
            return
        count = next((metrics[name] for name in TOKEN_COUNTS if name in metrics), None)
        if count is None:
            return
        if self._tokens is not None and now > self._tokens[1] and count >= self._tokens[0]:
            self.tokens_per_second = (count - self._tokens[0]) / (now - self._tokens[1])
        self._tokens = (count, now)

    def share(self) -> float:
        """Return the share of the planned steps that is done, 0 to 1."""
        return min(1.0, self.step / self.max_steps) if self.max_steps > 0 else 0.0

    def elapsed_s(self, now: float) -> float:
        """Return the seconds since the start or the resume."""
        return now - self._begun

    def left_s(self, now: float) -> float | None:
        """Return the seconds that the remaining steps take at the mean rate so far; None before it can be told."""
        done = self.step - self.first_step
        if done <= 0 or self.max_steps <= 0:
            return None
        return max(0.0, (self.max_steps - self.step) * (now - self._begun) / done)
