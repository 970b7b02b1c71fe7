"""Many runs, one line each: those that ask for a person first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from sightline.decisions import Verdict
from sightline.runs import Phase
from sightline.terminal.layout import columns, for_terminal, wrap
from sightline.terminal.text import UNICODE, Glyphs, number_text, percent, printable
from sightline.terminal.words import PHASE_STYLES, unit

_ORDER = (Phase.DIVERGED, Phase.OVERFITTING, Phase.UNDERFITTING, Phase.HEALTHY, Phase.UNDECIDED)


def by_usefulness(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Sort verdicts: what went wrong first, what says nothing last; within a phase those with most evaluations."""
    return sorted(verdicts, key=lambda v: (_ORDER.index(v.diagnosis.phase), -_n_eval(v), str(v.run.path), v.run.name))


def runs_table(verdicts: Sequence[Verdict], *, width: int = 80, glyphs: Glyphs = UNICODE) -> list[Text]:
    """Set verdicts in a table, one line each.

    Parameters
    ----------
    verdicts : sequence of Verdict
        At least one; shown in the order of ``by_usefulness``.
    width : int
        Characters a line may take. The narrower, the fewer columns.
    glyphs : Glyphs
        Signs the terminal can show.

    Returns
    -------
    list of Text
        A head, a line a run, and a count of each phase.
    """
    ordered = by_usefulness(verdicts)
    heads = ["phase", "run", "steps", "evals", "best loss", "at step", "last loss", "wasted"]
    wanted = [0, 1, 2, 3, 4, 5, 6, 7] if width >= 84 else [0, 1, 3, 4, 5, 6] if width >= 64 else [0, 1, 4, 5]
    labels = _labels(ordered)
    rows = [[(heads[i], "dim") for i in wanted]]
    for verdict in ordered:
        cells = _cells(verdict, labels[id(verdict)])
        rows.append([cells[i] for i in wanted])
    align = "".join("l" if i < 2 else "r" for i in wanted)
    lines = columns(rows, align, flexible=1, width=width)
    counts = [(phase, sum(v.diagnosis.phase is phase for v in ordered)) for phase in _ORDER]
    total = ", ".join(f"{n} {phase.value}" for phase, n in counts if n)
    return for_terminal([*lines, Text(), *wrap(f"{len(ordered)} runs: {total}", width)], glyphs, width)


def _labels(verdicts: Sequence[Verdict]) -> dict[int, str]:
    """Return what to call each run: its name, or its path where several share the name."""
    names = Counter(verdict.run.name for verdict in verdicts)
    return {id(v): printable(v.run.name if names[v.run.name] == 1 else v.run.path, 200) for v in verdicts}


def _cells(verdict: Verdict, label: str) -> list[tuple[str, str]]:
    run, diagnosis = verdict.run, verdict.diagnosis
    best, evals = diagnosis.best, run.eval_loss
    last = None if evals is None or not len(evals) else float(evals.values[-1])
    return [
        (diagnosis.phase.value, PHASE_STYLES[diagnosis.phase]),
        (label, ""),
        ("-" if run.last_step is None else f"{run.last_step}" + ("" if unit(run) == "step" else f" {unit(run)}"), ""),
        (str(_n_eval(verdict)), ""),
        (number_text(None if best is None else best.eval_loss), "bold"),
        ("-" if best is None else str(best.step), ""),
        (number_text(last), ""),
        ("-" if not diagnosis.wasted_fraction else percent(diagnosis.wasted_fraction), ""),
    ]


def _n_eval(verdict: Verdict) -> int:
    return 0 if verdict.run.eval_loss is None else len(verdict.run.eval_loss)
