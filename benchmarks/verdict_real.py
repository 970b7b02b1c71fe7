"""Obeyed live on other people's runs: what each stopping rule keeps, and what it spends.

    python benchmarks/verdict_real.py [--json FILE] [--folder FOLDER]

For every run with ten or more evaluations, each rule sees the evaluations one by one. Regret is the validation loss of
the checkpoint kept when the rule stops, less the lowest of the whole run, as a share of that; spent is the step stopped
at over the last step. The folder of runs is $SIGHTLINE_RUNS, else shared/runs beside the project.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from _real_runs import RealRun, folder_of_runs, real_runs
from rules import Rule, rules
from sightline.decisions import Policy, decide
from sightline.diagnosis import diagnose, horizon
from sightline.runs import Action, Diagnosis, Phase

MOST_REGRET, EXTRA_SPENT = 0.005, 0.08
"""Targets: mean regret, and share of the run spent beyond a stop at the best evaluation."""
ENDS = (1.5, 2.0, 3.0)
"""Values of the one constant of the method itself: where the end of a run is when nothing tells."""
CHANCES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What obeying a rule gives on one run."""

    regret: float
    spent: float


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """A run and its diagnosis at every evaluation, each of the run cut off there."""

    real: RealRun
    diagnoses: tuple[Diagnosis, ...]

    def obey(self, policy: Policy) -> Outcome:
        """Stop where a policy says so and keep what it says to keep."""
        steps = self.real.evaluated.steps.tolist()
        for step, diagnosis in zip(steps, self.diagnoses, strict=True):
            decision = decide(self.real.run.until(step), diagnosis, policy)
            if decision.action is Action.STOP:
                return outcome(self.real, step, decision.keep_step)
        decision = decide(self.real.run.until(steps[-1]), self.diagnoses[-1], policy)
        return outcome(self.real, steps[-1], decision.keep_step)


def outcome(real: RealRun, stop: int, keep: int | None) -> Outcome:
    """Price a stop: regret of the kept step, share of the run spent."""
    curve = real.evaluated
    best = float(curve.values.min())
    kept = curve.at(keep) if keep is not None else None
    if kept is None:
        kept = float(curve.until(stop).values.min())
    return Outcome((kept - best) / abs(best), stop / float(curve.steps[-1]))


def obey_rule(real: RealRun, rule: Rule) -> Outcome:
    """Stop where a rule fires and keep the lowest loss so far."""
    at = rule(real.curves)
    stop = int(real.evaluated.steps[-1 if at is None else at])
    return outcome(real, stop, None)


def foresight(real: RealRun) -> Outcome:
    """Stop at the best evaluation."""
    return Outcome(0.0, float(real.evaluated.steps[int(np.argmin(real.evaluated.values))] / real.evaluated.steps[-1]))


