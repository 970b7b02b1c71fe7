"""Training runs with a known course: what the benchmarks of the verdict count false alarms and misses on.

The validation loss is a smooth shape times exp(noise); the noise is AR(1) with the standard deviation named. Losses,
their noise and the number of evaluations are those of fine-tunes of small language models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rules import Curves
from sightline.runs import Curve, Run

Floats = NDArray[np.float64]
SPACING = 20  # optimizer steps between evaluations
LINES = 4  # training losses logged between two evaluations
TRAIN_NOISE = 0.03
TURN = 0.5  # share of the run after which a rise begins


@dataclass(frozen=True, eq=False, slots=True)
class Simulated:
    """A run, and where its validation loss turns."""

    run: Run
    curves: Curves
    turn: int | None
    """Index of the last evaluation before the rise, None if it never rises."""


Shape = Callable[[Floats], tuple[Floats, Floats]]
"""From the share of the run that is done, shape (n,), to validation loss and training loss without noise."""


def healthy(x: Floats) -> tuple[Floats, Floats]:
    """Both losses still fall at the end."""
    return 1.3 + 1.2 * np.exp(-3.0 * x), 1.2 + 1.2 * np.exp(-3.0 * x)


def constant_gap(x: Floats) -> tuple[Floats, Floats]:
    """The same with a training loss far below."""
    validation, train = healthy(x)
    return 1.15 * validation, 0.85 * train


def plateau(x: Floats) -> tuple[Floats, Floats]:
    """The validation loss settles, the training loss falls on."""
    return 1.5 + np.exp(-12.0 * x), 1.4 + np.exp(-12.0 * x) - 0.3 * x


def staircase(x: Floats) -> tuple[Floats, Floats]:
    """The training loss drops at the ends of three epochs, the validation loss settles."""
    return 1.5 + 0.8 * np.exp(-10.0 * x), (1.4 + 0.8 * np.exp(-10.0 * x)) * 0.8 ** np.floor(np.minimum(3.0 * x, 2.99))


def warm_up_bump(x: Floats) -> tuple[Floats, Floats]:
    """Both losses rise while the learning rate warms up (a tenth of the run), then fall."""
    bump = 0.15 * np.sin(np.pi * np.clip(x / 0.15, 0.0, 1.0))
    return 1.3 + 0.7 * np.exp(-4.0 * x) + bump, 1.2 + 0.7 * np.exp(-4.0 * x) + bump


def second_descent(x: Floats) -> tuple[Floats, Floats]:
    """Settled for a third of the run, then it falls again."""
    fall = 0.6 * np.exp(-12.0 * x) + 0.3 / (1.0 + np.exp(25.0 * (x - 0.7)))
    return 1.3 + fall, 1.2 + fall


def mild_rise(x: Floats) -> tuple[Floats, Floats]:
    """The validation loss rises by 6 % from its turn to the end."""
    return _rising(x, 0.06)


def strong_rise(x: Floats) -> tuple[Floats, Floats]:
    """The same by 40 %."""
    return _rising(x, 0.40)


def _rising(x: Floats, height: float) -> tuple[Floats, Floats]:
    turn = x[turn_of(x.size)]
    fallen = 1.4 + 0.9 * np.exp(-10.0 * np.minimum(x, turn))
    return fallen * (1.0 + height * np.maximum(x - turn, 0.0) / (1.0 - turn)), 1.3 * np.exp(-1.2 * x) + 0.9 * np.exp(
        -10.0 * x
    )


def divergence(x: Floats) -> tuple[Floats, Floats]:
    """Both losses blow up after 60 % of the run."""
    blown = 6.0 / (1.0 + np.exp(-60.0 * (x - 0.65)))
    return 1.5 + np.exp(-8.0 * x) + blown, 1.4 + np.exp(-8.0 * x) + blown


HARMLESS: dict[str, Shape] = {
    "healthy": healthy,
    "constant gap": constant_gap,
    "plateau": plateau,
    "staircase": staircase,
    "warm-up bump": warm_up_bump,
    "second descent": second_descent,
}
RISING: dict[str, Shape] = {"mild rise": mild_rise, "strong rise": strong_rise}
SHAPES: dict[str, Shape] = {**HARMLESS, **RISING, "divergence": divergence}


def turn_of(n: int) -> int:
    """Index of the last evaluation before the rise, of n."""
    return int(TURN * n) - 1


def errors(rng: np.random.Generator, n: int, correlation: float) -> Floats:
    """Draw AR(1) errors with standard deviation 1, shape (n,)."""
    shocks = rng.standard_normal(n)
    drawn = np.empty(n)
    drawn[0] = shocks[0]
    for i in range(1, n):
        drawn[i] = correlation * drawn[i - 1] + np.sqrt(1.0 - correlation**2) * shocks[i]
    return drawn


def simulate(name: str, n: int, noise: float, correlation: float, seed: int) -> Simulated:
    """Draw a run of a named shape.

    Parameters
    ----------
    name : str
        One of ``SHAPES``.
    n : int
        Evaluations.
    noise : float
        Standard deviation of one evaluation, as a share of the loss.
    correlation : float
        Of neighbouring errors.
    seed : int
        The same seed gives the same run.
    """
    rng = np.random.default_rng([seed, n, sorted(SHAPES).index(name)])
    return drawn(name, SHAPES[name], noise * errors(rng, n, correlation), rng)


def drawn(name: str, shape: Shape, noise: Floats, rng: np.random.Generator) -> Simulated:
    """Return a run of a shape whose evaluations are off by this noise, a difference of logarithms, shape (n,)."""
    n = noise.size
    at = np.arange(1, n + 1) / n
    smooth, _ = shape(at)
    evaluated = smooth * np.exp(noise)
    lines = np.arange(1, LINES * n + 1)
    _, train_smooth = shape(np.interp(lines / LINES, np.arange(1, n + 1), at))
    train = train_smooth * np.exp(TRAIN_NOISE * rng.standard_normal(lines.size))
    eval_steps, train_steps = SPACING * np.arange(1, n + 1), lines * (SPACING // LINES)
    curves = {"eval_loss": Curve.of(eval_steps, evaluated), "loss": Curve.of(train_steps, train)}
    if name == "warm-up bump":
        share = train_steps / train_steps[-1]
        curves["learning_rate"] = Curve.of(train_steps, 2e-4 * np.minimum(share / 0.1, 1.0))
    run = Run(Path(name), "simulated", name, curves=curves, max_steps=int(eval_steps[-1]))
    rises = name in RISING
    return Simulated(run, Curves(eval_steps, evaluated, train[LINES - 1 :: LINES]), turn_of(n) if rises else None)
