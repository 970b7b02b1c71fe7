"""Many runs, one line each: those that ask for a person first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich.text import Text

from sightline.diagnosis.context import portion
from sightline.runs import Phase
from sightline.terminal.layout import columns, for_terminal, wrap
from sightline.terminal.text import UNICODE, Glyphs, number_text, printable, unit_word
from sightline.terminal.words import PHASE_STYLES

_ORDER = (Phase.DIVERGED, Phase.OVERFITTING, Phase.UNDERFITTING, Phase.HEALTHY, Phase.UNDECIDED)


def by_usefulness(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort runs: what went wrong first, what says nothing last; within a phase those with most evaluations."""
    return sorted(runs, key=lambda run: (_ORDER.index(run["phase"]), -run["n_eval"], run["path"], run["name"]))


def runs_table(runs: Sequence[Mapping[str, Any]], *, width: int = 80, glyphs: Glyphs = UNICODE) -> list[Text]:
    """Set runs in a table, one line each.

    Parameters
    ----------
    runs : sequence of mapping
        At least one, as ``verdict_as_json`` gives them; shown in the order of ``by_usefulness``.
    width : int
        Characters a line may take. The narrower, the fewer columns.
    glyphs : Glyphs
        Signs the terminal can show.

    Returns
    -------
    list of Text
        A head, a line a run, and a count of each phase.
    """
    ordered = by_usefulness(runs)
    heads = ["phase", "run", "steps", "evals", "best loss", "at step", "last loss", "wasted"]
    wanted = [0, 1, 2, 3, 4, 5, 6, 7] if width >= 84 else [0, 1, 3, 4, 5, 6] if width >= 64 else [0, 1, 4, 5]
    rows = [[(heads[i], "dim") for i in wanted]]
    for run, label in zip(ordered, _labels(ordered), strict=True):
        cells = _cells(run, label)
        rows.append([cells[i] for i in wanted])
    align = "".join("l" if i < 2 else "r" for i in wanted)
    lines = columns(rows, align, flexible=1, width=width)
    counts = Counter(run["phase"] for run in runs)
    total = ", ".join(f"{counts[phase]} {phase.value}" for phase in _ORDER if counts[phase])
    return for_terminal([*lines, Text(), *wrap(f"{len(ordered)} runs: {total}", width)], glyphs, width)


def _labels(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the name of each run; of runs called alike as much of their paths as tells them apart."""
    labels = [str(run["name"]) for run in runs]
    alike = Counter(labels)
    for name in (name for name, count in alike.items() if count > 1):
        same = [i for i, run in enumerate(runs) if run["name"] == name]
        for i, label in zip(same, _ends([PurePath(runs[i]["path"]).parts for i in same], name), strict=True):
            labels[i] = label
    return labels


def _ends(paths: Sequence[tuple[str, ...]], name: str) -> list[str]:
    """Return the shortest ends by which paths differ, without what lies below the folder called ``name`` if they can."""
    to_name = [path[: len(path) - path[::-1].index(name)] if name in path else path for path in paths]
    paths = to_name if len(set(to_name)) == len(paths) else paths
    longest = max(map(len, paths))
    fewest = next((n for n in range(1, longest) if len({path[-n:] for path in paths}) == len(paths)), longest)
    return [str(PurePath(*path[-fewest:])) for path in paths]


def _cells(run: Mapping[str, Any], label: str) -> list[tuple[str, str]]:
    best, unit = run["best"], "" if run["step_unit"] == "step" else f" {unit_word(run['step_unit'])}"
    return [
        (run["phase"], PHASE_STYLES[run["phase"]]),
        (printable(label, 200), ""),
        ("-" if run["last_step"] is None else f"{run['last_step']}{unit}", ""),
        (str(run["n_eval"]), ""),
        (number_text(None if best is None else _number(best["eval_loss"])), "bold"),
        ("-" if best is None else str(best["step"]), ""),
        (number_text(_number(run["last"]["eval_loss"])), ""),
        ("-" if not run["wasted_fraction"] else portion(run["wasted_fraction"]), ""),
    ]


def _number(value: float | str | None) -> float | None:
    """Return a number of the JSON, where non-finite ones are strings."""
    return None if value is None else float(value)
