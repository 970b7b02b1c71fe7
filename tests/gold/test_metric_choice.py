"""The metric that fits the right answers is taken, and the reason is told."""

from __future__ import annotations

import pytest

from sightline.errors import UsageError
from sightline.gold.metric_choice import choose_metrics
from sightline.runs.gold import GoldExample


def examples(*answers: str | tuple[str, ...], **kwargs) -> list[GoldExample]:
    rows = [(a,) if isinstance(a, str) else a for a in answers]
    return [GoldExample(id=str(i), prompt="q", references=r, target=r[0], **kwargs) for i, r in enumerate(rows)]


LONG = "a quite long answer with many words in it that nobody would write again word for word"


@pytest.mark.parametrize(
    ("gold", "name"),
    [
        (examples("18", "1,000", "$3.50", "-4", "50%"), "numeric"),
        (examples("18", "nineteen"), "exact_match"),
        (examples("card arrival", "lost card"), "exact_match"),
        (examples(*["jump left walk run " * 6] * 30), "exact_match"),
        (examples((LONG, LONG + " again"), (LONG + " once", LONG)), "bleu"),
        (examples(LONG, LONG + " again"), "rouge_l"),
        (examples(*(f"SELECT {w} FROM TABLE WHERE name = {w} AND size < 5" for w in LONG.split())), "exact_match"),
        (examples("red", choices=("red", "blue")), "multiple_choice"),
    ],
)
def test_metric_follows_from_the_answers(gold, name):
    """Numbers, labels, closed vocabularies, sentences, choices."""
    (chosen,) = choose_metrics(gold)
    assert chosen.metric.name == name
    assert chosen.why
    assert chosen.rows == tuple(range(len(gold)))


def names(gold, asked=()) -> dict[str, tuple[int, ...]]:
    return {chosen.metric.name: chosen.rows for chosen in choose_metrics(gold, asked)}


def test_what_is_asked_for_wins():
    """On the command line over the rows, in the rows over the data."""
    gold = [*examples("red", metric="token_f1"), *examples("7")]
    assert names(gold) == {"token_f1": (0,), "numeric": (1,)}
    assert names(gold, ["chrf", "chrf"]) == {"chrf": (0, 1)}
    with pytest.raises(UsageError):
        choose_metrics(gold, ["no_such"])


def test_choices_are_needed_to_choose():
    """The row without any is named."""
    gold = [*examples("red", choices=("red", "blue")), *examples("7", where="gold.jsonl, line 2")]
    with pytest.raises(UsageError, match=r"line 2: no choices.*1 of 2 rows"):
        choose_metrics(gold, ["multiple_choice"])
    assert names(gold) == {"exact_match": (0, 1)}
