"""Obeyed live on other people's runs: what each stopping rule keeps, and what it spends.

    python benchmarks/verdict_real.py [--json FILE] [--folder FOLDER | --simulated] [--cross-validate]

For every run with ten or more evaluations, each rule sees the evaluations one by one; the packages ftdoctor and
trainproof read the whole log so far at each. Regret is the validation loss of
the checkpoint kept when the rule stops, less the lowest of the whole run, as a share of that; spent is the step stopped
at over the last step. The folder of runs is $SIGHTLINE_RUNS, else shared/runs beside the project; --simulated takes
runs of many made-up shapes instead, a shape counting as a repository. --cross-validate tries other values of every free
constant and chooses among them without each repository in turn. Intervals are of 90 %, drawing repositories again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _calibration import (
    REDRAWN,
    Bin,
    confidence_calibration,
    forecast_calibration,
    proper_scores,
    said_of_better,
    sums_by,
)
from _other_shapes import simulated_runs
from _real_runs import RealRun, folder_of_runs, real_runs
from rules import Rule, merged, missing_packages, packages, rules
from sightline.decisions import Policy, decide
from sightline.diagnosis import diagnose, direction, evidence, forecast, trend
from sightline.runs import Action, Diagnosis, Phase

MOST_REGRET, EXTRA_SPENT = 0.005, 0.08
"""Targets: mean regret, and share of the run spent beyond a stop at the best evaluation."""
CONSTANTS: tuple[tuple[ModuleType, str, tuple[float, ...]], ...] = (
    (evidence, "PRIOR_ODDS", (1.0 / 3.0, 3.0)),
    (direction, "SURE_NOISES", (2.0 / 3.0, 4.0 / 3.0)),
    (direction, "MOVED", (0.5, 2.5)),
    (trend, "FORGETTING", (2.0 / 3.0, 1.5)),
    (trend, "NOISE_FORGETTING", (0.5, 2.0)),
    (trend, "UPWARD", (2.0 / 3.0, 5.0 / 3.0)),
    (forecast, "TAIL_FREEDOM", (4.0 / 3.0, 10.0)),
)
"""Constants of the forecast and the decision that nothing but judgement fixes, and how many times as large they might be."""
Interval = tuple[float, float]
CHANCES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What obeying a rule gives on one run."""

    regret: float
    spent: float


@dataclass(frozen=True, slots=True)
class Mean:
    """What obeying a rule gives on average over runs."""

    regret: float
    spent: float
    capped: float
    """Mean regret, each capped at 100 %: a loss that falls to a thousandth makes one regret of 100,000 %."""
    losing: float
    """Share of runs with a regret above 1 %."""

    def row(self) -> list[float]:
        """Return the four as the JSON has them."""
        return [self.regret, self.spent, self.capped, self.losing]


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


def judge_all(runs: Sequence[RealRun]) -> list[Judged]:
    """Diagnose every prefix of every run."""
    return [
        Judged(real, tuple(diagnose(real.run.until(step)) for step in real.evaluated.steps.tolist())) for real in runs
    ]


def mean(outcomes: Sequence[Outcome]) -> Mean:
    """Average over runs."""
    regrets = np.array([o.regret for o in outcomes])
    spent = float(np.mean([o.spent for o in outcomes]))
    return Mean(float(regrets.mean()), spent, float(np.minimum(regrets, 1.0).mean()), float((regrets > 0.01).mean()))


def judge_with(runs: Sequence[RealRun], module: ModuleType, name: str, factor: float) -> list[Judged]:
    """Diagnose every prefix of every run with a constant so many times as large."""
    usual = getattr(module, name)
    setattr(module, name, factor * usual)
    _forget()
    try:
        return judge_all(runs)
    finally:
        setattr(module, name, usual)
        _forget()


def _forget() -> None:
    """Drop what was computed with the constants as they were."""
    trend._memory.clear()
    forecast._shocks.cache_clear()


