"""What a verdict costs: of a long finished run, and of one more evaluation while a run goes on.

python benchmarks/verdict_speed.py [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import numpy as np

from sightline.decisions import judge_run
from sightline.runs import Curve, Run

LONG_MS, ONE_MORE_MS = 50.0, 5.0
"""Targets: 1,000 evaluations with 100,000 training losses; one more evaluation while live."""


def long_run(evaluations: int, lines: int) -> Run:
    """Return a run that falls and turns up a little, with training losses and gradient norms."""
    rng = np.random.default_rng(0)
    x = np.arange(1, evaluations + 1) / evaluations
    evaluated = (1.5 + np.exp(-8.0 * x) + 0.1 * np.maximum(x - 0.6, 0.0)) * np.exp(0.005 * rng.standard_normal(x.size))
    each = lines // evaluations
    steps = np.arange(1, lines + 1)
    train = 1.5 * np.exp(-steps / lines) * np.exp(0.03 * rng.standard_normal(lines))
    norms = np.exp(0.3 * rng.standard_normal(lines))
    curves = {
        "eval_loss": Curve.of(each * np.arange(1, evaluations + 1), evaluated),
        "loss": Curve.of(steps, train),
        "grad_norm": Curve.of(steps, norms),
        "learning_rate": Curve.of(steps, 1e-4 * (1.0 - steps / (lines + 1))),
    }
    return Run(Path("long"), "made", "long", curves=curves, max_steps=lines)


def best_of(repeats: int, call: Callable[[], object]) -> float:
    """Return the shortest of several processor times in milliseconds: others use the machine too."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def one_more(run: Run, evaluations: int) -> float:
    """Return the median over ten evaluations of the time of a verdict, the one before having been judged before."""
    steps = run.curves["eval_loss"].steps.tolist()[:evaluations]
    times = []
    for before, now in itertools.pairwise([run.until(step) for step in steps[-11:]]):
        tries = []
        for _ in range(3):
            judge_run(before)
            tries.append(best_of(1, lambda: judge_run(now)))  # noqa: B023
        times.append(min(tries))
    return float(np.median(times))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    run = long_run(1000, 100_000)
    judge_run(run)
    found = {"1,000 evaluations and 100,000 training losses": (best_of(10, lambda: judge_run(run)), LONG_MS)}
    for evaluations, lines in ((40, 400), (200, 4000), (1000, 10_000), (1000, 100_000), (1000, 1_000_000)):
        live = long_run(evaluations, lines)
        found[f"one more, the {evaluations}th, {lines:,} log lines"] = (one_more(live, evaluations), ONE_MORE_MS)
    print(f"{'a verdict on':48s} {'ms':>7s} {'target':>7s}")
    for name, (ms, target) in found.items():
        print(f"{name:48s} {ms:7.2f} {target:7.1f}{'' if ms <= target else '  missed'}")
    if options.json:
        options.json.write_text(json.dumps({name: ms for name, (ms, _) in found.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
