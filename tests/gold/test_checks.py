"""What is said of a gold set and its answers before the answer is believed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from sightline.gold.checks import (
    answer_findings,
    prompt_findings,
    reference_findings,
    size_finding,
)
from sightline.gold.generation import Settings
from sightline.gold.metric_choice import choose_metrics
from sightline.runs import Severity
from sightline.runs.gold import GoldExample, Prediction
from tests.gold import tiny

SETTINGS = Settings(16, frozenset([0]))


def examples(*answers: str, **kwargs) -> list[GoldExample]:
    return [
        GoldExample(id=str(i), prompt=f"q{i}", references=(a,), target=a, where=f"gold.jsonl, line {i + 1}", **kwargs)
        for i, a in enumerate(answers)
    ]


def said(gold: list[GoldExample], metric: str, settings: Settings = SETTINGS) -> list[str]:
    findings = reference_findings(gold, choose_metrics(gold, [metric]), tiny.tokenizer(), settings)
    return [f"{finding.severity}: {finding.message}" for finding in findings]


@pytest.mark.parametrize(
    ("gold", "metric", "words"),
    [
        (examples("red", "The."), "exact_match", "warning: 1 of 2 rows (gold.jsonl, line 2) can never"),
        (examples("The.", "!"), "exact_match", "critical: 2 of 2 rows"),
        (examples("7", "seven"), "numeric", "the right answer has no number"),
        (examples("pink", choices=("red", "blue")), "multiple_choice", "the right answer is none of the choices"),
        (examples("a" * 17, "b"), "token_f1", "longer than --max-new-tokens 16"),
    ],
)
def test_right_answers_that_can_never_be_given(gold, metric, words):
    """With their places and the reason."""
    assert any(words in sentence for sentence in said(gold, metric))


def test_good_right_answers_are_passed_over_in_silence():
    """Nothing to say is nothing said."""
    for metric in ("exact_match", "token_f1", "numeric"):
        assert said(examples("18", "19"), metric) == []


def test_answers_that_never_end_are_counted():
    """And those among them that begin with the right answer: the end token was not learnt."""
    gold = examples("red", "blue", "green", "white")
    cut = [Prediction("red red red", 16, False), Prediction("xx", 16, False), Prediction("green"), Prediction("white")]
    (finding,) = answer_findings("checkpoint-5", gold, cut, SETTINGS, is_base=False)
    assert finding.severity is Severity.WARNING
    assert finding.message.startswith("checkpoint-5: 2 of 4 answers had no end after 16 tokens; 1 of them begin")
    (of_base,) = answer_findings("base", gold, cut, SETTINGS, is_base=True)
    assert of_base.severity is Severity.INFO
    ended = [Prediction("red")] * 4
    assert list(answer_findings("c", gold, ended, SETTINGS, is_base=False)) == []


def test_empty_answers_are_counted():
    """A model that ends at once has probably another prompt in mind."""
    (finding,) = answer_findings("c", examples("a", "b"), [Prediction(""), Prediction("b")], SETTINGS, is_base=False)
    assert finding.kind == "gold_empty_answers"


def test_prompts_longer_than_the_context():
    """Named with how many there are."""
    gold = examples("a", "b", "c")
    (finding,) = prompt_findings([10, 90, 95], 100, SETTINGS, gold)
    assert finding.message.startswith("2 of 3 rows (gold.jsonl, line 2; gold.jsonl, line 3): prompt and answer need")
    assert list(prompt_findings([10, 90, 95], None, SETTINGS, gold)) == []
    assert list(prompt_findings([10, 20, 84], 100, SETTINGS, gold)) == []


def test_size_is_told_before_anything_runs():
    """Small sets get a warning; the numbers are those of the test."""
    gold = examples("a", "b")
    small = size_finding(50, choose_metrics(gold), 1)
    assert small.severity is Severity.WARNING
    assert small.message.startswith("50 rows show 12.0 points at the very least (6 rows gained, none lost)")
    large = size_finding(2000, choose_metrics(gold), 4)
    assert large.severity is Severity.INFO
    assert "in 4 comparisons" in large.message
    assert size_finding(4, choose_metrics(gold), 1).message.startswith("4 rows are too few to show any difference")
    graded = size_finding(100, choose_metrics(gold, ["token_f1"]), 1)
    assert "8.4 points" in graded.message


def test_every_finding_has_its_section():
    """Each kind that the code may give is explained on the page."""
    code = "".join(path.read_text() for path in Path("src/sightline").glob("*/*.py"))
    kinds = set(re.findall(r'Finding\(\s*"(gold_[a-z_]+)"', code))
    assert len(kinds) > 10
    page = Path("docs/judge.md").read_text()
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()
