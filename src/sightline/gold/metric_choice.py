"""Which metric a gold set is judged by, when nobody says: it follows from the right answers, and the reason is told."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sightline.errors import UsageError
from sightline.gold.scoring import Metric, metric_named, normalised_answer, number_in
from sightline.runs.gold import GoldExample

SHORT_WORDS = 6
"""Answers of so many words at most can be expected word for word; one in ten may be longer."""
ONE_FORM_SHARE = 0.8
"""Where so many answers begin with the same word, and it is none of a sentence, they have one form: SQL, JSON."""
CLOSED_WORDS, CLOSED_SHARE = 100, 0.02
"""Answers of at most so many different words, so small a share of all their words, have a closed vocabulary."""


@dataclass(frozen=True, slots=True)
class ChosenMetric:
    """A metric to judge by."""

    metric: Metric
    why: str
    """Why it was taken."""
    rows: tuple[int, ...]
    """Rows of the gold set that it is measured on, ascending."""


def choose_metrics(examples: Sequence[GoldExample], asked: Sequence[str] = ()) -> tuple[ChosenMetric, ...]:
    """Return the metrics to judge by, in the order to be reported.

    Parameters
    ----------
    examples : sequence of GoldExample
        The gold set, at least one row.
    asked : sequence of str
        Metrics asked for: each is measured on all rows, whatever rows and data say.

    Returns
    -------
    tuple of ChosenMetric
        At least one. Without ``asked``, rows that ask for a metric are measured by it, the others by the one that fits
        their right answers.

    Raises
    ------
    UsageError
        If a metric is not known, or needs choices that a row lacks.
    """
    everywhere = tuple(range(len(examples)))
    if asked:
        chosen = [ChosenMetric(metric_named(name), "asked for", everywhere) for name in dict.fromkeys(asked)]
    else:
        chosen = [_asked_by_rows(name, examples) for name in dict.fromkeys(e.metric for e in examples if e.metric)]
        if left := tuple(i for i in everywhere if examples[i].metric is None):
            name, why = _from_answers([examples[i] for i in left])
            chosen.append(ChosenMetric(metric_named(name), why, left))
    for one in chosen:
        _check_choices(one, examples)
    return tuple(chosen)


def _asked_by_rows(name: str, examples: Sequence[GoldExample]) -> ChosenMetric:
    rows = tuple(i for i, e in enumerate(examples) if e.metric == name)
    return ChosenMetric(metric_named(name), f"{len(rows)} rows ask for it", rows)


def _check_choices(chosen: ChosenMetric, examples: Sequence[GoldExample]) -> None:
    """Refuse to ask for the likeliest choice where there are none."""
    if chosen.metric.needs != "choices":
        return
    lacking = [examples[i] for i in chosen.rows if not examples[i].choices]
    if lacking:
        raise UsageError(
            f"{lacking[0].where or lacking[0].id}: no choices, which the metric {chosen.metric.name} needs "
            f"({len(lacking)} of {len(chosen.rows)} rows lack them); give each row its choices, or another metric"
        )


def _from_answers(examples: Sequence[GoldExample]) -> tuple[str, str]:
    """Return the name of the metric that fits the right answers, and why."""
    if all(e.choices for e in examples):
        return "multiple_choice", "rows have choices: the likeliest one is the answer"
    answers = [reference for e in examples for reference in e.references]
    if all(_is_number(answer) for answer in answers):
        return "numeric", "all right answers are numbers"
    lengths = sorted(len(answer.split()) for answer in answers)
    words = [word for answer in answers for word in normalised_answer(answer).split()]
    typical, long = median(lengths), lengths[(9 * len(lengths)) // 10]
    if long <= SHORT_WORDS:
        return (
            "exact_match",
            f"right answers are short (nine in ten have at most {long} word{'' if long == 1 else 's'})",
        )
    if words and len(set(words)) <= min(CLOSED_WORDS, CLOSED_SHARE * len(words)):
        return "exact_match", f"right answers are written in {len(set(words))} different words only"
    first, times = Counter(answer.split()[0] for answer in answers).most_common(1)[0]
    if times >= ONE_FORM_SHARE * len(answers) and _is_code(first):
        share = round(100 * times / len(answers))
        return "exact_match", f"right answers have one form ({share} % begin with {first!r})"
    if len(answers) >= 1.5 * len(examples) and _is_installed("sacrebleu"):
        return (
            "bleu",
            f"sentences with {len(answers) / len(examples):.1f} right answers each: shared word n-grams count",
        )
    if _is_installed("rouge_score"):
        return "rouge_l", f"long answers (half have {typical:g} words or more): the shared sequence of words counts"
    return "token_f1", f"long answers (half have {typical:g} words or more): shared words count"


def _is_number(answer: str) -> bool:
    """Whether an answer is a number and nothing else."""
    return len(answer.split()) == 1 and number_in(answer) is not None and answer.strip(" $€£%.,-0123456789") == ""


def _is_code(word: str) -> bool:
    """Whether a word begins a query, a tag or JSON and not a sentence: SELECT, <b>, {."""
    return not word.isalpha() or (len(word) > 1 and word.isupper())


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
