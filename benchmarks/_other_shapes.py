"""Made-up runs for the calibration: the usual shapes and others that the method was not shaped on.

Each is drawn at three noises, with neighbouring errors that are alike or not, of normal or of heavy tails; half are told
when they end.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from _real_runs import RealRun
from _simulated import HARMLESS, RISING, SPACING, TRAIN_NOISE, Floats, Shape, errors
from sightline.runs import Curve, Run

NOISES = (0.002, 0.005, 0.02)
LENGTHS = (12, 25, 50)
SEEDS = 4
HEAVY = 3.0  # degrees of freedom of the heavy tails


def power_law(x: Floats) -> tuple[Floats, Floats]:
    """A power of the steps above a floor, as of pre-training."""
    return 1.0 + 0.6 * (x / x[0]) ** -0.4, 0.95 + 0.6 * (x / x[0]) ** -0.4


def slow(x: Floats) -> tuple[Floats, Floats]:
    """Falls with the logarithm of the steps, by little, and never settles."""
    fall = 0.05 * np.log(x / x[0])
    return 2.0 - fall, 1.9 - fall


def annealed(x: Floats) -> tuple[Floats, Floats]:
    """Settled at a high learning rate, it falls once more as the rate decays over the last third."""
    fall = 0.8 * np.exp(-15.0 * x) + 0.15 * np.clip((1.0 - x) / 0.33, 0.0, 1.0)
    return 1.5 + fall, 1.4 + fall


def late_start(x: Floats) -> tuple[Floats, Floats]:
    """Nothing is learnt for a fifth of the run, then all of it."""
    fall = 1.0 / (1.0 + np.exp(25.0 * (x - 0.3)))
    return 1.0 + fall, 0.9 + fall


def overshoot(x: Floats) -> tuple[Floats, Floats]:
    """Rises for a while after the first fall, with the training loss, and comes back lower."""
    fall = np.exp(-10.0 * x) - 0.15 * x + 0.12 * np.exp(-((x - 0.4) ** 2) / 0.005)
    return 1.5 + fall, 1.4 + fall


def broken_line(x: Floats) -> tuple[Floats, Floats]:
    """Falls evenly, then stops at once."""
    fall = 0.5 * np.maximum(0.6 - x, 0.0)
    return 1.3 + fall, 1.2 + fall - 0.05 * x


OTHER: dict[str, Shape] = {
    "power law": power_law,
    "slow": slow,
    "annealed": annealed,
    "late start": late_start,
    "overshoot": overshoot,
    "broken line": broken_line,
}
ALL: dict[str, Shape] = {**HARMLESS, **RISING, **OTHER}


def simulated_runs() -> list[RealRun]:
    """Draw every shape at every noise, length and seed."""
    return [_draw(name, n, noise, seed) for name in ALL for n in LENGTHS for noise in NOISES for seed in range(SEEDS)]


def _draw(name: str, n: int, noise: float, seed: int) -> RealRun:
    rng = np.random.default_rng([seed, n, round(1e4 * noise), sorted(ALL).index(name)])
    validation, train = ALL[name](np.arange(1, n + 1) / n)
    drawn = errors(rng, n, 0.5 if seed % 2 else 0.0)
    if seed >= SEEDS // 2:
        drawn *= np.sqrt((HEAVY - 2.0) / rng.chisquare(HEAVY, n))
    steps = SPACING * np.arange(1, n + 1)
    evaluated = Curve.of(steps, validation * np.exp(noise * drawn))
    curves = {"eval_loss": evaluated, "loss": Curve.of(steps, train * np.exp(TRAIN_NOISE * rng.standard_normal(n)))}
    run = Run(Path(name), "simulated", name, curves=curves)
    return RealRun(replace(run, max_steps=int(steps[-1])) if seed % 2 else run, evaluated, name)