def judge_all(runs: Sequence[RealRun], unknown_end: float = horizon.UNKNOWN_END) -> list[Judged]:
    """Diagnose every prefix of every run."""
    usual, horizon.UNKNOWN_END = horizon.UNKNOWN_END, unknown_end
    try:
        return [
            Judged(real, tuple(diagnose(real.run.until(step)) for step in real.evaluated.steps.tolist()))
            for real in runs
        ]
    finally:
        horizon.UNKNOWN_END = usual


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Average over runs."""
    return Outcome(float(np.mean([o.regret for o in outcomes])), float(np.mean([o.spent for o in outcomes])))


def cross_validated(table: Mapping[float, Sequence[Outcome]], owners: Sequence[str]) -> tuple[Outcome, Counter[float]]:
    """Choose a constant on the runs of all other repositories, and use it on those of each.

    Parameters
    ----------
    table : mapping
        What each value of the constant gives on each run.
    owners : sequence of str
        Repository of each run.

    Returns
    -------
    Outcome
        Mean over all runs, each judged with a value chosen without its repository: of those whose mean regret on the
        others is within the target, the one that spends least.
    Counter
        For how many repositories each value was chosen.
    """
    outcomes: list[Outcome] = []
    chosen: Counter[float] = Counter()
    for owner in sorted(set(owners)):
        others = [i for i, name in enumerate(owners) if name != owner]
        means = {value: mean([found[i] for i in others]) for value, found in table.items()}
        allowed = [value for value in means if means[value].regret <= MOST_REGRET] or list(means)
        best = min(allowed, key=lambda value: means[value].spent)
        chosen[best] += 1
        outcomes += [table[best][i] for i, name in enumerate(owners) if name == owner]
    return mean(outcomes), chosen


def forecast_calibration(judged: Sequence[Judged]) -> list[tuple[float, float, float]]:
    """Compare the forecast chance of a better checkpoint with what came, in bins; every run weighs the same.

    Returns
    -------
    list of (mean chance, share that came true, weight in runs)
    """
    said, came, weight = [], [], []
    for one in judged:
        logs = np.log(one.real.evaluated.values)
        smooth = np.convolve(logs, np.full(3, 1 / 3), "valid")
        for i, diagnosis in enumerate(one.diagnoses[:-1]):
            if diagnosis.forecast is None or i < 3:
                continue
            rest = smooth[i - 1 :].min() if i - 1 < smooth.size else logs[i:].min()
            best = min(float(smooth[: i - 1].min()), float(logs[i - 1 : i + 1].mean()))
            said.append(diagnosis.forecast.chance)
            came.append(float(best - rest > diagnosis.forecast.band))
            weight.append(1.0 / logs.size)
    return _binned(np.array(said), np.array(came), np.array(weight))


def confidence_calibration(judged: Sequence[Judged]) -> dict[str, list[tuple[float, float, float]]]:
    """Compare the confidence of each phase with the later course of the run.

    Overfitting was right if no later evaluations are better than the best so far by more than the band; underfitting if
    within a quarter more steps some are; healthy if within a quarter more steps none are, and none of those steps is
    overfitting.
    """
    rows: dict[str, list[tuple[float, float, float]]] = {phase.value: [] for phase in Phase}
    for one in judged:
        steps, logs = one.real.evaluated.steps, np.log(one.real.evaluated.values)
        for i, diagnosis in enumerate(one.diagnoses[:-1]):
            if diagnosis.confidence is None or diagnosis.forecast is None:
                continue
            near = steps <= 1.25 * steps[i]
            after = np.arange(steps.size) > i
            if not (near & after).any():
                continue
            better = logs[: i + 1].min() - logs > diagnosis.forecast.band
            later = [d.phase for d, n, a in zip(one.diagnoses, near, after, strict=True) if n and a]
            right = {
                Phase.OVERFITTING: not (better & after).any(),
                Phase.UNDERFITTING: bool((better & after & near).any()),
                Phase.HEALTHY: not (better & after & near).any() and Phase.OVERFITTING not in later,
            }.get(diagnosis.phase)
            if right is not None:
                rows[diagnosis.phase.value].append((diagnosis.confidence, float(right), 1.0 / steps.size))
    return {phase: _binned(*np.array(found).T) for phase, found in rows.items() if found}


def _binned(
    said: NDArray[np.float64], came: NDArray[np.float64], weight: NDArray[np.float64]
) -> list[tuple[float, float, float]]:
    edges = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0001])
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = (said >= low) & (said < high)
        if inside.any():
            w = weight[inside]
            rows.append((float(said[inside] @ w / w.sum()), float(came[inside] @ w / w.sum()), float(w.sum())))
    return rows


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=folder_of_runs())
    options = parser.parse_args()
    if not options.folder.is_dir():
        print(f"no folder of runs at {options.folder}; set SIGHTLINE_RUNS. Skipped.")
        return 0
    runs = real_runs(options.folder)
    owners = {real.repository for real in runs}
    print(f"{len(runs)} runs of {len(owners)} repositories with 10 or more evaluations\n")
    results = {name: mean([obey_rule(real, rule) for real in runs]) for name, rule in rules().items()}
    perfect = mean([foresight(real) for real in runs])
    judged = judge_all(runs)
    by_chance = {c: [one.obey(Policy(worthwhile_chance=c)) for one in judged] for c in CHANCES}
    obeyed = [one.obey(Policy()) for one in judged]
    sightline, default = {c: mean(found) for c, found in by_chance.items()}, mean(obeyed)
    _print_table(results, sightline, default, perfect)
    print(f"of the default's regrets, each capped at 100 %: mean {np.mean([min(o.regret, 1.0) for o in obeyed]):.3%}")
    by_end = {end: obeyed if end == horizon.UNKNOWN_END else _obey_all(judge_all(runs, end)) for end in ENDS}
    validated = {
        "worthwhile_chance": _print_validated("worthwhile_chance", by_chance, runs),
        "horizon.UNKNOWN_END": _print_validated("horizon.UNKNOWN_END", by_end, runs),
    }
    forecasts, confidences = forecast_calibration(judged), confidence_calibration(judged)
    _print_calibration("chance of a better checkpoint", forecasts)
    for phase, rows in confidences.items():
        _print_calibration(f"confidence in {phase}", rows)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "runs": len(runs),
                    "repositories": len(owners),
                    "perfect_foresight": [perfect.regret, perfect.spent],
                    "sightline": [default.regret, default.spent],
                    "cross_validated": {name: [o.regret, o.spent] for name, o in validated.items()},
                    "sightline_by_chance": {f"{c:g}": [o.regret, o.spent] for c, o in sightline.items()},
                    "rules": {name: [o.regret, o.spent] for name, o in results.items()},
                    "forecast_calibration": forecasts,
                    "confidence_calibration": confidences,
                },
                indent=1,
            )
        )
    return 0


def _print_table(
    results: dict[str, Outcome],
    sightline: dict[float, Outcome],
    default: Outcome,
    perfect: Outcome,
) -> None:
    limit = perfect.spent + EXTRA_SPENT
    print(f"{'rule':36s} {'mean regret':>12s} {'spent':>7s}")
    rows = [*results.items(), *((f"Sightline, chance {c:g}", o) for c, o in sightline.items())]
    rows += [("Sightline, default", default), ("perfect foresight", perfect)]
    for name, found in rows:
        better = found.regret <= default.regret and found.spent <= default.spent
        mark = "  better on both" if better and name in results else ""
        print(f"{name:36s} {found.regret:12.3%} {found.spent:7.3f}{mark}")
    verdict = "met" if default.regret <= MOST_REGRET and default.spent <= limit else "not met"
    print(f"\ntarget: regret <= {MOST_REGRET:.1%} at <= {limit:.3f} spent: {verdict}")


def _obey_all(judged: Sequence[Judged]) -> list[Outcome]:
    return [one.obey(Policy()) for one in judged]


def _print_validated(name: str, table: Mapping[float, Sequence[Outcome]], runs: Sequence[RealRun]) -> Outcome:
    """Print what each value gives on all runs, and what choosing it without each repository gives."""
    print(f"\n{name}: regret, spent")
    for value, found in table.items():
        print(f"  {value:<6g} {mean(found).regret:9.3%} {mean(found).spent:6.3f}")
    validated, chosen = cross_validated(table, [real.repository for real in runs])
    counts = ", ".join(f"{value:g} for {count}" for value, count in sorted(chosen.items()))
    print(f"  chosen without each repository: {validated.regret:.3%} {validated.spent:.3f} ({counts})")
    return validated


def _print_calibration(title: str, rows: Sequence[tuple[float, float, float]]) -> None:
    print(f"\n{title}: said, came true, runs' worth of evaluations")
    for said, came, weight in rows:
        print(f"  {said:6.1%} {came:7.1%} {weight:6.1f}")


if __name__ == "__main__":
    sys.exit(main())
