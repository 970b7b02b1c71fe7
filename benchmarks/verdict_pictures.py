"""Draw the pictures of docs/diagnosis.md.

    python benchmarks/run_all.py verdict_real verdict_simulation --json numbers
    python benchmarks/verdict_pictures.py docs/pictures --numbers numbers

A picture whose numbers are not in the folder (verdict_real.json; verdict_simulation.json and, for the bound,
verdict_simulation_bound.json) is left as it is; the one of the phases needs none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

sys.path.insert(0, str(Path(__file__).parent))
from _simulated import HARMLESS, simulate
from rules import merged
from sightline.decisions import judge_run, replay
from sightline.diagnosis.context import portion
from sightline.runs import Phase
from verdict_real import EXTRA_SPENT, MOST_REGRET

FLOOR = 1e-3  # regrets below are drawn here: the axis is logarithmic
NUMBERS = ("real", "simulation", "simulation_bound")
OURS, RIVALS = "tab:blue", "tab:orange"
MARKERS = "osv^<>PXDh*p"
PLACES = [
    (x, y) for far in (5, 12, 20, 30) for x, y in ((far, 0), (-far, 0), (0, far), (0, -far), (far, far), (-far, -far))
]
"""Where a label may stand beside its point, in points; the first that is free."""
PHASES = (
    ("healthy", 20, 0.005, "underfitting", 0.35),
    ("plateau", 40, 0.005, "healthy", 1.0),
    ("strong rise", 40, 0.005, "overfitting", 1.0),
    ("divergence", 40, 0.005, "diverged", 1.0),
    ("plateau", 40, 0.005, "undecided", 0.08),
)
"""Shape, evaluations, noise, the phase it shows, and the share of the run that is drawn."""


def save(figure: Any, path: Path) -> None:
    """Write a figure the same way each time, so that a redrawn picture differs only where its numbers do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    print(path)


def draw_phases(path: Path) -> None:
    """Draw one simulated run of each phase, with what is said of it."""
    figure, panels = pyplot.subplots(1, len(PHASES), figsize=(14, 3.2), layout="constrained")
    for axes, (shape, n, noise, phase, share) in zip(panels, PHASES, strict=True):
        whole = simulate(shape, n, noise, 0.0, seed=1).run
        run = whole.until(int(whole.curves["eval_loss"].steps[max(0, int(share * n) - 1)]))
        verdict = judge_run(run)
        axes.plot(run.curves["loss"].steps, run.curves["loss"].values, color="0.7", linewidth=0.8, label="training")
        evaluated = run.curves["eval_loss"]
        axes.plot(evaluated.steps, evaluated.values, ".-", color="tab:blue", markersize=4, label="validation")
        sure = verdict.diagnosis.confidence
        said = verdict.diagnosis.phase.value + ("" if sure is None else f" ({portion(sure)})")
        if verdict.diagnosis.phase is not Phase(phase):
            raise SystemExit(f"the run drawn for {phase} is called {said}: choose another")
        if (onset := verdict.diagnosis.onset) is not None:
            axes.axvspan(onset.low, onset.high, color="tab:red", alpha=0.2, label="onset, with 90 % probability")
            stop = replay(run).stop
            if stop is not None:
                axes.axvline(stop.step, color="tab:red", linestyle=":", label="where the run would have been stopped")
        axes.set(title=said, xlabel="step")
    panels[0].set_ylabel("loss")
    named = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), fontsize=8, frameon=False)
    save(figure, path)


def draw_rise(tables: dict[str, list[dict[str, Any]]], bounds: list[dict[str, Any]], path: Path) -> None:
    """Draw, rule by rule, the share of rises called within eight evaluations and the worst share of false alarms."""
    calls = [c for c in tables["calls"] if c["evaluations"] == 40 and c["noise"] == 0.005 and c["correlation"] == 0.0]
    rows: dict[str, tuple[float, float]] = {}
    for title in dict.fromkeys(c["rule"] for c in calls if c["rule"] != "oracle"):
        mine = {c["shape"]: c for c in calls if c["rule"] == title}
        rows[title] = max(mine[shape]["called"] for shape in HARMLESS), mine["mild rise"]["in_time"]
    rows = _without_copies(merged(rows))
    order = sorted(rows, key=lambda title: (title == "Sightline", rows[title][1] - rows[title][0], rows[title][1]))
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.2 * len(rows)), layout="constrained")
    axes.axvspan(-2, 5, color=RIVALS, alpha=0.15, linewidth=0, label="target: at most 5 % false alarms")
    axes.axvspan(95, 102, color=OURS, alpha=0.15, linewidth=0, label="target: at least 95 % found in time")
    for known in bounds:
        if known["correlation"] == 0.0 and len(known["correlations"]) > 1 and not known["noise_known"]:
            axes.axvline(
                100 * known["in_time"], color=OURS, linestyle=":", label="found by a Bayes factor that knows the falls"
            )
    at = range(len(order))
    alarms, found = (100 * np.array([rows[title][i] for title in order]) for i in (0, 1))
    axes.hlines(at, alarms, found, color="0.85", linewidth=1)
    axes.scatter(
        alarms, at, marker="x", color=RIVALS, s=22, zorder=3, label="runs of the worst harmless shape that are called"
    )
    axes.scatter(found, at, color=OURS, s=22, label="rises of 6 % called within 8 evaluations of their turn")
    axes.set_yticks(at, order, fontsize=8)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    count, fewest = (choose(c["runs"] for c in calls) for choose in (max, min))
    title = f"40 evaluations, noise 0.5 %, {count} runs of each kind"
    title += f" (packages: {fewest})" if fewest < count else ""
    axes.set(xlim=(-2, 102), ylim=(-0.8, len(order) - 0.2), xlabel="% of runs")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(figure, path)


