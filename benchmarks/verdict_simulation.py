"""False alarms, misses and onsets on simulated runs whose course is known, beside every rule in use today.

    python benchmarks/verdict_simulation.py [--runs N] [--json FILE] [--calibrate]

Every rule sees the evaluations one by one. A false alarm is a call of overfitting at any evaluation of a run whose
validation loss never turns up for good; a stopping rule calls by stopping. Found in time is a rise called within eight
evaluations of its turn, and not before it. ``--calibrate`` shows which margin the alarm needs (rise.MARGIN).

The oracle knows the fall, the turn, the height, the noise and its correlation, and only not whether the loss has risen:
the likelihood ratio, called at 1/0.05 (Ville), which no test with the same error can beat on average.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _simulated import HARMLESS, RISING, SHAPES, Floats, Simulated, simulate, turn_of
from rules import packages, rules
from sightline.decisions import Policy
from sightline.diagnosis import diagnose
from sightline.diagnosis.noise import WINDOW, informative
from sightline.diagnosis.rise import FEWEST, KEPT_AT_LEAST, MARGIN, alarm_level, log_e_value, rise_height
from sightline.diagnosis.series import block_means
from sightline.runs import Onset, Phase

NOISES = (0.002, 0.005, 0.02)
CORRELATIONS = (0.0, 0.5)
LENGTHS = (20, 40, 200)
IN_TIME = 8  # evaluations after the turn
PACKAGE_RUNS = 10  # of each cell: a package reads the whole log again at every evaluation


@dataclass(frozen=True, slots=True)
class Call:
    """The first call of overfitting."""

    at: int
    """Index of the evaluation."""
    onset: Onset | None


def log_e_values(logs: Floats) -> Floats:
    """Return rise.weigh_rise's logarithm of the e-value at every evaluation of many runs at once.

    Parameters
    ----------
    logs : ndarray of float, shape (runs, n)
        Logarithms of validation losses at full precision.

    Returns
    -------
    ndarray of float, shape (runs, n)
        -inf where too few evaluations came before.
    """
    found = np.full(logs.shape, -np.inf)
    for n in range(FEWEST, logs.shape[1] + 1):
        fine = _by_length([informative(row[:n], KEPT_AT_LEAST) for row in logs])
        coarse = [block_means(row[:n], WINDOW)[0] for row in logs]
        if coarse[0].size < n:
            fine = np.logaddexp(fine, _by_length([informative(row, KEPT_AT_LEAST) for row in coarse])) - math.log(2.0)
        found[:, n - 1] = fine
    return found


def _by_length(windows: Sequence[Floats]) -> Floats:
    """Judge windows of one length together: that is ten times as fast."""
    lengths = np.array([window.size for window in windows])
    found = np.empty(lengths.size)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        found[rows] = log_e_value(np.stack([windows[i] for i in rows]))
    return found


def first_calls(runs: Sequence[Simulated]) -> list[Call | None]:
    """Return the first evaluation at which diagnose() of the run so far says overfitting.

    It is only asked where the test for a rise alarms: it says so nowhere else.
    """
    policy = Policy()
    evidence = log_e_values(np.log(np.stack([one.curves.eval_loss for one in runs])))
    return [_first_call(one, logs, policy) for one, logs in zip(runs, evidence, strict=True)]


def _first_call(one: Simulated, evidence: Floats, policy: Policy) -> Call | None:
    logs = np.log(one.curves.eval_loss)
    for i in range(FEWEST - 1, logs.size):
        loud = evidence[i] >= alarm_level(policy.false_alarm, i + 1)
        if loud and rise_height(logs[: i + 1]) > policy.worthwhile_gain:
            found = diagnose(one.run.until(int(one.curves.steps[i])))
            if found.phase is Phase.OVERFITTING:
                return Call(i, found.onset)
    return None


def oracle_calls(runs: Sequence[Simulated], name: str, noise: float, correlation: float) -> list[int | None]:
    """Return where the likelihood ratio of the true rise against none reaches 20."""
    n = runs[0].curves.eval_loss.size
    at = np.arange(1, n + 1) / n
    turn = turn_of(n)
    risen = np.log(SHAPES[name](at)[0])
    flat = np.where(np.arange(n) <= turn, risen, risen[turn])
    found = []
    for one in runs:
        logs = np.log(one.curves.eval_loss)
        squares = [_innovations(logs - mean, noise, correlation) ** 2 for mean in (flat, risen)]
        ratio = np.cumsum(0.5 * (squares[0] - squares[1]))
        loud = np.flatnonzero(ratio >= math.log(20.0))
        found.append(int(loud[0]) if loud.size else None)
    return found


def _innovations(residuals: Floats, noise: float, correlation: float) -> Floats:
    """What each AR(1) error adds to the one before, in its standard deviations."""
    fresh = residuals / noise
    fresh[1:] = (fresh[1:] - correlation * fresh[:-1]) / math.sqrt(1.0 - correlation**2)
    return fresh


def covered(runs: Sequence[Simulated], onsets: Sequence[Onset | None]) -> tuple[float, float]:
    """Return the share of intervals that hold the true turn, and their mean width as a share of the run."""
    inside, widths = [], []
    for one, onset in zip(runs, onsets, strict=True):
        if onset is not None and one.turn is not None:
            inside.append(onset.low <= one.curves.steps[one.turn] <= onset.high)
            widths.append((onset.high - onset.low) / one.curves.steps[-1])
    return (float(np.mean(inside)), float(np.mean(widths))) if inside else (math.nan, math.nan)


def in_time(calls: Sequence[int | None], turn: int) -> float:
    """Return the share of runs called after the turn and within IN_TIME evaluations of it."""
    return float(np.mean([at is not None and turn < at <= turn + IN_TIME for at in calls]))


def measure(count: int) -> dict[str, list[dict[str, object]]]:
    """Run every rule on every kind of run."""
    tables: dict[str, list[dict[str, object]]] = defaultdict(list)
    everyone, packaged = rules(), packages()
    for n in LENGTHS:
        for correlation in CORRELATIONS:
            for noise in NOISES:
                for name in SHAPES:
                    runs = [simulate(name, n, noise, correlation, seed) for seed in range(count)]
                    cell = {"evaluations": n, "noise": noise, "correlation": correlation, "shape": name}
                    calls = first_calls(runs)
                    found: dict[str, list[int | None]] = {"Sightline": [None if c is None else c.at for c in calls]}
                    found |= {title: [rule(one.curves) for one in runs] for title, rule in everyone.items()}
                    if n == 40:
                        few = runs[: min(count, PACKAGE_RUNS)]
                        found |= {title: [rule(one.curves) for one in few] for title, rule in packaged.items()}
                    if name in RISING:
                        found["oracle"] = oracle_calls(runs, name, noise, correlation)
                        tables["onsets"].append(cell | _onsets(runs, calls))
                    for title, at in found.items():
                        tables["calls"].append(cell | {"rule": title} | _summary(at, runs[0].turn))
                print(f"{n} evaluations, correlation {correlation:g}, noise {noise:.1%}: done", file=sys.stderr)
    return tables


def _onsets(runs: Sequence[Simulated], calls: Sequence[Call | None]) -> dict[str, object]:
    called = [i for i, call in enumerate(calls) if call is not None]
    at_call = covered([runs[i] for i in called], [calls[i].onset for i in called])  # type: ignore[union-attr]
    at_end = covered([runs[i] for i in called], [diagnose(runs[i].run).onset for i in called])
    return {"at_call": at_call, "at_end": at_end, "called": len(called)}


def _summary(at: Sequence[int | None], turn: int | None) -> dict[str, object]:
    called = [i for i in at if i is not None]
    summary: dict[str, object] = {
        "called": len(called) / len(at),
        "median": float(np.median(called)) if called else None,
    }
    if turn is not None:
        summary |= {
            "in_time": in_time(at, turn),
            "too_early": float(np.mean([i is not None and i <= turn for i in at])),
        }
    return summary


def print_tables(tables: dict[str, list[dict[str, object]]]) -> None:
    """Print false alarms, finds and onsets."""
    calls = tables["calls"]
    print("\nSightline: runs with a false alarm at any evaluation")
    print(f"{'shape':16s} {'evals':>5s} " + " ".join(f"{s:>6.1%}/{r:g}" for r in CORRELATIONS for s in NOISES))
    for name in HARMLESS:
        for n in LENGTHS:
            row = [_cell(calls, "Sightline", name, n, s, r)["called"] for r in CORRELATIONS for s in NOISES]
            print(f"{name:16s} {n:5d} " + " ".join(f"{share:8.1%}" for share in row))
    print("\nall rules, 40 evaluations, correlation 0: runs called (harmless shapes), found in time (rises)")
    columns = [(name, s) for s in (0.005, 0.02) for name in SHAPES if name != "divergence"]
    for name, s in columns:
        print(f"  column: {name}, noise {s:.1%}")
    for title in dict.fromkeys(c["rule"] for c in calls if c["evaluations"] == 40):
        cells = [_cell(calls, str(title), name, 40, s, 0.0) for name, s in columns]
        shares = [None if c is None else c.get("in_time", c["called"]) for c in cells]
        print(f"{title!s:28s} " + " ".join("     -" if share is None else f"{share:6.0%}" for share in shares))
    print("\nfound within 8 evaluations of the turn: Sightline, oracle; median delay; called before the turn")
    for n in LENGTHS:
        for name in RISING:
            for r in CORRELATIONS:
                for s in NOISES:
                    ours, best = (_cell(calls, title, name, n, s, r) for title in ("Sightline", "oracle"))
                    delay = "never" if ours["median"] is None else f"{ours['median'] - turn_of(n):5.0f}"
                    print(
                        f"{name:12s} {n:4d} evaluations, noise {s:.1%}, correlation {r:g}: {ours['in_time']:6.1%} "
                        f"{best['in_time']:6.1%} {delay} {ours['too_early']:6.1%} (called at last {ours['called']:.1%})"
                    )
    print("\nonset interval: holds the true turn, mean width of the run; at the first call, at the end")
    for row in tables["onsets"]:
        (first, first_width), (last, last_width) = row["at_call"], row["at_end"]  # type: ignore[misc]
        print(
            f"{row['shape']:12s} {row['evaluations']:4d} evaluations, noise {row['noise']:.1%}, correlation "
            f"{row['correlation']:g}: {first:6.1%} {first_width:6.1%}   {last:6.1%} {last_width:6.1%} ({row['called']})"
        )


def _cell(calls: list[dict[str, object]], rule: str, shape: str, n: int, noise: float, correlation: float):  # type: ignore[no-untyped-def]
    wanted = {"rule": rule, "shape": shape, "evaluations": n, "noise": noise, "correlation": correlation}
    return next((cell for cell in calls if all(cell[key] == value for key, value in wanted.items())), None)


def calibrate(count: int) -> None:
    """Print what the alarm level would have to be, beyond ln 20, for 5 % of runs with a false alarm in each shape."""
    print(f"margin needed for 5 % false alarms over a whole run (rise.MARGIN is {MARGIN}), and finds at that margin")
    share = Policy().false_alarm
    for n in LENGTHS:
        base = np.array([alarm_level(share, i + 1) - MARGIN for i in range(n)])
        for correlation in CORRELATIONS:
            for noise in NOISES:
                row = []
                for name in HARMLESS:
                    if name == "warm-up bump":
                        continue  # judged by the learning rate, not by this level
                    logs = np.log(
                        np.stack([simulate(name, n, noise, correlation, s).curves.eval_loss for s in range(count)])
                    )
                    high = np.array([[rise_height(row[: i + 1]) if i >= 5 else 0.0 for i in range(n)] for row in logs])
                    above = np.where(high > Policy().worthwhile_gain, log_e_values(logs) - base, -np.inf)
                    needed = np.quantile(above.max(axis=1), 1.0 - share, method="higher")
                    row.append(f"{name} {needed:6.2f}")
                print(f"{n} evaluations, correlation {correlation:g}, noise {noise:.1%}: " + ", ".join(row), flush=True)


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each kind")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args()
    if options.calibrate:
        calibrate(options.runs)
        return 0
    tables = measure(options.runs)
    print_tables(tables)
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
