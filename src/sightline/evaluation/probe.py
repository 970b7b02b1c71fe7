"""The train probe: a fixed sample of training rows, scored like the validation rows for a gap on equal terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from sightline.evaluation.batches import IGNORED

PROBE_ROWS = 256
"""Most rows of a probe."""
PROBE_SEED = 20_077

R = TypeVar("R")


def train_probe(train_rows: Sequence[R], eval_rows: Sequence[Any], *, max_rows: int = PROBE_ROWS) -> list[R]:
    """Draw the rows of the train probe.

    Parameters
    ----------
    train_rows : sequence of rows
        What is learnt.
    eval_rows : sequence of rows
        The validation rows: the probe has as many labelled tokens, as near as whole rows come.
    max_rows : int
        Most rows to draw.

    Returns
    -------
    list of rows
        Drawn without replacement and without regard to their content, in the order of the training rows. The same
        rows give the same sample whatever the run's seed is, so that a resumed run and a second one can be compared.
    """
    wanted = sum(labelled_tokens(row) for row in eval_rows)
    order = np.random.Generator(np.random.PCG64(PROBE_SEED)).permutation(len(train_rows))
    chosen: list[int] = []
    tokens = 0
    for index in order:
        if len(chosen) >= max_rows or tokens >= wanted:
            break
        count = labelled_tokens(train_rows[index])
        if count:
            chosen.append(int(index))
            tokens += count
    return [train_rows[index] for index in sorted(chosen)]


def labelled_tokens(row: Any) -> int:
    """Return how many tokens of a row a causal model is scored on."""
    labels = row["labels"] if isinstance(row, dict) else row.labels if hasattr(row, "labels") else row[1]
    return int(np.count_nonzero(np.asarray(labels)[1:] != IGNORED))
