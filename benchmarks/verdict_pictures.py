"""Draw the pictures of docs/diagnosis.md.

    python benchmarks/verdict_real.py --json real.json
    python benchmarks/verdict_simulation.py --json simulation.json
    python benchmarks/verdict_pictures.py docs/pictures [--real real.json] [--simulation simulation.json]

A picture whose numbers are not given is left as it is; the one of the phases needs none.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

sys.path.insert(0, str(Path(__file__).parent))
from _simulated import simulate
from sightline.decisions import judge_run, replay
from sightline.runs import Phase
from verdict_real import EXTRA_SPENT, MOST_REGRET

FLOOR = 1e-4  # regrets below are drawn here: the axis is logarithmic
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
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    print(path)


def draw_phases(path: Path) -> None:
    """Draw one simulated run of each phase, with what is said of it."""
    figure, panels = pyplot.subplots(1, len(PHASES), figsize=(14, 2.9))
    for axes, (shape, n, noise, phase, share) in zip(panels, PHASES, strict=True):
        whole = simulate(shape, n, noise, 0.0, seed=1).run
        run = whole.until(int(whole.curves["eval_loss"].steps[max(0, int(share * n) - 1)]))
        verdict = judge_run(run)
        axes.plot(run.curves["loss"].steps, run.curves["loss"].values, color="0.7", linewidth=0.8, label="training")
        evaluated = run.curves["eval_loss"]
        axes.plot(evaluated.steps, evaluated.values, ".-", color="tab:blue", markersize=4, label="validation")
        sure = verdict.diagnosis.confidence
        said = verdict.diagnosis.phase.value + ("" if sure is None else f" ({sure:.0%})")
        if verdict.diagnosis.phase is not Phase(phase):
            raise SystemExit(f"the run drawn for {phase} is called {said}: choose another")
        if (onset := verdict.diagnosis.onset) is not None:
            axes.axvspan(onset.low, onset.high, color="tab:red", alpha=0.2, label="onset, 90 %")
            stop = replay(run).stop
            if stop is not None:
                axes.axvline(stop.step, color="tab:red", linestyle=":", label="stop")
        axes.set(title=said, xlabel="step")
        axes.legend(fontsize=7)
    panels[0].set_ylabel("loss")
    save(figure, path)


def draw_rise(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the share of rises called within eight evaluations against the worst share of false alarms, rule by rule."""
    calls = [c for c in tables["calls"] if c["evaluations"] == 40 and c["noise"] == 0.005 and c["correlation"] == 0.0]
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for title in dict.fromkeys(c["rule"] for c in calls):
        mine = [c for c in calls if c["rule"] == title]
        harmless = [c["called"] for c in mine if "in_time" not in c and c["shape"] != "divergence"]
        found = [c["in_time"] for c in mine if c["shape"] == "mild rise"]
        if harmless and found:
            ours = title == "Sightline"
            axes.plot(max(harmless), found[0], "D" if ours else "o", color="tab:blue" if ours else "0.6")
            _label(axes, title, max(harmless), found[0])
    axes.axvspan(-0.02, 0.05, color="tab:green", alpha=0.15, label="at most 5 % false alarms")
    axes.set(
        xlabel="runs of the worst harmless shape that are called",
        ylabel="rises of 6 % called within 8 evaluations of their turn",
        title="40 evaluations, noise 0.5 %",
    )
    axes.legend(fontsize=7)
    save(figure, path)


def draw_frontier(real: dict[str, Any], path: Path) -> None:
    """Draw regret against the share spent: rules as points, Sightline as a line over its one setting."""
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, (regret, spent) in real["rules"].items():
        if not name.startswith(("Keras", "Lightning")):  # the same points as HF
            axes.plot(spent, max(regret, FLOOR), "o", color="0.6", markersize=4)
            _label(axes, name, spent, max(regret, FLOOR))
    ours = list(real["sightline_by_chance"].values())
    axes.plot(
        [s for _, s in ours], [max(r, FLOOR) for r, _ in ours], color="tab:blue", label="Sightline, chance 0.01 to 0.3"
    )
    regret, spent = real["sightline"]
    axes.plot(spent, max(regret, FLOOR), "D", color="tab:blue", label="Sightline, default")
    foresight = real["perfect_foresight"][1]
    axes.axvline(foresight, color="tab:green", linestyle=":", label="a stop at the best evaluation")
    axes.fill_between(
        [foresight, foresight + EXTRA_SPENT], FLOOR, MOST_REGRET, color="tab:green", alpha=0.15, label="target"
    )
    axes.set(yscale="log", xlabel="share of the run spent", ylabel="mean relative regret", ylim=(FLOOR, 200.0))
    axes.set_title(f"{real['runs']} runs of {real['repositories']} repositories")
    axes.legend(fontsize=7, loc="upper right")
    save(figure, path)


def draw_calibration(real: dict[str, Any], path: Path) -> None:
    """Draw what came true against what was said: the chance of a better checkpoint, and each phase's confidence."""
    curves = {"chance of a better checkpoint": real["forecast_calibration"], **real["confidence_calibration"]}
    figure, panels = pyplot.subplots(1, len(curves), figsize=(3.2 * len(curves), 3.4), sharey=True)
    for axes, (title, rows) in zip(panels, curves.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        axes.vlines([r[0] for r in rows], [r[3] for r in rows], [r[4] for r in rows], color="tab:blue", linewidth=0.8)
        axes.scatter([r[0] for r in rows], [r[1] for r in rows], s=[6 + 6 * r[2] for r in rows], color="tab:blue")
        axes.set(title=title, xlabel="said", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    panels[0].set_ylabel("came true (area: runs, line: 90 %)")
    save(figure, path)


def _label(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), fontsize=5, color="0.3", xytext=(3, 2), textcoords="offset points")


def main() -> int:
    """Draw what there are numbers for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--simulation", type=Path)
    options = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "sightline"
    draw_phases(options.folder / "phases.svg")
    if options.simulation:
        draw_rise(json.loads(options.simulation.read_text()), options.folder / "rise.svg")
    if options.real:
        numbers = json.loads(options.real.read_text())
        draw_frontier(numbers, options.folder / "frontier.svg")
        draw_calibration(numbers, options.folder / "calibration.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
