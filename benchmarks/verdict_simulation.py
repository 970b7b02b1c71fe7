"""False alarms, misses and onsets on simulated runs whose course is known, beside every rule in use today.

    python benchmarks/verdict_simulation.py [--runs N] [--lengths N ...] [--json FILE] [--calibrate | --bound | --others]

Every rule sees the evaluations one by one. A false alarm is a call of overfitting at any evaluation of a run whose
validation loss never turns up for good; a stopping rule calls by stopping. Found in time is a rise called within eight
evaluations of its turn, and not before it. ``--calibrate`` shows which margin the alarm needs (rise.margin)
and which level a single look (rise.ONE_LOOK). ``--bound`` shows what could be found in time at all (_oracle.py): by a
detector that knows the shapes of this simulation. The oracle of the tables knows the run itself. ``--others`` counts false
alarms in harmless runs of shapes and errors that the method was not shaped on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _oracle import knows_all, log_bayes_factors, threshold
from _other_shapes import OTHER
from _simulated import HARMLESS, RISING, SHAPES, Floats, Simulated, drawn, errors, simulate, turn_of
from rules import merged, missing_packages, packages, rules
from sightline.decisions import Policy
from sightline.diagnosis import diagnose
from sightline.diagnosis.rise import FEWEST, ONE_LOOK, alarm_level, log_e_value, margin, rise_height, windows
from sightline.runs import Onset, Phase

NOISES = (0.002, 0.005, 0.02)
CORRELATIONS = (0.0, 0.5)
LENGTHS = {10: 300, 20: 300, 40: 300, 200: 60}
"""Evaluations of a run, and the runs of each kind that are measured where nothing else is asked for."""
MODES = {"calibrate": 300, "bound": 300, "others": 100}
"""What else can be measured, and with how many runs of each kind."""
CALIBRATION = 10_000  # first seed of the runs that levels are found on: none that is measured
IN_TIME = 8  # evaluations after the turn
PACKAGED, PACKAGE_RUNS = 40, 100
"""Evaluations, and most runs of each kind, that the packages judge: they read the whole log again at every evaluation."""


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
        steps = np.arange(n, dtype=np.float64)
        views = zip(*([view.values for view in windows(row[:n], steps)] for row in logs), strict=True)
        each = np.stack([_by_length(view) for view in views])
        found[:, n - 1] = np.logaddexp.reduce(each) - math.log(len(each))
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
        loud = evidence[i] >= alarm_level(policy.false_alarm, i + 1, 0.0)
        if loud and rise_height(logs[: i + 1]) > policy.worthwhile_gain:
            found = diagnose(one.run.until(int(one.curves.steps[i])))
            if found.phase is Phase.OVERFITTING:
                return Call(i, found.onset)
    return None


def oracle_calls(runs: Sequence[Simulated], name: str, noise: float, correlation: float) -> list[int | None]:
    """Return where the likelihood ratio of the true rise against none reaches 20."""
    logs = np.log(np.stack([one.curves.eval_loss for one in runs]))
    return _first_above(knows_all(logs, name, noise, correlation), math.log(20.0))


def _first_above(evidence: Floats, level: float) -> list[int | None]:
    return [int(row.argmax()) if row.any() else None for row in evidence >= level]


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


def measure(lengths: Mapping[int, int]) -> dict[str, list[dict[str, object]]]:
    """Run every rule on every kind of run; ``lengths`` are numbers of evaluations, and how many runs of each kind."""
    tables: dict[str, list[dict[str, object]]] = defaultdict(list)
    everyone, packaged = rules(), packages()
    for n, count in lengths.items():
        for correlation in CORRELATIONS:
            for noise in NOISES:
                for name in SHAPES:
                    runs = [simulate(name, n, noise, correlation, seed) for seed in range(count)]
                    cell = {"evaluations": n, "noise": noise, "correlation": correlation, "shape": name}
                    calls = first_calls(runs)
                    found: dict[str, list[int | None]] = {"Sightline": [None if c is None else c.at for c in calls]}
                    found |= {title: [rule(one.curves) for one in runs] for title, rule in everyone.items()}
                    if n == PACKAGED:
                        few = runs[:PACKAGE_RUNS]
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
        "runs": len(at),
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
    lengths = list(dict.fromkeys(cell["evaluations"] for cell in calls))
    print("\nSightline: runs with a false alarm at any evaluation")
    print(f"{'shape':16s} {'evals':>5s} " + " ".join(f"{s:>6.1%}/{r:g}" for r in CORRELATIONS for s in NOISES))
    for name in HARMLESS:
        for n in lengths:
            row = [_cell(calls, "Sightline", name, n, s, r)["called"] for r in CORRELATIONS for s in NOISES]
            print(f"{name:16s} {n:5d} " + " ".join(f"{share:8.1%}" for share in row))
    if PACKAGED in lengths:
        _print_rules(calls)
    print("\nfound within 8 evaluations of the turn: Sightline, oracle; median delay; called before the turn")
    for n in lengths:
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


def _print_rules(calls: list[dict[str, object]]) -> None:
    """Print what every rule calls, at the length that the packages judge too."""
    print(f"\nall rules, {PACKAGED} evaluations, correlation 0: runs called (harmless shapes), found in time (rises)")
    columns = [(name, s) for s in (0.005, 0.02) for name in SHAPES if name != "divergence"]
    for name, s in columns:
        print(f"  column: {name}, noise {s:.1%}")
    rows = {}
    for title in dict.fromkeys(str(c["rule"]) for c in calls if c["evaluations"] == PACKAGED):
        cells = [_cell(calls, title, name, PACKAGED, s, 0.0) for name, s in columns]
        rows[title] = [None if c is None else c.get("in_time", c["called"]) for c in cells]
    for title, shares in merged(rows).items():
        print(f"{title:32s} " + " ".join("     -" if share is None else f"{share:6.0%}" for share in shares))
    missing = missing_packages()
    skipped = f"; skipped, not installed here (`make bench` installs them): {', '.join(missing)}" if missing else ""
    print(f"packages: the first {PACKAGE_RUNS} runs of each kind{skipped}")


def _cell(calls: list[dict[str, object]], rule: str, shape: str, n: int, noise: float, correlation: float):  # type: ignore[no-untyped-def]
    wanted = {"rule": rule, "shape": shape, "evaluations": n, "noise": noise, "correlation": correlation}
    return next((cell for cell in calls if all(cell[key] == value for key, value in wanted.items())), None)


def calibrate(count: int) -> None:
    """Print what log e must reach for 5 % of runs with a false alarm: as a margin beyond ln 20, and in one look."""
    policy = Policy()
    share, noises = policy.false_alarm, (*NOISES[:2], 0.01, NOISES[2])
    given = ", ".join(f"{margin(noise / policy.worthwhile_gain):.2f} at {noise:.1%}" for noise in noises)
    print(f"margin needed over a whole run ({given} are given) / level needed in one look at its end")
    print(f"(ONE_LOOK is {ONE_LOOK}), both for 5 % false alarms; -inf: a height that matters is never reached")
    for n, correlation, noise in itertools.product(LENGTHS, CORRELATIONS, noises):
        base = np.array([alarm_level(share, i + 1, 0.0) for i in range(n)])
        row = []
        for name in HARMLESS:
            if name == "warm-up bump":
                continue  # judged by the learning rate, not by this level
            curves = [simulate(name, n, noise, correlation, CALIBRATION + s).curves.eval_loss for s in range(count)]
            logs = np.log(np.stack(curves))
            high = np.array([[rise_height(one[: i + 1]) if i >= FEWEST - 1 else 0.0 for i in range(n)] for one in logs])
            evidence = np.where(high > policy.worthwhile_gain, log_e_values(logs), -np.inf)
            needed = np.quantile((evidence - base).max(axis=1), 1.0 - share, method="higher")
            one_look = np.quantile(evidence[:, -1], 1.0 - share, method="higher")
            row.append(f"{name} {needed:5.2f} / {one_look:5.2f}")
        print(f"{n} evaluations, correlation {correlation:g}, noise {noise:.1%}: " + ", ".join(row), flush=True)


def bound(count: int) -> dict[str, list[dict[str, object]]]:
    """Print what share of mild rises at 0.5 % noise the Bayes factor finds in time, by what it knows."""
    n, noise, name = 40, 0.005, "mild rise"
    print(f"{name} of {n} evaluations, noise {noise:.1%}: found in time, with the standard error, at each correlation")
    rows: list[dict[str, object]] = []
    for known, correlations in itertools.product((False, True), (CORRELATIONS, *((r,) for r in CORRELATIONS))):
        level = threshold(n, correlations, NOISES, known, count)
        told = "known" if len(correlations) == 1 else "one of " + ", ".join(f"{r:g}" for r in correlations)
        shares = []
        for r in correlations:
            logs = np.log(np.stack([simulate(name, n, noise, r, s).curves.eval_loss for s in range(count)]))
            factors = log_bayes_factors(logs, correlations, NOISES if known else None)
            found = in_time(_first_above(factors, level), turn_of(n))
            error = math.sqrt(max(found * (1.0 - found), 0.25 / count) / count)
            shares.append(f"{r:g}: {found:.1%} +- {error:.1%}")
            rows.append({"noise_known": known, "correlations": correlations, "correlation": r, "in_time": found})
            rows[-1] |= {"standard_error": error, "runs": count}
        size = "one of three" if known else "unknown"
        print(f"noise {size}, correlation {told}, level {level:.2f}: " + ", ".join(shares), flush=True)
    return {"bound": rows}


def others(count: int) -> None:
    """Print false alarms in harmless runs of other shapes and errors: live, and once they are over."""
    print("40 evaluations: runs with a false alarm, live / finished; normal errors, then Student's t with 4 degrees")
    for noise, correlation in itertools.product((0.005, 0.02), (0.0, 0.5, 0.7)):
        row = []
        for name in ("power law", "slow", "annealed", "late start", "broken line"):
            for tails in (None, 4.0):
                runs = [_other(name, noise, correlation, tails, seed) for seed in range(count)]
                live = sum(call is not None for call in first_calls(runs)) / count
                over = sum(diagnose(one.run).phase is Phase.OVERFITTING for one in runs) / count
                row.append(f"{name} {live:.1%} / {over:.1%}" if tails is None else f"{live:.1%} / {over:.1%};")
        print(f"noise {noise:.1%}, correlation {correlation:g}: " + " ".join(row), flush=True)


def _other(name: str, noise: float, correlation: float, tails: float | None, seed: int) -> Simulated:
    rng = np.random.default_rng([seed, sorted(OTHER).index(name)])
    off = noise * errors(rng, 40, correlation)
    if tails is not None:
        off *= np.sqrt((tails - 2.0) / rng.chisquare(tails, off.size))
    return drawn(name, OTHER[name], off, rng)


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, help=f"of each kind; {LENGTHS} by their evaluations, or {MODES}")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="evaluations of a run")
    parser.add_argument("--json", type=Path)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--calibrate", action="store_const", dest="mode", const="calibrate", help="levels the alarm needs"
    )
    mode.add_argument("--bound", action="store_const", dest="mode", const="bound", help="what an oracle finds")
    mode.add_argument("--others", action="store_const", dest="mode", const="others", help="runs of other shapes")
    options = parser.parse_args()
    count = options.runs or MODES.get(options.mode)
    tables: dict[str, list[dict[str, object]]] | None = None
    if options.mode == "calibrate":
        calibrate(count)
    elif options.mode == "others":
        others(count)
    elif options.mode == "bound":
        tables = bound(count)
    else:
        tables = measure({n: options.runs or LENGTHS.get(n, 100) for n in options.lengths})
        print_tables(tables)
    if options.json and tables is not None:
        options.json.write_text(json.dumps(tables, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
