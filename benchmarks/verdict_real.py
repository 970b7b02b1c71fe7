"""Obeyed live on other people's runs: what each stopping rule keeps, and what it spends.

    python benchmarks/verdict_real.py [--json FILE] [--picture FILE] [--all-rules]

For every run with ten or more evaluations, each rule sees the evaluations one by one. Regret is the validation loss of
the checkpoint kept when the rule stops, less the lowest of the whole run, as a share of that; spent is the step stopped
at over the last step. The folder of runs is $SIGHTLINE_RUNS, else shared/runs beside the project.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from _real_runs import RealRun, folder_of_runs, real_runs
from rules import Rule, rules
from sightline.decisions import Policy, decide
from sightline.diagnosis import diagnose
from sightline.runs import Action, Diagnosis, Phase

MOST_REGRET, EXTRA_SPENT = 0.005, 0.08
"""Targets: mean regret, and share of the run spent beyond a stop at the best evaluation."""
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


def judge_all(runs: Sequence[RealRun]) -> list[Judged]:
    """Diagnose every prefix of every run."""
    return [
        Judged(real, tuple(diagnose(real.run.until(step)) for step in real.evaluated.steps.tolist())) for real in runs
    ]


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Average over runs."""
    return Outcome(float(np.mean([o.regret for o in outcomes])), float(np.mean([o.spent for o in outcomes])))


def cross_validated(judged: Sequence[Judged]) -> tuple[Outcome, dict[str, float]]:
    """Choose ``worthwhile_chance`` on the runs of all other repositories, and obey it on those of each.

    Returns
    -------
    Outcome
        Mean over all runs, each judged with a chance chosen without its repository.
    chosen : dict
        The chance chosen for each repository.
    """
    table = {c: [one.obey(Policy(worthwhile_chance=c)) for one in judged] for c in CHANCES}
    owners = [one.real.repository for one in judged]
    outcomes: list[Outcome] = []
    chosen: dict[str, float] = {}
    for owner in sorted(set(owners)):
        others = [i for i, name in enumerate(owners) if name != owner]
        allowed = [c for c in CHANCES if mean([table[c][i] for i in others]).regret <= MOST_REGRET] or [CHANCES[0]]
        chosen[owner] = min(allowed, key=lambda c: mean([table[c][i] for i in others]).spent)
        outcomes += [table[chosen[owner]][i] for i, name in enumerate(owners) if name == owner]
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
    parser.add_argument("--picture", type=Path, help="draw the frontier of regret and share spent")
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
    sightline = {c: mean([one.obey(Policy(worthwhile_chance=c)) for one in judged]) for c in CHANCES}
    default = mean([one.obey(Policy()) for one in judged])
    validated, chosen = cross_validated(judged)
    _print_table(results, sightline, default, validated, perfect)
    chances = ", ".join(f"{c:g} for {list(chosen.values()).count(c)}" for c in sorted(set(chosen.values())))
    print(f"\nchances chosen without a repository, for how many: {chances}")
    forecasts, confidences = forecast_calibration(judged), confidence_calibration(judged)
    _print_calibration("chance of a better checkpoint", forecasts)
    for phase, rows in confidences.items():
        _print_calibration(f"confidence in {phase}", rows)
    if options.picture:
        draw(options.picture, results, sightline, default, perfect)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "runs": len(runs),
                    "repositories": len(owners),
                    "perfect_foresight": [perfect.regret, perfect.spent],
                    "sightline": [default.regret, default.spent],
                    "sightline_cross_validated": [validated.regret, validated.spent],
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
    validated: Outcome,
    perfect: Outcome,
) -> None:
    limit = perfect.spent + EXTRA_SPENT
    print(f"{'rule':36s} {'mean regret':>12s} {'spent':>7s}")
    rows = [*results.items(), *((f"Sightline, chance {c:g}", o) for c, o in sightline.items())]
    rows += [("Sightline, default", default), ("Sightline, cross-validated", validated), ("perfect foresight", perfect)]
    for name, found in rows:
        better = found.regret <= default.regret and found.spent <= default.spent
        mark = "  better on both" if better and name in results else ""
        print(f"{name:36s} {found.regret:12.3%} {found.spent:7.3f}{mark}")
    verdict = "met" if default.regret <= MOST_REGRET and default.spent <= limit else "not met"
    print(f"\ntarget: regret <= {MOST_REGRET:.1%} at <= {limit:.3f} spent: {verdict}")


def _print_calibration(title: str, rows: Sequence[tuple[float, float, float]]) -> None:
    print(f"\n{title}: said, came true, runs' worth of evaluations")
    for said, came, weight in rows:
        print(f"  {said:6.1%} {came:7.1%} {weight:6.1f}")


def draw(
    path: Path, results: dict[str, Outcome], sightline: dict[float, Outcome], default: Outcome, perfect: Outcome
) -> None:
    """Draw regret against the share spent, rules as points and Sightline as a line over its one setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    floor = 1e-4
    for name, found in results.items():
        if found.regret > 1.5:
            continue
        axes.plot(found.spent, max(found.regret, floor), "o", color="0.6", markersize=4)
        axes.annotate(
            name,
            (found.spent, max(found.regret, floor)),
            fontsize=5,
            color="0.4",
            xytext=(3, 2),
            textcoords="offset points",
        )
    spent = [found.spent for found in sightline.values()]
    regret = [max(found.regret, floor) for found in sightline.values()]
    axes.plot(spent, regret, "-", color="tab:blue", label="Sightline, worthwhile_chance 0.01 to 0.3")
    axes.plot(default.spent, max(default.regret, floor), "D", color="tab:blue", label="Sightline, default")
    axes.axvline(perfect.spent, color="tab:green", linestyle=":", label="a stop at the best evaluation")
    axes.fill_between(
        [perfect.spent, perfect.spent + EXTRA_SPENT], floor, MOST_REGRET, color="tab:green", alpha=0.15, label="target"
    )
    axes.set(yscale="log", xlabel="share of the run spent", ylabel="mean relative regret", ylim=(floor, 2.0))
    axes.legend(fontsize=7, loc="upper right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
