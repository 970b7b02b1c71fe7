"""BLEU and chrF as sacrebleu computes them, from counts by row: summed over any rows they give the corpus score.

The counts make a paired bootstrap possible that resamples rows and scores each sample as a corpus, as [1]_ does.

References
----------
.. [1] P. Koehn, Statistical significance tests for machine translation evaluation, EMNLP 2004.
   https://aclanthology.org/W04-3250
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import MissingExtra

BLEU_ORDER = 4
CHRF_ORDER = 6
CHRF_BETA = 2


def bleu_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return sacrebleu's counts of each row.

    Parameters
    ----------
    predictions : sequence of str, length n
    references : sequence of sequences of str, length n
        Right answers of each row, one or several.

    Returns
    -------
    ndarray of float, shape (n, 10)
        Words of the prediction, words of the closest reference, matches of 1- to 4-grams, their totals. Tokenised by
        13a, sacrebleu's default.

    Raises
    ------
    MissingExtra
        If sacrebleu is not installed.
    """
    return _counts(_bleu(), predictions, references)


def chrf_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return sacrebleu's counts of each row: for 1- to 6-grams of characters those of the prediction, of its best
    reference, and of both; shape (n, 18).

    Raises
    ------
    MissingExtra
        If sacrebleu is not installed.
    """  # noqa: D205
    return _counts(_chrf(), predictions, references)


def bleu(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return BLEU of summed counts.

    Parameters
    ----------
    counts : ndarray of float, shape (..., 10)
        Sums of rows of ``bleu_counts``.

    Returns
    -------
    ndarray of float, shape (...)
        0 to 100, smoothed as sacrebleu does by default (``exp``: each order without a match counts half of the one
        before it).
    """
    length, closest = counts[..., 0], counts[..., 1]
    matches, totals = counts[..., 2 : 2 + BLEU_ORDER], counts[..., 2 + BLEU_ORDER :]
    with np.errstate(divide="ignore", invalid="ignore"):
        misses = np.cumsum(matches == 0, axis=-1)
        precision = np.where(matches > 0, matches, 0.5**misses) / totals
        logs = np.log(100.0 * precision)
        brevity = np.where(length < closest, np.exp(1.0 - closest / length), 1.0)
        score = brevity * np.exp(logs.mean(axis=-1))
    possible = (matches > 0).any(axis=-1) & (totals > 0).all(axis=-1) & (length > 0)
    return np.where(possible, score, 0.0)


def chrf(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return chrF2 of summed counts of shape (..., 18): 0 to 100, precision and recall averaged over the orders."""
    written, wanted, shared = counts[..., 0::3], counts[..., 1::3], counts[..., 2::3]
    usable = (written > 0) & (wanted > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = usable.sum(axis=-1)
        precision = np.where(usable, shared / written, 0.0).sum(axis=-1) / orders
        recall = np.where(usable, shared / wanted, 0.0).sum(axis=-1) / orders
        factor = CHRF_BETA**2
        score = 100.0 * (1 + factor) * precision * recall / (factor * precision + recall)
    return np.asarray(np.nan_to_num(score, nan=0.0), np.float64)


def token_mean(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the loss in nats per token of summed (loss, tokens), shape (..., 2)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(counts[..., 0] / counts[..., 1], np.float64)


def _counts(metric: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Ask sacrebleu for the counts that it sums for a corpus; rows may have different numbers of references."""
    if not predictions:
        return np.zeros((0, 0))
    most = max(map(len, references))
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    # The method its own significance tests are built on (sacrebleu.significance); its corpus score sums these rows.
    return np.asarray(metric._extract_corpus_statistics(predictions, streams), np.float64)


@lru_cache(maxsize=1)
def _bleu() -> Any:
    return _sacrebleu().BLEU()


@lru_cache(maxsize=1)
def _chrf() -> Any:
    return _sacrebleu().CHRF(char_order=CHRF_ORDER, beta=CHRF_BETA)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise MissingExtra("the metrics bleu and chrf", "sacrebleu", "gold") from error
    return metrics
