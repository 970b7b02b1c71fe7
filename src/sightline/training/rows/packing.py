"""How many blocks rows make when they are packed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def packed_blocks(lengths: ArrayLike, block: int) -> int:
    """Return the number of blocks that best-fit-decreasing packing fills, as TRL's ``bfd`` strategy does.

    Parameters
    ----------
    lengths : array_like of int, shape (n,)
        Tokens of each row; longer ones are cut to the block.
    block : int
        Tokens of a block.

    Returns
    -------
    int
        At least 1 for at least one row.
    """
    counts = np.bincount(np.minimum(np.asarray(lengths, dtype=np.int64), block), minlength=block + 1)
    space = np.zeros(block + 1, dtype=np.int64)  # open blocks by the room that is left in them
    for length in np.flatnonzero(counts)[::-1]:
        for _ in range(int(counts[length])):
            fitting = np.flatnonzero(space[length:])
            room = block if fitting.size == 0 else int(fitting[0]) + int(length)
            if fitting.size:
                space[room] -= 1
            space[room - length] += 1
    return int(space.sum())
