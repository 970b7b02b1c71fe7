"""A judgement for people: the answer, the numbers behind it, score and loss by step, the rows that flipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.text import Text

from sightline.gold.report import (
    ANSWER_WORDS,
    comparison_sentence,
    deciding,
    difference_text,
    forgetting_sentence,
    p_text,
    value_text,
)
from sightline.runs import Curve
from sightline.runs.gold import Comparison, Flip, GoldAnswer, Judgement, StepScore
from sightline.terminal.chart import EVAL_STYLE, MIN_WIDTH, Marks, Series, draw_chart
from sightline.terminal.layout import columns, for_terminal, words_width, wrap
from sightline.terminal.text import UNICODE, Glyphs, number_text, printable
from sightline.terminal.words import SEVERITY_WORDS

ANSWER_STYLES = {
    GoldAnswer.BETTER: "bold green",
    GoldAnswer.WORSE: "bold red",
    GoldAnswer.NOT_SHOWN: "bold yellow",
}
MOST_GROUPS = 20
MOST_FLIPS = 4
"""Rows shown of those won, and of those lost."""
PROMPT_CHARACTERS = 240
SCORE_STYLE = "color(35)"
"""Green: apart from the orange of the validation loss for every kind of colour blindness, by lightness too."""
_PLOT_HEIGHT = 8
_WIDE = 90


def judgement_page(judgement: Judgement, *, width: int = 80, glyphs: Glyphs = UNICODE) -> list[Text]:
    """Lay a judgement out for a person.

    Parameters
    ----------
    judgement : Judgement
    width : int
        Characters a line may take.
    glyphs : Glyphs
        Signs the terminal can show.

    Returns
    -------
    list of Text
        Safe to print: prompts and answers are escaped.
    """
    text_width = words_width(min(width, 120), glyphs)
    lines = answer_lines(judgement, width=text_width, glyphs=glyphs)
    lines += _flips(judgement.flips, text_width)
    for finding in judgement.findings:
        word, style = SEVERITY_WORDS[finding.severity]
        lines += [Text(), Text(word, style=style), *wrap(printable(finding.message), text_width, first="  ")]
    if judgement.predictions is not None:
        lines += [Text(), *wrap(f"All answers: {printable(judgement.predictions)}", text_width, style="dim")]
    return for_terminal(lines, glyphs, width)


def answer_lines(judgement: Judgement, *, width: int, glyphs: Glyphs = UNICODE) -> list[Text]:
    """Return what counts of a judgement, without single rows: for the page of a run, too.

    Parameters
    ----------
    judgement : Judgement
    width : int
        Characters a line may take.
    glyphs : Glyphs
        Signs the terminal can show.

    Returns
    -------
    list of Text
    """
    answer = judgement.answer
    lines = [Text(_capital(ANSWER_WORDS[answer]), style=ANSWER_STYLES[answer])]
    title = f"{printable(judgement.gold, 80)}: {judgement.n:,} rows; base {printable(judgement.base, 60)}"
    lines += wrap(title, width, style="dim")
    lines += [Text(), *_table(judgement.comparisons, width), Text()]
    for comparison in deciding(judgement):
        lines += wrap(printable(comparison_sentence(comparison)), width)
    for metric, why in judgement.metric_why.items():
        lines += wrap(f"{metric}: {printable(why)}.", width, style="dim")
    lines += _groups(judgement.comparisons, width)
    if judgement.forgetting:
        lines.append(Text())
    for forgetting in judgement.forgetting:
        sentence = f"{printable(forgetting.checkpoint)}: {forgetting_sentence(forgetting)}"
        lines += wrap(sentence, width, style="red" if forgetting.answer is GoldAnswer.WORSE else "")
    return [*lines, *_by_step(judgement, width, glyphs)]


def _table(comparisons: Sequence[Comparison], width: int) -> list[Text]:
    """Set the comparisons in a table, one line each; a narrow one leaves out what the sentences below say too."""
    heads = ("checkpoint", "metric", "base", "tuned", "difference", "", "p", "won/lost")
    shown = len(heads) if width >= _WIDE else 6
    rows = [[(head, "dim") for head in heads[:shown]]]
    for c in comparisons:
        cells = [
            (printable(c.tuned.checkpoint or "tuned", 40), ""),
            (printable(c.metric, 40), ""),
            (value_text(c.metric, c.base.value), ""),
            (value_text(c.metric, c.tuned.value), "bold"),
            (_bracketed(c), ""),
            (c.answer.value, ANSWER_STYLES[c.answer]),
            (p_text(c).removeprefix("p ").removeprefix("= ").replace(" corrected", ""), ""),
            (f"{c.wins}/{c.losses}", ""),
        ]
        rows.append(cells[:shown])
    return columns(rows, "llrrrlrr"[:shown], flexible=1, width=width)


def _bracketed(c: Comparison) -> str:
    """Return a difference with its interval in brackets."""
    middle, _, ends = difference_text(c).partition(f", {100 * c.confidence:.0f} % interval ")
    return f"{middle} [{ends.replace(' to ', ' ')}]"


def _groups(comparisons: Sequence[Comparison], width: int) -> list[Text]:
    """Set the groups of the last comparison in a table, those that changed most first."""
    groups = sorted(comparisons[-1].groups, key=lambda g: -abs(g.difference)) if comparisons else []
    if not groups:
        return []
    rows = [[(head, "dim") for head in ("group", "rows", "base", "tuned", "won/lost", "")]]
    for g in groups[:MOST_GROUPS]:
        rows.append(
            [
                (printable(g.group or "-", 40), ""),
                (str(g.base.n), ""),
                (value_text(g.metric, g.base.value), ""),
                (value_text(g.metric, g.tuned.value), ""),
                (f"{g.wins}/{g.losses}", ""),
                (g.answer.value, ANSWER_STYLES[g.answer].removeprefix("bold ")),
            ]
        )
    more = len(groups) - MOST_GROUPS
    rest = wrap(f"and {more} more groups (--json has all)", width, style="dim") if more > 0 else []
    return [Text(), *columns(rows, "lrrrrl", flexible=0, width=width), *rest]


def _by_step(judgement: Judgement, width: int, glyphs: Glyphs) -> Iterator[Text]:
    """Yield gold score against validation loss for every checkpoint, and which one to keep."""
    choice, points = judgement.choice, judgement.by_step
    if len(points) > 2:  # the base and one checkpoint stand in the table above
        metric = judgement.comparisons[0].metric
        rows = [[("step", "dim"), ("", "dim"), (metric, "dim"), ("validation loss", "dim")]]
        for p in points:
            style = "bold" if choice is not None and p.checkpoint == choice.checkpoint else ""
            loss = "" if p.eval_loss is None else number_text(p.eval_loss)
            rows.append(
                [
                    (str(p.step), style),
                    (printable(p.checkpoint, 40), style),
                    (value_text(metric, p.score), style),
                    (loss, style),
                ]
            )
        kept = [] if choice is None or choice.step is None else [(choice.step, "keep")]
        yield Text()
        yield from columns(rows, "rlrr", width=width)
        yield from _score_chart(metric, points, kept, width, glyphs)
    if choice is not None:
        where = f" ({choice.choosing_rows} rows set aside)" if choice.choosing_rows else ""
        yield Text()
        yield from wrap(f"Keep {printable(choice.checkpoint)}{where}: {printable(choice.why)}.", width, style="bold")


def _score_chart(
    metric: str, points: Sequence[StepScore], kept: Sequence[tuple[int, str]], width: int, glyphs: Glyphs
) -> Iterator[Text]:
    """Yield the chart: the score is brought onto the axis of the loss, its own ends are written beside it."""
    steps = np.array([p.step for p in points], np.int64)
    loss = Curve.of(steps, np.array([np.nan if p.eval_loss is None else p.eval_loss for p in points])).finite()
    scores = np.array([p.score for p in points])
    known = scores[np.isfinite(scores)]
    if len(loss) < 2 or len(known) < 2 or width < MIN_WIDTH:
        return
    low, high = float(known.min()), float(known.max())
    floor, roof = float(loss.values.min()), float(loss.values.max())
    share = (scores - low) / (high - low) if high > low else np.full_like(scores, 0.5)
    ends = f"{value_text(metric, low)} to {value_text(metric, high)}"
    series = [
        Series("validation loss", loss, EVAL_STYLE, letter="o"),
        Series(metric, Curve.of(steps, floor + share * (roof - floor)), SCORE_STYLE, thick=True, letter="#", end=ends),
    ]
    yield Text()
    yield from draw_chart(series, width=width, height=_PLOT_HEIGHT, marks=Marks(extra=kept), glyphs=glyphs)


def _flips(flips: Sequence[Flip], width: int) -> Iterator[Text]:
    """Yield rows won and rows lost, base and tuned one below the other."""
    won = [f for f in flips if f.tuned_score != f.base_score and _gained(f)]
    lost = [f for f in flips if f.tuned_score != f.base_score and not _gained(f)]
    for title, rows in (("Rows won", won), ("Rows lost", lost)):
        if not rows:
            continue
        yield Text()
        yield Text(title, style="bold")
        for flip in rows[:MOST_FLIPS]:
            yield from wrap(printable(flip.example.prompt[-PROMPT_CHARACTERS:]), width, first="  ", style="dim")
            right = " | ".join(flip.example.references[:3])
            for name, text in (("right", right), ("base", flip.base.text), ("tuned", flip.tuned.text)):
                yield from wrap(printable(text[:PROMPT_CHARACTERS]) or "(nothing)", width, first=f"    {name:<6} ")


def _gained(flip: Flip) -> bool:
    from sightline.gold.scoring import METRICS

    metric = METRICS.get(flip.metric)
    rose = flip.tuned_score > flip.base_score
    return rose is not (metric is not None and metric.lower_is_better)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
