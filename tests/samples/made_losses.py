"""The losses that the samples of trackers are made of: a run that overfits a little, the same numbers every time."""

from __future__ import annotations

from collections.abc import Iterator


def points(steps: int = 24, *, evaluate_every: int = 6) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield a step and the metrics logged at it."""
    for i in range(1, steps + 1):
        epoch = {"train/epoch": i / 8}
        wiggle = 0.01 * ((7 * i) % 5 - 2)
        yield 10 * i, {"train/loss": 2.5 / i**0.5 + wiggle, "train/learning_rate": 1e-3 * (1 - i / steps), **epoch}
        if i % evaluate_every == 0:
            yield 10 * i, {"eval/loss": 1.2 + 0.02 * (i - 14) ** 2 / 10, "eval/accuracy": 0.5 + i / 100, **epoch}
