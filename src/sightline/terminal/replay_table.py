"""The table of `sightline replay`: what would have been said at every evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.text import Text

from sightline.diagnosis.context import portion
from sightline.diagnosis.scores import is_task_score
from sightline.runs import Phase
from sightline.terminal.layout import columns, fit, for_terminal, words_width, wrap
from sightline.terminal.text import UNICODE, Glyphs, number_text, printable, unit_word
from sightline.terminal.words import PHASE_STYLES

MOST_ROWS = 60


def replay_table(document: Mapping[str, Any], *, width: int = 80, glyphs: Glyphs = UNICODE) -> list[Text]:
    """Set a replay in a table, a line an evaluation.

    Parameters
    ----------
    document : mapping
        The JSON of `sightline replay`, as docs/cli.md describes it.
    width : int
        Characters a line may take.
    glyphs : Glyphs
        Signs the terminal can show.

    Returns
    -------
    list of Text
        Of more than 60 evaluations only those where something changed, the first and the last.
    """
    evals: Sequence[Mapping[str, Any]] = document["evals"]
    text_width = words_width(width, glyphs)
    lines = [Text(fit(printable(document["path"]), text_width), style="bold"), Text()]
    if not evals:
        lines += wrap("There is no evaluation to replay.", text_width)
        return for_terminal(lines, glyphs, width)
    shown = _shown(evals, document["stop_step"])
    rows = [[(head, "dim") for head in (unit_word(document["step_unit"]), "eval loss", "phase", "action", "keep")]]
    rows += [_row(evals[i], document["stop_step"]) for i in shown]
    lines += columns(rows, "rrllr", flexible=2, width=text_width)
    if len(shown) < len(evals):
        left_out = f"({len(evals) - len(shown)} evaluations at which nothing changed are left out)"
        lines += wrap(left_out, text_width, style="dim")
    lines.append(Text())
    for sentence in _sentences(document):
        lines += wrap(sentence, text_width, first="→ ", rest="  ")
    return for_terminal(lines, glyphs, width)


def _shown(evals: Sequence[Mapping[str, Any]], stop_step: int | None) -> list[int]:
    """Return which evaluations to show: all of few, of many those at which phase, action or the stop changed."""
    if len(evals) <= MOST_ROWS:
        return list(range(len(evals)))
    changed = [
        i
        for i, (before, now) in enumerate(pairwise(evals), start=1)
        if (before["phase"], before["action"]) != (now["phase"], now["action"]) or now["step"] == stop_step
    ]
    return sorted({0, len(evals) - 1, *changed})


def _row(entry: Mapping[str, Any], stop_step: int | None) -> list[tuple[str, str]]:
    phase = str(entry["phase"])
    style = PHASE_STYLES.get(Phase(phase), "") if phase in set(Phase) else ""
    stops = stop_step is not None and entry["step"] == stop_step
    loss = entry["eval_loss"]
    return [
        (str(entry["step"]), ""),
        (number_text(float(loss)) if loss is not None else "-", "bold"),
        (phase, style),
        (str(entry["action"]) + (" here" if stops else ""), "bold" if stops else ""),
        ("-" if entry["keep_step"] is None else str(entry["keep_step"]), ""),
    ]


def _sentences(document: Mapping[str, Any]) -> Iterator[str]:
    stop, best, regret, spent = (document[key] for key in ("stop_step", "best_step", "regret", "spent_fraction"))
    judged_by = printable(str(document["judged_by"]))
    unit = unit_word(document["step_unit"])
    by_score = "" if not is_task_score(judged_by) else f", by {judged_by}, which rose while the loss did and decides,"
    if best is not None:
        yield f"The best evaluation of the whole run{by_score} is at {unit} {best}."
    if stop is None:
        yield "Sightline would not have stopped this run."
    else:
        yield f"Sightline would have stopped it at {unit} {stop}" + (
            "." if spent is None else f", after {portion(float(spent))} of what was run."
        )
    if regret is not None:
        lost = float(regret)
        yield (
            "The checkpoint kept would have been the best one."
            if lost == 0
            else f"The checkpoint kept would have been {number_text(lost, 3)} {'below' if by_score else 'above'} the best."
        )
