"""Sample: the fixed part of a set of rows that is scored at every evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.evaluation import EvalSet, Row

SAMPLE_SEED = 40_127


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """Rows of a set drawn at random once, the same ones for the same set and size."""

    rows: EvalSet
    index: NDArray[np.int64]
    """Which rows of the whole set, ascending, shape (n,)."""
    is_part: bool
    """False when every row is scored."""

    @classmethod
    def of(cls, whole: EvalSet, n: int) -> Sample:
        """Draw ``n`` rows of a set; all of them where it has no more."""
        if n >= len(whole):
            return cls(whole, np.arange(len(whole)), is_part=False)
        order = np.random.Generator(np.random.PCG64(SAMPLE_SEED)).permutation(len(whole))
        index = np.sort(order[:n])
        rows = [Row(whole.ids[i].tolist(), whole.labels[i].tolist()) for i in index]
        places = [whole.places[i] for i in index] if whole.places else ()
        return cls(EvalSet(rows, name=f"{n} rows of the {whole.name}", places=places), index, is_part=True)
