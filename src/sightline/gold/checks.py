"""What speaks against a gold set or its answers: said before the answer is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sightline.gold.detectable import Detectable, detectable
from sightline.gold.generation import Settings
from sightline.gold.metric_choice import ChosenMetric
from sightline.gold.scoring import normalised_answer, number_in
from sightline.gold.tokens import cannot_be_written
from sightline.runs import Finding, Severity
from sightline.runs.gold import GoldExample, Prediction

FEW_ROWS_DIFFERENCE = 0.10
"""A set that likely shows only differences above this share is called small."""
ENDLESS_SHARE = 0.2
"""Answers cut at the longest length allowed, from which share on it is said."""


def size_finding(n: int, chosen: Sequence[ChosenMetric], comparisons: int) -> Finding:
    """Say how small a difference n rows can show, before anything runs.

    Parameters
    ----------
    n : int
        Rows to be reported on.
    chosen : sequence of ChosenMetric
        The metrics; the sentence is about the first.
    comparisons : int
        Checkpoints times metrics, which Holm's correction is over.
    """
    can = detectable(n, comparisons=comparisons)
    likely = can.likely if chosen[0].metric.is_binary else can.graded
    small = likely > FEW_ROWS_DIFFERENCE
    advice = "; a larger gold set shows more" if small else ""
    return Finding(
        "gold_size",
        Severity.WARNING if small else Severity.INFO,
        _size_sentence(can, chosen[0], comparisons) + advice,
        evidence={"n": n, "least": can.least, "likely": likely, "comparisons": comparisons},
    )


def _size_sentence(can: Detectable, chosen: ChosenMetric, comparisons: int) -> str:
    among = f" in {comparisons} comparisons" if comparisons > 1 else ""
    if not chosen.metric.is_binary:
        if chosen.metric.unit != "%":
            return f"{can.n} rows{among}"
        return f"{can.n} rows show a true difference of about {_points(can.graded)} in four of five cases{among}"
    least = round(can.least * can.n)
    if can.least > 1:
        return f"{can.n} rows are too few to show any difference{among}: it takes {least} rows gained and none lost"
    likely = f"a true difference of {_points(can.likely)} is shown in four of five cases if a fifth of the rows change"
    if can.likely >= 1:
        likely = "no difference is shown in four of five cases"
    return f"{can.n} rows show {_points(can.least)} at the very least ({least} rows gained, none lost){among}; {likely}"


def reference_findings(
    examples: Sequence[GoldExample], chosen: Sequence[ChosenMetric], tokenizer: Any, settings: Settings
) -> Iterator[Finding]:
    """Yield what keeps right answers from ever being given."""
    for one in chosen:
        rows = [examples[i] for i in one.rows]
        name = one.metric.name
        if name == "exact_match":
            empty = [e for e in rows if not any(normalised_answer(r) for r in e.references)]
            yield from _unmatchable(empty, rows, "nothing is left of the right answer once articles and signs are gone")
        if name == "numeric":
            bare = [e for e in rows if all(number_in(r) is None for r in e.references)]
            yield from _unmatchable(bare, rows, "the right answer has no number")
        if one.metric.needs == "choices":
            strange = [e for e in rows if not set(e.references) & set(e.choices)]
            yield from _unmatchable(strange, rows, "the right answer is none of the choices")
        if one.metric.needs == "prediction":
            length = _token_counter(tokenizer)
            long = [e for e in rows if min(map(length, e.references)) > settings.max_new_tokens]
            longest = f"the right answer is longer than --max-new-tokens {settings.max_new_tokens}"
            yield from _unmatchable(long, rows, longest)
            if one.metric.is_binary:
                lost = set(cannot_be_written([r for e in rows for r in e.references], tokenizer))
                unwritable = [e for e in rows if all(r in lost for r in e.references)]
                yield from _unmatchable(unwritable, rows, "the tokenizer has no tokens for letters of the right answer")


def prompt_findings(
    lengths: Sequence[int], context: int | None, settings: Settings, examples: Sequence[GoldExample]
) -> Iterator[Finding]:
    """Yield what the context length does to prompts of so many tokens."""
    if context is None:
        return
    cut = [e for e, n in zip(examples, lengths, strict=True) if n + settings.max_new_tokens > context]
    if cut:
        message = (
            f"{_some(cut, len(examples))}: prompt and answer need more than the {context} tokens the model reads; "
            "the prompts lose their beginnings or the answers their room"
        )
        yield Finding("gold_prompt_cut", Severity.WARNING, message, evidence={"rows": len(cut), "context": context})


def answer_findings(
    name: str, examples: Sequence[GoldExample], predictions: Sequence[Prediction], settings: Settings, *, is_base: bool
) -> Iterator[Finding]:
    """Yield what a model's answers have in common that no score tells: they do not end, they are empty."""
    n = len(predictions)
    cut = [(e, p) for e, p in zip(examples, predictions, strict=True) if not p.ended]
    if len(cut) >= ENDLESS_SHARE * n:
        begun = sum(_begins(p.text, e.references) for e, p in cut)
        right = f"; {begun} of them begin with the right answer and go on" if begun else ""
        advice = "" if is_base else ": was the end token learnt? (`sightline check` tells), or raise --max-new-tokens"
        message = f"{name}: {len(cut)} of {n} answers had no end after {settings.max_new_tokens} tokens{right}{advice}"
        severity = Severity.INFO if is_base else Severity.WARNING
        evidence: dict[str, float | int | str | None] = {
            "rows": len(cut),
            "n": n,
            "begun_rightly": begun,
            "model": name,
        }
        yield Finding("gold_no_end", severity, message, evidence=evidence)
    empty = sum(not p.text for p in predictions)
    if empty >= ENDLESS_SHARE * n and not is_base:
        message = f"{name}: {empty} of {n} answers are empty: it ends at once; does the prompt look as in training?"
        yield Finding("gold_empty_answers", Severity.WARNING, message, evidence={"rows": empty, "n": n, "model": name})


def _unmatchable(rows: Sequence[GoldExample], of: Sequence[GoldExample], why: str) -> Iterator[Finding]:
    if not rows:
        return
    message = f"{_some(rows, len(of))} can never be answered rightly: {why}"
    severity = Severity.CRITICAL if len(rows) == len(of) else Severity.WARNING
    yield Finding("gold_unmatchable", severity, message, evidence={"rows": len(rows), "n": len(of)})


def _token_counter(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _begins(text: str, references: Sequence[str]) -> bool:
    found = normalised_answer(text)
    return any((wanted := normalised_answer(r)) and found.startswith(wanted) and found != wanted for r in references)


def _some(rows: Sequence[GoldExample], n: int) -> str:
    """Return "3 of 80 rows (gold.jsonl, line 2; …)"."""
    places = "; ".join(e.where or e.id for e in rows[:2])
    return f"{len(rows)} of {n} rows ({places}{'; …' if len(rows) > 2 else ''})"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