def draw_frontier(real: dict[str, Any], path: Path) -> None:
    """Draw regret against the share spent: rules as points, Sightline as a line over its one setting."""
    figure, axes = pyplot.subplots(figsize=(10, 6), layout="constrained")
    foresight = real["perfect_foresight"][1]
    axes.axvline(foresight, color="tab:green", linestyle=":", label="a stop at the best evaluation")
    axes.fill_between(
        [foresight, foresight + EXTRA_SPENT], FLOOR, MOST_REGRET, color="tab:green", alpha=0.15, label="target"
    )
    ours = {chance: (spent, max(regret, FLOOR)) for chance, (regret, spent, *_) in real["sightline_by_chance"].items()}
    axes.plot(*zip(*ours.values(), strict=True), ".-", color=OURS, label="Sightline, by the chance asked for")
    regret, spent = real["sightline"][:2]
    axes.plot(spent, max(regret, FLOOR), "D", color=OURS, label="Sightline, default")
    points = [(*point, chance, OURS) for chance, point in ours.items()]
    families: dict[str, list[tuple[float, float, str]]] = {}
    for name, (regret, spent, *_) in _without_copies(real["rules"]).items():
        family, setting = _family(name)
        families.setdefault(family, []).append((spent, max(regret, FLOOR), setting))
    for marker, (family, found) in zip(MARKERS, families.items(), strict=False):
        xs, ys, _ = zip(*found, strict=True)
        axes.plot(xs, ys, marker, color="0.45", markersize=5, label=family)
        points += [(*point, "0.2") for point in found]
    top = max(y for _, y, *_ in points)
    axes.set(yscale="log", xlabel="share of the run spent", ylabel="mean relative regret, %", ylim=(FLOOR, 3.0 * top))
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g}")
    axes.set_title(f"{real['runs']} runs of {real['repositories']} repositories", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.canvas.draw()  # so that it is known where everything stands
    _label(axes, points)
    save(figure, path)


def _without_copies(rows: dict[str, Any]) -> dict[str, Any]:
    """Leave a package's rule out where the package itself was measured."""
    packaged = {name.split()[0] for name in rows if "(package)" in name}
    return {name: row for name, row in rows.items() if "(package)" in name or name.split()[0] not in packaged}


def _family(name: str) -> tuple[str, str]:
    """Split the name of a rule into what it is and how it is set."""
    numbered = re.fullmatch(r"(.+?)[ _]([\d.]+)", name)
    if numbered:
        return numbered[1], numbered[2]
    first, _, rest = name.partition(" ")
    return first, rest.removeprefix("(package)").strip(", ")


def _label(axes: Axes, points: list[tuple[float, float, str, str]]) -> None:
    """Write each point's label beside it where no other label and no point is."""
    canvas = axes.figure.canvas
    renderer = canvas.get_renderer()  # type: ignore[attr-defined]
    centres = [axes.transData.transform((x, y)) for x, y, *_ in points]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in centres]
    inside = axes.get_window_extent(renderer)
    for x, y, text, color in points:
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize=7, color=color)
        for right, up in PLACES:
            label.set(position=(right, up), ha=_side(right, "left", "right"), va=_side(up, "bottom", "top"))
            box = label.get_window_extent(renderer)
            if inside.containsx(box.x0) and inside.containsx(box.x1) and not box.count_overlaps(taken):
                break
        taken.append(label.get_window_extent(renderer))


def _side(offset: int, positive: str, negative: str) -> str:
    return "center" if offset == 0 else positive if offset > 0 else negative


def draw_calibration(real: dict[str, Any], path: Path) -> None:
    """Draw what came true against what was said: the chance of a better checkpoint, and each phase's confidence."""
    curves = {"chance of a better checkpoint": real["forecast_calibration"], **real["confidence_calibration"]}
    figure, panels = pyplot.subplots(
        1, len(curves), figsize=(3.2 * len(curves), 3.4), sharey=True, layout="constrained"
    )
    for axes, (title, rows) in zip(panels, curves.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
        axes.vlines([r[0] for r in rows], [r[3] for r in rows], [r[4] for r in rows], color="tab:blue", linewidth=0.8)
        axes.scatter([r[0] for r in rows], [r[1] for r in rows], s=[6 + 6 * r[2] for r in rows], color="tab:blue")
        axes.set(title=title, xlabel="said", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    panels[0].set_ylabel("came true (area: runs, line: 90 %)")
    save(figure, path)


def main() -> int:
    """Draw what there are numbers for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", type=Path, help="the folder run_all.py --json wrote")
    options = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "sightline"
    draw_phases(options.folder / "phases.svg")
    real, simulation, bounds = (_numbers(options.numbers, f"verdict_{name}.json") for name in NUMBERS)
    if simulation:
        draw_rise(simulation, bounds.get("bound", []), options.folder / "rise.svg")
    if real:
        draw_frontier(real, options.folder / "frontier.svg")
        draw_calibration(real, options.folder / "calibration.svg")
    return 0


def _numbers(folder: Path | None, name: str) -> dict[str, Any]:
    """Read what a benchmark measured; nothing if it was not run."""
    if folder is None or not (folder / name).is_file():
        return {}
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
