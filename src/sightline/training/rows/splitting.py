"""Validation rows split off from training rows so that equal prompts never stand on both sides.

The side of a row follows from the hash of its normalised prompt and the seed: neither the order of the file nor the
machine matters, and rows appended later leave nearly all others where they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.errors import DataError

MIN_DEFAULT, MAX_DEFAULT, DEFAULT_SHARE = 50, 500, 0.10


def validation_rows(n: int, eval_size: float | None) -> int:
    """Return how many of ``n`` rows go to validation.

    Parameters
    ----------
    n : int
        Rows at hand.
    eval_size : float or None
        A share below 1, a number of rows, or None: a tenth, at least 50 and at most 500 rows, but never more than a
        fifth of a small set.

    Returns
    -------
    int
        0 only where ``eval_size`` is 0.

    Raises
    ------
    DataError
        If no row would be left to train on.
    """
    if eval_size == 0:
        return 0
    if eval_size is None:
        wanted = min(max(round(n * DEFAULT_SHARE), min(MIN_DEFAULT, n // 5)), MAX_DEFAULT)
    else:
        wanted = round(n * eval_size) if eval_size < 1 else int(eval_size)
    wanted = max(1, wanted)
    if wanted >= n:
        rows = f"{n} row{'s' if n != 1 else ''}"
        raise DataError(
            f"{rows} cannot be split into training and validation ({wanted} asked for); give more rows or an "
            "eval_dataset"
        )
    return wanted


def split(prompt_hashes: Sequence[int] | NDArray[np.uint64], wanted: int, seed: int) -> NDArray[np.bool_]:
    """Return which rows go to validation.

    Parameters
    ----------
    prompt_hashes : sequence of int, shape (n,)
        Hash of each row's normalised prompt; rows of one hash stay together.
    wanted : int
        Validation rows to aim at; groups larger than what is still wanted are passed over.
    seed : int
        Another seed gives another split.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for validation rows; at least one True and one False.

    Raises
    ------
    DataError
        If all rows have one prompt.
    """
    hashes = np.asarray(prompt_hashes, dtype=np.uint64)
    groups, member, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    if groups.size < 2:
        raise DataError(
            f"all {hashes.size} rows have the same prompt, so no validation rows can be kept apart; give an "
            "eval_dataset"
        )
    chosen = np.zeros(groups.size, dtype=bool)
    left = wanted
    for i in np.argsort(_mixed(groups, seed), kind="stable"):
        if counts[i] <= left:
            chosen[i] = True
            left -= int(counts[i])
            if left == 0:
                break
    if not chosen.any():  # every group is larger than what was wanted
        chosen[np.argmin(counts)] = True
    return chosen[member]


def _mixed(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Hashes and seed well mixed (splitmix64, S. Vigna)."""
    z = hashes + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) & 0xFFFFFFFFFFFFFFFF)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