def cross_validated(
    table: Mapping[str, Sequence[Outcome]], owners: Sequence[str]
) -> tuple[list[Outcome], Counter[str]]:
    """Choose constants on the runs of all other repositories, and use them on those of each.

    Parameters
    ----------
    table : mapping
        What each choice gives on each run.
    owners : sequence of str
        Repository of each run.

    Returns
    -------
    list of Outcome
        Of all runs in order, each judged with a choice made without its repository: of those whose mean regret on the
        others is within the target, the one that spends least.
    Counter
        For how many repositories each was chosen.
    """
    outcomes = [Outcome(0.0, 0.0)] * len(owners)
    chosen: Counter[str] = Counter()
    for owner in sorted(set(owners)):
        others = [i for i, name in enumerate(owners) if name != owner]
        means = {value: mean([found[i] for i in others]) for value, found in table.items()}
        allowed = [value for value in means if means[value].regret <= MOST_REGRET] or list(means)
        best = min(allowed, key=lambda value: means[value].spent)
        chosen[best] += 1
        for i, name in enumerate(owners):
            if name == owner:
                outcomes[i] = table[best][i]
    return outcomes, chosen


def intervals(outcomes: Sequence[Outcome], owners: Sequence[str]) -> tuple[Interval, Interval]:
    """Return 90 % intervals of mean regret and mean share spent, drawing repositories again with replacement."""
    values = np.array([(outcome.regret, outcome.spent, 1.0) for outcome in outcomes])
    sums = sums_by(values, owners)
    drawn = sums[np.random.default_rng(0).integers(0, len(sums), (REDRAWN, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, :2] / drawn[:, 2:], (0.05, 0.95), axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=folder_of_runs())
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--cross-validate", action="store_true")
    options = parser.parse_args()
    if not options.simulated and not options.folder.is_dir():
        print(f"no folder of runs at {options.folder}; set SIGHTLINE_RUNS. Skipped.")
        return 0
    runs = simulated_runs() if options.simulated else real_runs(options.folder)
    if not runs:
        print(f"no run with 10 or more evaluations in {options.folder}. Skipped.")
        return 0
    owners = [real.repository for real in runs]
    print(f"{len(runs)} runs of {len(set(owners))} repositories with 10 or more evaluations\n")
    obeyed_rules = {name: [obey_rule(real, rule) for real in runs] for name, rule in (rules() | packages()).items()}
    results = merged({name: mean(found) for name, found in obeyed_rules.items()})
    perfect = mean([foresight(real) for real in runs])
    judged = judge_all(runs)
    by_chance = {c: [one.obey(Policy(worthwhile_chance=c)) for one in judged] for c in CHANCES}
    obeyed = [one.obey(Policy()) for one in judged]
    sightline, default = {c: mean(found) for c, found in by_chance.items()}, mean(obeyed)
    _print_table(results, sightline, default, perfect)
    _print_largest(obeyed_rules, runs)
    spread = intervals(obeyed, owners)
    _print_spread("default", default, spread)
    validated = _cross_validate(runs, owners, obeyed) if options.cross_validate else None
    forecasts, confidences = forecast_calibration(judged), confidence_calibration(judged)
    log_loss, brier, ignorant = proper_scores(said_of_better(judged))
    print(
        f"chance of a better checkpoint: log loss {log_loss:.4f} (share that came, said always: {ignorant:.4f}), "
        f"Brier score {brier:.4f}"
    )
    _print_calibration("chance of a better checkpoint", forecasts)
    for phase, rows in confidences.items():
        _print_calibration(f"confidence in {phase}", rows)
    _print_calibration("chance of a better checkpoint, during a warm-up", forecast_calibration(judged, warming_up=True))
    for phase, rows in confidence_calibration(judged, whole=False).items():
        if phase != Phase.OVERFITTING.value:
            _print_calibration(f"confidence in {phase}, where the log breaks off within a quarter more steps", rows)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "runs": len(runs),
                    "repositories": len(set(owners)),
                    "perfect_foresight": perfect.row(),
                    "sightline": default.row(),
                    "spread": spread,
                    "cross_validated": validated and validated.row(),
                    "sightline_by_chance": {f"{c:g}": o.row() for c, o in sightline.items()},
                    "rules": {name: o.row() for name, o in results.items()},
                    "forecast_log_loss": log_loss,
                    "forecast_brier": brier,
                    "forecast_calibration": forecasts,
                    "confidence_calibration": confidences,
                },
                indent=1,
            )
        )
    return 0


