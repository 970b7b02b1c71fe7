"""Which checkpoint to keep by a gold set, chosen on rows that the report does not use."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

from sightline.errors import DataError
from sightline.gold.comparison import ALPHA, Contest, compare
from sightline.gold.goldset import GoldSet
from sightline.gold.measuring import Measured
from sightline.gold.models import Candidate
from sightline.gold.scoring import Metric
from sightline.runs.gold import Choice, GoldAnswer

CHOOSING_SHARE = 0.4
"""Rows set aside for choosing: fewer than are left to report, which is to be believed."""
FEWEST_ROWS = 10
"""Neither part may have fewer rows."""


def split(gold: GoldSet, share: float = CHOOSING_SHARE) -> tuple[list[int], list[int]]:
    """Divide a gold set into rows to choose by and rows to report.

    Parameters
    ----------
    gold : GoldSet
    share : float
        Of the rows, to choose by.

    Returns
    -------
    choosing, reported : list of int
        Rows, ascending. A row's side follows from a hash of its prompt: neither order nor machine matters, rows
        appended later leave the others where they were, and equal prompts stand on one side.

    Raises
    ------
    DataError
        If a part would have fewer than 10 rows.
    """
    choosing: list[int] = []
    reported: list[int] = []
    for i, example in enumerate(gold.examples):
        digest = hashlib.blake2b(example.prompt.encode("utf-8", "surrogatepass"), digest_size=8, person=b"choosing")
        aside = int.from_bytes(digest.digest(), "little") < share * 2**64
        (choosing if aside else reported).append(i)
    if min(len(choosing), len(reported)) < FEWEST_ROWS:
        raise DataError(
            f"{gold.name}: {len(gold)} rows are too few to choose a checkpoint by one part and report the other "
            f"({len(choosing)} and {len(reported)} rows; each needs {FEWEST_ROWS}); keep_by: loss needs none of them"
        )
    return choosing, reported


def choose(
    candidates: Sequence[Candidate], measured: Sequence[Measured], metric: Metric, *, alpha: float = ALPHA
) -> Choice:
    """Choose among checkpoints by their gold scores and their validation losses.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.
    measured : sequence of Measured
        Scores of each on the rows to choose by.
    metric : Metric
        How they were scored.
    alpha : float
        The gold score overrules the validation loss only where it shows a difference at this level, corrected for
        having looked at all candidates.

    Returns
    -------
    Choice
        The lowest validation loss where the gold rows cannot tell its checkpoint from the one that scores best, else
        that one; the best score, and of equal ones the earliest, where no losses are known.
    """
    sign = -1.0 if metric.lower_is_better else 1.0
    scores = [sign * float(m.aggregate(m.counts.sum(axis=0))) for m in measured]
    best = max(range(len(scores)), key=lambda i: (-math.inf if math.isnan(scores[i]) else scores[i], -i))
    rows = len(measured[best].counts)
    by_loss = [i for i, c in enumerate(candidates) if c.eval_loss is not None and math.isfinite(c.eval_loss)]
    chosen = Choice(candidates[best].name, candidates[best].step, "")
    if not by_loss:
        return replace(chosen, why=f"it has the best {metric.name}; no validation losses are known")
    lowest = min(by_loss, key=lambda i: (candidates[i].eval_loss or 0.0, i))
    told = replace(chosen, by_loss=candidates[lowest].name)
    if scores[lowest] == scores[best]:  # of several that score best the loss tells
        best, told = lowest, replace(told, checkpoint=candidates[lowest].name, step=candidates[lowest].step)
    if lowest == best:
        return replace(told, why=f"it has the best {metric.name} and the lowest validation loss")
    contest = Contest(
        metric.name,
        measured[lowest].counts,
        measured[best].counts,
        measured[best].aggregate,
        is_binary=metric.is_binary,
        lower_is_better=metric.lower_is_better,
    )
    looked = max(1, len(candidates) - 1)
    found = compare([contest], alpha=alpha / looked)[0]
    values = f"{metric.name} {_value(found.tuned.value, metric)} against {_value(found.base.value, metric)}"
    if found.answer is GoldAnswer.BETTER:
        why = f"{values} at the lowest validation loss ({candidates[lowest].name}): the gold score decides"
        return replace(told, why=why)
    why = (
        f"it has the lowest validation loss, and {rows} gold rows cannot tell it from {candidates[best].name} "
        f"({values}, p {min(1.0, found.p_value * looked):.2g})"
    )
    return replace(told, checkpoint=candidates[lowest].name, step=candidates[lowest].step, why=why)


def _value(value: float, metric: Metric) -> str:
    return f"{100 * value:.1f} %" if metric.unit == "%" else f"{value:.4g}"
