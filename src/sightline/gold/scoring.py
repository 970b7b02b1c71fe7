"""Scores of one answer: exact match, token F1, the number in it, ROUGE-L; and METRICS, all metrics by name.

Corpus scores (BLEU, chrF) are in ``corpus_scores``, what is measured by likelihood in ``likelihood``.
"""

from __future__ import annotations

import importlib
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Literal

from sightline.errors import MissingExtra, UsageError

Score = Callable[[str, Sequence[str]], float]
"""Score of a prediction against the right answers of its row; the best of several counts."""
Needs = Literal["prediction", "choices", "target"]


@dataclass(frozen=True, slots=True)
class Metric:
    """How answers are measured."""

    name: str
    what: str
    """What it measures, in a few words."""
    needs: Needs = "prediction"
    """What the model is asked for: an answer, the likelihood of each choice, or that of the right answer."""
    is_binary: bool = False
    """Right or wrong; else graded."""
    is_corpus: bool = False
    """Computed from counts summed over all rows, not a mean of the rows' scores."""
    lower_is_better: bool = False
    unit: str = "%"
    """``%`` for shares from 0 to 1, ``points`` for scores from 0 to 100, ``nats/token``; empty for the user's own."""
    score: Score | None = None
    """For metrics that look at one answer at a time."""


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"-?[$€£]?-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MARKED_NUMBER = re.compile(r"####\s*(-?[$€£]?-?[\d,]*\.?\d+)")


def normalised_answer(text: str) -> str:
    """Return an answer as SQuAD compares it: lower case, without punctuation, articles and extra blanks.

    References
    ----------
    .. [1] P. Rajpurkar et al., SQuAD (2016), official evaluation script, ``normalize_answer``.
       https://rajpurkar.github.io/SQuAD-explorer/

    Examples
    --------
    >>> normalised_answer(" The  cat, a dog! ")
    'cat dog'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction equals a normalised reference, else 0.0 (SQuAD)."""
    found = normalised_answer(prediction)
    return float(any(found == normalised_answer(reference) for reference in references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Return the F1 of the words shared with the best reference (SQuAD 2.0's official script).

    Parameters
    ----------
    prediction : str
        What the model answered.
    references : sequence of str
        Right answers, at least one.

    Returns
    -------
    float
        0 to 1. Where a side has no words left after normalising, 1 if both have none.
    """
    found = normalised_answer(prediction).split()
    return max(_f1(found, normalised_answer(reference).split()) for reference in references)


def number_in(text: str) -> Decimal | None:
    """Return the number that an answer comes to: the one after ``####``, else the last one; None if it has none.

    References
    ----------
    .. [1] K. Cobbe et al., GSM8K (2021): the answer stands after ``####``. https://arxiv.org/abs/2110.14168

    Examples
    --------
    >>> number_in("She pays 3 * $4 = $12.50 in all."), number_in("#### 1,000"), number_in("none")
    (Decimal('12.50'), Decimal('1000'), None)
    """
    marked = _MARKED_NUMBER.findall(text)
    for candidate in reversed(marked or _NUMBER.findall(text)):
        try:
            return Decimal(re.sub(r"[,$€£]", "", candidate))
        except InvalidOperation:
            continue
    return None


def numeric(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the prediction comes to the same number as a reference, else 0.0."""
    found = number_in(prediction)
    return float(found is not None and any(found == number_in(reference) for reference in references))


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return the F-measure of the longest common subsequence with the best reference, by rouge-score without stemming.

    Raises
    ------
    MissingExtra
        If rouge-score is not installed.
    """
    scorer = _rouge_scorer()
    return max(float(scorer.score(reference, prediction)["rougeL"].fmeasure) for reference in references)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact_match", "the answer, normalised, equals a reference", is_binary=True, score=exact_match),
        Metric("token_f1", "words shared with a reference", score=token_f1),
        Metric("numeric", "the answer's number equals a reference's", is_binary=True, score=numeric),
        Metric("rouge_l", "longest common subsequence with a reference", score=rouge_l),
        Metric("bleu", "word n-grams shared with the references", is_corpus=True, unit="points"),
        Metric("chrf", "character n-grams shared with a reference", is_corpus=True, unit="points"),
        Metric("multiple_choice", "the right choice is the likeliest", needs="choices", is_binary=True),
        Metric(
            "multiple_choice_by_length",
            "the right choice is the likeliest for its length in characters",
            needs="choices",
            is_binary=True,
        ),
        Metric(
            "reference_loss",
            "loss of the right answer",
            needs="target",
            is_corpus=True,
            lower_is_better=True,
            unit="nats/token",
        ),
    )
}
"""Every metric by its name; docs/judge.md describes each."""


def metric_named(name: str) -> Metric:
    """Return a metric by its name, or made of a Python function ``module:function``.

    Parameters
    ----------
    name : str
        A name in METRICS, or ``module:function`` of a callable ``(prediction, references) -> float``, higher is better.

    Returns
    -------
    Metric

    Raises
    ------
    UsageError
        If there is no such metric, module or function.
    """
    if name in METRICS:
        return METRICS[name]
    if ":" not in name:
        raise UsageError(
            f"{name}: no such metric; known: {', '.join(METRICS)}, or a function of yours as module:function"
        )
    module, _, attribute = name.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except Exception as error:  # the user's module may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{name}: the function cannot be imported ({type(error).__name__}: {reason})") from error
    if not callable(function):
        raise UsageError(f"{name}: is a {type(function).__name__}, not a function (prediction, references) -> float")
    return Metric(name, "a function of yours", unit="", score=_checked(name, function))


def _checked(name: str, function: Callable[..., Any]) -> Score:
    """Return the user's function with what it returns made a number."""

    def score(prediction: str, references: Sequence[str]) -> float:
        try:
            return float(function(prediction, list(references)))
        except Exception as error:  # the user's function may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"{name}: failed on the prediction {prediction[:60]!r} with {type(error).__name__}: {reason}; "
                "expected a function (prediction, references) -> number"
            ) from error

    return score


def _f1(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    shared = sum((Counter(found) & Counter(right)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(found), shared / len(right)
    return 2 * precision * recall / (precision + recall)


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    try:
        from rouge_score import rouge_scorer  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtra("the metric rouge_l", "rouge-score", "gold") from error
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
