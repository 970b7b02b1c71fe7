"""The gold set's statistics: seconds for 10,000 examples × 10 checkpoints, false answers, coverage of the intervals.

    python benchmarks/gold_statistics.py [--rows 10000] [--checkpoints 10] [--comparisons 1000] [--json FILE]

Speed is that of all tests and intervals of a judgement by a right-or-wrong and a graded metric, in seconds of the
processor: on a quiet machine those of the clock, on a busy one without what others take. SciPy's own BCa bootstrap and
permutation test of one checkpoint are timed beside them. False answers: pairs of equal models, right-or-wrong and
graded, of 12 to 200 rows; at most 5 % may be called better or worse. Coverage: how often the interval of the difference
holds the true one, which a sample of 400,000 rows tells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # seconds of the processor are those of the clock with one thread only
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from sightline.gold.comparison import Contest, compare
from sightline.gold.corpus_scores import token_mean
from sightline.runs.gold import GoldAnswer

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], tuple[Floats, Floats]]

MOST_SECONDS = 2.0
MOST_FALSE = 0.05


def right_or_wrong(rng: np.random.Generator, n: int, gain: float) -> tuple[Floats, Floats]:
    """Two models that find the same rows hard; the second is better by ``gain`` in the logit."""
    hardness = 1.5 * rng.normal(size=n)
    base, tuned = (hardness + shift > rng.logistic(size=n) for shift in (0.0, gain))
    return base.astype(float), tuned.astype(float)


def graded(rng: np.random.Generator, n: int, gain: float) -> tuple[Floats, Floats]:
    """Scores as F1 has them: quarters between 0 and 1, many of them at the ends."""
    skill = rng.beta(0.6, 0.8, size=n)
    base, tuned = (np.clip(skill + rng.normal(shift, 0.3, size=n), 0, 1) for shift in (0.0, gain))
    return np.round(4 * base) / 4, np.round(4 * tuned) / 4


def contest(base: Floats, tuned: Floats, *, is_binary: bool, checkpoint: str = "tuned") -> Contest:
    """Return the two models as a judgement compares them."""
    with_ones = (np.stack([scores, np.ones_like(scores)], axis=1) for scores in (base, tuned))
    return Contest("score", *with_ones, token_mean, is_binary=is_binary, checkpoint=checkpoint)


def seconds_of(rows: int, checkpoints: int) -> float:
    """Return the seconds all comparisons of a judgement take: two metrics, so many checkpoints."""
    rng = np.random.default_rng(0)
    contests = []
    for draw, is_binary in ((right_or_wrong, True), (graded, False)):
        base, _ = draw(rng, rows, 0.0)
        for i in range(checkpoints):
            _, tuned = draw(rng, rows, 0.02 * i)
            contests.append(contest(base, tuned, is_binary=is_binary, checkpoint=f"checkpoint-{i}"))
    began = time.process_time()
    compare(contests)
    return time.process_time() - began


def scipy_seconds(rows: int) -> float:
    """Return the seconds that SciPy's bootstrap and permutation test take for one graded checkpoint."""
    from scipy import stats

    base, tuned = graded(np.random.default_rng(0), rows, 0.02)
    gains = (tuned - base,)
    began = time.process_time()
    stats.bootstrap(gains, np.mean, n_resamples=10_000, method="BCa", batch=100, rng=np.random.default_rng(0))
    stats.permutation_test(
        gains, np.mean, permutation_type="samples", n_resamples=10_000, batch=100, rng=np.random.default_rng(0)
    )
    return time.process_time() - began


def false_answers(draw: Draw, rows: int, comparisons: int) -> float:
    """Return the share of comparisons of equal models that are called better or worse."""
    wrong = 0
    for seed in range(comparisons):
        pair = draw(np.random.default_rng(seed), rows, 0.0)
        found = compare([contest(*pair, is_binary=draw is right_or_wrong)])[0]
        wrong += found.answer is not GoldAnswer.NOT_SHOWN
    return wrong / comparisons


def coverage(draw: Draw, rows: int, gain: float, comparisons: int) -> float:
    """Return how often the interval holds the true difference."""
    base, tuned = draw(np.random.default_rng(10**6), 400_000, gain)
    truth = float(tuned.mean() - base.mean())
    held = 0
    for seed in range(comparisons):
        pair = draw(np.random.default_rng(seed), rows, gain)
        found = compare([contest(*pair, is_binary=draw is right_or_wrong)])[0]
        held += found.low <= truth <= found.high
    return held / comparisons


def table(name: str, sizes: Sequence[int], of: Callable[[Draw, int], float]) -> dict[str, float]:
    """Measure both kinds of score at every size, print them, return them."""
    numbers = {}
    for draw in (right_or_wrong, graded):
        for rows in sizes:
            numbers[f"{draw.__name__}, {rows} rows"] = of(draw, rows)
    print(name)
    for what, share in numbers.items():
        print(f"  {what:28} {100 * share:5.1f} %", flush=True)
    return numbers


def main() -> int:
    """Measure; 1 if the statistics take too long or call too many equal models different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds = min(seconds_of(options.rows, options.checkpoints) for _ in range(3))
    theirs = scipy_seconds(options.rows)
    print(
        f"{options.rows:,} rows × {options.checkpoints} checkpoints, a right-or-wrong and a graded metric: {seconds:.2f} s "
        f"(at most {MOST_SECONDS:g})\n  SciPy, one checkpoint, the graded metric alone: {theirs:.2f} s",
        flush=True,
    )
    false = table(
        f"equal models called better or worse, of {options.comparisons:,}",
        (12, 60, 200),
        lambda draw, rows: false_answers(draw, rows, options.comparisons),
    )
    covered = table(
        "intervals of 95 % that hold the true difference",
        (60, 200),
        lambda draw, rows: coverage(draw, rows, 0.15 if draw is graded else 0.8, options.comparisons),
    )
    if options.json:
        numbers = {"seconds": seconds, "scipy_seconds": theirs, "false_answers": false, "coverage": covered}
        options.json.write_text(json.dumps({"gold_statistics": numbers}, indent=2))
    return int(seconds > MOST_SECONDS or max(false.values()) > MOST_FALSE)


if __name__ == "__main__":
    sys.exit(main())
