"""What a validation curve may look like: falls, and rises after each turning point, ready to be fitted.

A fall is the logarithm of a loss that falls to a floor: log(1 + c l), l an exponential, a power or a line in the steps.
Every shape is whitened for every correlation of the errors (noise.whiten), and the constant is taken out of it. Steps are
counted in mean distances of two evaluations, so that evaluations at uneven steps see the same shapes; the shapes of even
ones are kept for the next curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sightline.diagnosis.noise import WINDOW, log_root_determinants, whiten
from sightline.diagnosis.series import Floats

AFTER = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40)  # evaluations after a turning point that is tried
DECAYS = tuple(1.6**k for k in range(8))  # exponential falls, in evaluations: neighbours 60 % apart
FINE_DECAYS = tuple(1.25**k for k in range(-4, 16))  # where a few evaluations must tell their own noise
POWERS = (0.5, 1.0)  # falls as a power of the number of evaluations
SETTLES = 4.0  # evaluations in which a rise that settles does so by 63 %
RISES = (0.6, 0.2, 0.2)  # how probable: a ramp, a rise that settles, a step (memorising goes on)
BENDS: Floats = np.array([0.05, 0.15, 0.3, 0.6, 1.0, 2.0, 4.0])  # c: starts of a fall, as shares of its lowest loss


@dataclass(frozen=True, eq=False, slots=True)
class Shapes:
    """What n evaluations may look like, whitened for every correlation r, turning point o, fall t and rise s."""

    level: Floats  # (r, n), length 1
    falls: Floats  # (r, o, t, n), orthogonal to level, length 1
    rises: Floats  # (r, o, s, n), orthogonal to level
    overlaps: Floats  # (r, o, s, t), rises with falls
    lengths: Floats  # (r, o, s), squared lengths of the rises
    probable: Floats  # (s,), of the rises
    log_scale: Floats  # (r,)


def turning_points(n: int) -> tuple[int, ...]:
    """Indices of the last evaluation before a rise that are tried for n evaluations."""
    return tuple(n - 1 - after for after in AFTER if n - after >= 2)


def bends_of(curves: Floats) -> Floats:
    """Return c of each curve (b, n), the nearest of BENDS."""
    above = np.expm1(curves[:, 0] - curves.min(axis=1))
    return np.asarray(BENDS[np.abs(np.log1p(above[:, None]) - np.log1p(BENDS)).argmin(axis=1)])


def shapes_at(
    n: int,
    at: Floats | None,
    turns: tuple[int, ...],
    bend: float,
    *,
    decays: tuple[float, ...] = DECAYS,
    slow_starts: bool = False,
) -> Shapes:
    """Return the shapes of n evaluations.

    Parameters
    ----------
    n : int
        Evaluations.
    at : ndarray of float, shape (n,), or None
        Where they lie (noise.places), None where evenly.
    turns : tuple of int
        Turning points: index of the last evaluation that has not risen.
    bend : float
        c of the falls.
    decays : tuple of float
        Times of the exponentials, in evaluations.
    slow_starts : bool
        Whether rises that accelerate (squares) are among them.
    """
    if at is not None:
        return _shapes(at, turns, bend, decays, slow_starts=slow_starts)
    return _even_slow_starts(n, turns, bend) if slow_starts else _even_shapes(n, turns, bend, decays)


@lru_cache(maxsize=2 * WINDOW)
def _even_shapes(n: int, turns: tuple[int, ...], bend: float, decays: tuple[float, ...]) -> Shapes:
    return _shapes(np.arange(n, dtype=np.float64), turns, bend, decays, slow_starts=False)


@lru_cache(maxsize=4)
def _even_slow_starts(n: int, turns: tuple[int, ...], bend: float) -> Shapes:
    return _shapes(np.arange(n, dtype=np.float64), turns, bend, DECAYS, slow_starts=True)


def _shapes(at: Floats, turns: tuple[int, ...], bend: float, decays: tuple[float, ...], *, slow_starts: bool) -> Shapes:
    n = at.size
    turn = at[list(turns)][:, None]
    before = np.minimum(at, turn)  # (o, n): the fall ends at the turning point
    losses = (
        [np.exp(-before / decay) for decay in decays]
        + [(before + 1.0) ** -power for power in POWERS]
        + [1.0 - before / n]
    )
    falls = [np.log1p(bend * loss) for loss in losses]
    after = np.maximum(at - turn, 0.0)
    rises = [after, 1.0 - np.exp(-after / SETTLES), (after > 0.0).astype(np.float64)]
    probable = np.array(RISES)
    if slow_starts:
        rises.append(after**2 / n)
        probable = np.array([0.5 * RISES[0], *RISES[1:], 0.5 * RISES[0]])
    level, log_scale = _level(n)
    white_falls = _without_level(whiten(np.stack(falls, axis=1)), level)
    white_falls /= np.sqrt(np.einsum("rotn,rotn->rot", white_falls, white_falls))[..., None]
    white_rises = _without_level(whiten(np.stack(rises, axis=1)), level)
    return Shapes(
        level,
        white_falls,
        white_rises,
        np.einsum("rosn,rotn->rost", white_rises, white_falls),
        np.einsum("rosn,rosn->ros", white_rises, white_rises),
        probable,
        log_scale,
    )


def first_rises(n: int, at: Floats | None) -> tuple[Floats, Floats, Floats, Floats]:
    """Level (r, n), rises from the first evaluation on (r, s, n), their squared lengths (r, s), log scale (r,)."""
    return _even_first_rises(n) if at is None else _first_rises(at)


@lru_cache(maxsize=WINDOW)
def _even_first_rises(n: int) -> tuple[Floats, Floats, Floats, Floats]:
    return _first_rises(np.arange(n, dtype=np.float64))


def _first_rises(after: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    level, log_scale = _level(after.size)
    rises = _without_level(whiten(np.stack([after, 1.0 - np.exp(-after / SETTLES)])[None]), level)[:, 0]
    return level, rises, np.einsum("rsn,rsn->rs", rises, rises), log_scale


def products(white: Floats, shapes: Floats) -> Floats:
    """Inner products of whitened curves (r, b, n) with shapes (r, o, t, n): (r, b, o, t)."""
    r, o, t, n = shapes.shape
    return np.asarray((white @ shapes.reshape(r, o * t, n).transpose(0, 2, 1)).reshape(r, -1, o, t))


def _level(n: int) -> tuple[Floats, Floats]:
    """Return the whitened constant (r, n), of length 1, and the log scale it brings (r,)."""
    one = whiten(np.ones(n))
    length = np.sqrt(np.einsum("rn,rn->r", one, one))
    return one / length[:, None], log_root_determinants(n) + np.log(length)


def _without_level(shapes: Floats, level: Floats) -> Floats:
    """Take the constant out of whitened shapes (r, o, t, n)."""
    return np.asarray(shapes - np.einsum("rotn,rn->rot", shapes, level)[..., None] * level[:, None, None, :])