def _print_table(results: dict[str, Mean], sightline: dict[float, Mean], default: Mean, perfect: Mean) -> None:
    limit = perfect.spent + EXTRA_SPENT
    print(f"{'rule':36s} {'mean regret':>12s} {'capped*':>9s} {'losing > 1 %':>12s} {'spent':>7s}")
    rows = [*results.items(), *((f"Sightline, chance {c:g}", o) for c, o in sightline.items())]
    rows += [("Sightline, default", default), ("perfect foresight", perfect)]
    for name, found in rows:
        better = found.regret <= default.regret and found.spent <= default.spent
        mark = "  better on both" if better and name in results else ""
        print(f"{name:36s} {found.regret:12.3%} {found.capped:9.3%} {found.losing:12.1%} {found.spent:7.3f}{mark}")
    if missing := missing_packages():
        print(f"skipped, not installed here (`make bench` installs them): {', '.join(missing)}")
    print("* the mean of regrets capped at 100 % each")
    better = [
        name for name, found in results.items() if found.regret <= default.regret and found.spent <= default.spent
    ]
    print(
        f"\ntarget: regret <= {MOST_REGRET:.1%}: {_met(default.regret <= MOST_REGRET)}; "
        f"spent <= {limit:.3f}: {_met(default.spent <= limit)}; no rule better on both: {_met(not better)}"
    )


def _met(met: bool) -> str:
    return "met" if met else "not met"


def _print_largest(obeyed: Mapping[str, Sequence[Outcome]], runs: Sequence[RealRun]) -> None:
    """Say where means of thousands of percent come from."""
    regret, i, name = max((one.regret, i, name) for name, found in obeyed.items() for i, one in enumerate(found))
    values = runs[i].evaluated.values
    print(
        f"the largest regret of a run is {regret:.0%} ({name}): {runs[i].repository}, whose loss falls from "
        f"{values[0]:.3g} to {values.min():.3g}; alone it makes {regret / len(runs):.0%} of that mean"
    )


def _cross_validate(runs: Sequence[RealRun], owners: Sequence[str], default: Sequence[Outcome]) -> Mean:
    """Try other values of every constant; print what each gives, and what choosing without each repository gives."""
    table = {"as it is": list(default)}
    for module, name, factors in CONSTANTS:
        for factor in factors:
            title = f"{module.__name__.rsplit('.', 1)[-1]}.{name} times {factor:.3g}"
            table[title] = [one.obey(Policy()) for one in judge_with(runs, module, name, factor)]
    print("\nother values of the constants: regret, spent")
    for title, found in table.items():
        print(f"  {title:34s} {mean(found).regret:9.3%} {mean(found).spent:6.3f}")
    outcomes, chosen = cross_validated(table, owners)
    _print_spread("chosen without each repository", mean(outcomes), intervals(outcomes, owners))
    print("  chosen: " + ", ".join(f"{title} for {count}" for title, count in chosen.most_common()))
    return mean(outcomes)


def _print_spread(title: str, found: Mean, spread: tuple[Interval, Interval]) -> None:
    (low, high), (least, most) = spread
    print(
        f"{title}: regret {found.regret:.3%} (90 %: {low:.3%} to {high:.3%}), "
        f"spent {found.spent:.3f} ({least:.3f} to {most:.3f})"
    )


def _print_calibration(title: str, rows: Sequence[Bin]) -> None:
    print(f"\n{title}: said, came true (90 % interval), runs' worth of evaluations")
    for said, came, weight, low, high in rows:
        print(f"  {said:6.1%} {came:7.1%} ({low:6.1%} to {high:6.1%}) {weight:6.1f}")


if __name__ == "__main__":
    sys.exit(main())
