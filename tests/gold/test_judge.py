"""From answers to a judgement: pure, and as JSON and words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import DataError, UsageError
from sightline.gold.choosing import choose, split
from sightline.gold.goldset import GoldSet, read_gold
from sightline.gold.judge import forgetting, judge, judge_pair
from sightline.gold.measuring import Measured, Outputs, measure
from sightline.gold.metric_choice import choose_metrics
from sightline.gold.models import Candidate
from sightline.gold.report import judgement_as_json, judgement_paragraph
from sightline.gold.scoring import METRICS
from sightline.runs import ExampleLosses
from sightline.runs.gold import GoldAnswer, Prediction


def gold_set(n: int = 60, **columns) -> GoldSet:
    return read_gold((({"prompt": f"question {i}", "answer": f"a{i}", **columns}, f"line {i}") for i in range(n)), "g")


def answers(gold: GoldSet, right: int, start: int = 0) -> list[Prediction]:
    """Right answers to ``right`` prompts from ``start`` on."""
    given = range(start, start + right)
    return [Prediction(e.references[0] if i in given else "wrong") for i, e in enumerate(gold.examples)]


def candidate(step: int, eval_loss: float | None = None) -> Candidate:
    return Candidate(Path(f"checkpoint-{step}"), f"checkpoint-{step}", step, eval_loss)


def judged(gold: GoldSet, base: int, *tuned: tuple[Candidate, int], **options):
    outputs = [(c, Outputs(answers(gold, right))) for c, right in tuned]
    return judge(gold, choose_metrics(gold.examples), Outputs(answers(gold, base)), outputs, **options)


def test_better_worse_and_not_shown():
    """With their counts."""
    gold = gold_set()
    for base, tuned, answer in ((0, 30, "better"), (30, 0, "worse"), (20, 20, "not shown"), (20, 24, "not shown")):
        judgement = judged(gold, base, (candidate(5), tuned))
        (comparison,) = judgement.comparisons
        assert judgement.answer.value == comparison.answer.value == answer
        assert comparison.wins == max(0, tuned - base)
        assert comparison.losses == max(0, base - tuned)
        assert comparison.base.value == pytest.approx(base / 60)
    assert judgement.choice is None


def test_pair_of_functions():
    """All that a training command needs at its end."""
    gold = gold_set()
    by_prompt = {e.prompt: e.references[0] for e in gold.examples}
    judgement = judge_pair(gold, lambda es: ["?"] * len(es), lambda es: [by_prompt[e.prompt] for e in es])
    assert judgement.answer is GoldAnswer.BETTER
    paragraph = judgement_paragraph(judgement)
    assert paragraph.startswith("tuned is better than the base model: exact_match 0.0 % → 100.0 % on 60 rows")
    assert "\n" not in paragraph
    same = judge_pair(gold.examples, lambda es: ["?"] * len(es), lambda es: [Prediction("?")] * len(es), "token_f1")
    assert same.answer is GoldAnswer.NOT_SHOWN
    with pytest.raises(DataError, match="59 answers to 60 prompts"):
        judge_pair(gold, lambda es: ["?"] * 60, lambda es: ["?"] * 59)
    with pytest.raises(DataError, match="measured by likelihood"):
        judge_pair(gold, lambda es: [], lambda es: [], "reference_loss")
    with pytest.raises(UsageError, match="no such metric"):
        judge_pair(gold, lambda es: [], lambda es: [], "accuracy")
    with pytest.raises(DataError, match="no rows"):
        judge_pair([], lambda es: [], lambda es: [])


def test_flips_show_wins_and_losses_side_by_side():
    """Of the checkpoint that counts, both kinds."""
    gold = gold_set()
    outputs = [(candidate(5), Outputs(answers(gold, 40, start=20)))]
    judgement = judge(gold, choose_metrics(gold.examples), Outputs(answers(gold, 25)), outputs)
    won = [flip for flip in judgement.flips if flip.tuned_score > flip.base_score]
    lost = [flip for flip in judgement.flips if flip.tuned_score < flip.base_score]
    assert len(won) == len(lost) == 10
    assert {flip.base.text for flip in won} == {"wrong"}
    assert all(flip.tuned.text == flip.example.references[0] for flip in won)


def test_groups_are_reported_where_there_are_several():
    """One group is no group."""
    rows = [{"prompt": f"q{i}", "answer": f"a{i}", "group": "new" if i < 30 else "old"} for i in range(60)]
    gold = read_gold(((row, "") for row in rows), "g")
    (comparison,) = judged(gold, 0, (candidate(5), 30)).comparisons
    assert [(g.group, g.answer.value, g.base.n) for g in comparison.groups] == [
        ("new", "better", 30),
        ("old", "not shown", 30),
    ]
    (alone,) = judged(gold_set(group="one"), 0, (candidate(5), 30)).comparisons
    assert alone.groups == ()


def test_several_checkpoints_are_corrected_together():
    """Seven wins suffice for one, not for eight."""
    gold = gold_set()
    assert judged(gold, 0, (candidate(5), 7)).comparisons[0].answer is GoldAnswer.BETTER
    many = judged(gold, 0, *((candidate(step), 7) for step in range(8)))
    assert {c.answer for c in many.comparisons} == {GoldAnswer.NOT_SHOWN}
    assert [c.tuned.step for c in many.comparisons] == list(range(8))
    assert many.comparisons[0].p_adjusted == pytest.approx(8 * many.comparisons[0].p_value)


def test_gold_score_decides_where_it_says_otherwise_than_the_loss():
    """Only where the difference is shown."""
    gold = gold_set(200)
    clear = judged(gold, 0, (candidate(100, 1.0), 40), (candidate(200, 1.4), 90))
    assert clear.choice is not None
    assert (clear.choice.checkpoint, clear.choice.by_loss) == ("checkpoint-200", "checkpoint-100")
    assert "the gold score decides" in clear.choice.why
    by_step = [(0, None, 0.0), (100, 1.0, 0.2), (200, 1.4, 0.45)]
    assert [(p.step, p.eval_loss, p.score) for p in clear.by_step] == by_step
    unclear = judged(gold, 0, (candidate(100, 1.0), 40), (candidate(200, 1.4), 43))
    assert unclear.choice is not None
    assert unclear.choice.checkpoint == "checkpoint-100"
    assert "cannot tell it from checkpoint-200" in unclear.choice.why
    agreed = judged(gold, 0, (candidate(100, 1.0), 90), (candidate(200, 1.4), 40))
    assert agreed.choice is not None
    assert "the best exact_match and the lowest validation loss" in agreed.choice.why
    tied = judged(gold, 0, (candidate(100, 1.4), 60), (candidate(200, 1.0), 60), (candidate(300, 1.2), 60))
    assert tied.choice is not None
    assert tied.choice.checkpoint == "checkpoint-200"
    assert "the best exact_match and the lowest validation loss" in tied.choice.why
    assert agreed.answer is GoldAnswer.BETTER


def measured(scores) -> Measured:
    values = np.asarray(scores, float)
    return Measured(np.stack([values, np.ones_like(values)], 1), lambda sums: sums[..., 0] / sums[..., 1])


def test_choice_without_losses_and_with_losses_that_are_no_numbers():
    """The best score; of equal ones the earliest; NaN never wins."""
    scores = [measured([0.0, 1.0]), measured([1.0, 1.0]), measured([1.0, 1.0]), measured([math.nan, 1.0])]
    candidates = [candidate(step, math.nan) for step in (1, 2, 3, 4)]
    choice = choose(candidates, scores, METRICS["token_f1"])
    assert choice.checkpoint == "checkpoint-2"
    assert "no validation losses are known" in choice.why
    loss = choose(candidates[:2], [measured([2.0, 2.0]), measured([1.0, 1.0])], METRICS["reference_loss"])
    assert loss.checkpoint == "checkpoint-2"


def test_split_is_the_same_for_every_order_and_keeps_prompts_together():
    """And leaves most of the rows where they are when others come."""
    gold = gold_set(300)
    choosing, reported = split(gold)
    assert sorted(choosing + reported) == list(range(300))
    assert 0.3 < len(choosing) / 300 < 0.5
    aside = {gold.examples[i].prompt for i in choosing}
    backward = GoldSet("g", tuple(reversed(gold.examples)))
    assert {backward.examples[i].prompt for i in split(backward)[0]} == aside
    assert {gold.examples[i].prompt for i in split(gold_set(400))[0] if i < 300} >= aside
    with pytest.raises(DataError, match="too few to choose"):
        split(gold_set(15))


def test_chosen_checkpoint_is_reported_on_rows_it_was_not_chosen_on():
    """The two parts share no row, and only the chosen one is compared."""
    gold = gold_set(300)
    judgement = judged(gold, 0, (candidate(100), 100), (candidate(200), 200), keep_by_gold=True)
    choosing, reported = split(gold)
    assert judgement.choice is not None
    assert judgement.choice.choosing_rows == len(choosing)
    assert judgement.choice.checkpoint == "checkpoint-200"
    (comparison,) = judgement.comparisons
    assert comparison.base.n == judgement.n == len(reported)
    assert comparison.tuned.value == pytest.approx(sum(i < 200 for i in reported) / len(reported))


def losses(sums, tokens) -> ExampleLosses:
    return ExampleLosses(np.asarray(sums, float), np.asarray(tokens, np.int64))


def test_forgetting_is_a_paired_difference_of_token_means():
    """Weighted by tokens, shown or not."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 50, 60)
    base = losses(tokens * rng.normal(3.0, 0.5, 60), tokens)
    worse = losses(base.loss_sums + tokens * rng.normal(0.2, 0.05, 60), tokens)
    same = losses(base.loss_sums + tokens * rng.normal(0.0, 0.05, 60), tokens)
    found = forgetting(base, [(candidate(1), worse), (candidate(2), same), (candidate(3), base)])
    assert [f.answer.value for f in found] == ["worse", "not shown", "not shown"]
    assert found[0].difference == pytest.approx(worse.loss - base.loss)
    assert found[0].low < found[0].difference < found[0].high
    assert (found[0].texts, found[0].tokens) == (60, int(tokens.sum()))
    assert forgetting(None, [(candidate(1), worse)]) == ()


def test_the_likeliest_choice_is_the_answer():
    """By sum, or by sum for its length; a choice cut off by the context never wins."""
    rows = [{"prompt": f"q{i}", "choices": ["no", "certainly"], "answer": "certainly"} for i in range(3)]
    gold = read_gold(((row, "") for row in rows), "g")
    given = losses([2.0, 4.0, 2.0, 1.0, 3.0, 0.0], [1, 1, 1, 1, 1, 0])
    by_sum, by_length = (
        measure(choose_metrics(gold.examples, [name])[0], gold.examples, Outputs(choices=given)).by_row.tolist()
        for name in ("multiple_choice", "multiple_choice_by_length")
    )
    assert by_sum == [0.0, 1.0, 0.0]
    assert by_length == [1.0, 1.0, 0.0]


def test_reference_loss_is_better_when_it_falls():
    """Lower is better, and said so."""
    gold = gold_set()
    chosen = choose_metrics(gold.examples, ["reference_loss"])
    rng = np.random.default_rng(3)
    tokens = np.full(60, 4)
    base, tuned = losses(tokens * 3.0 + rng.normal(size=60), tokens), losses(tokens * 2.0, tokens)
    judgement = judge(gold, chosen, Outputs(targets=base), [(candidate(1), Outputs(targets=tuned))])
    assert judgement.answer is GoldAnswer.BETTER
    assert judgement.comparisons[0].difference < 0
    assert judgement.flips == ()


def test_json_is_strict_and_complete():
    """Unknown is null, numbers that are none are strings, and every answer is one of three words."""
    rows = [{"prompt": f"q{i}", "answer": f"a{i}", "group": f"g{i % 2}"} for i in range(60)]
    gold = read_gold(((row, "") for row in rows), "g")
    nan = losses(np.full(5, np.nan), np.ones(5))
    outputs = [(c, Outputs(answers(gold, 30), general=nan)) for c in (candidate(1), candidate(2, 1.5))]
    judgement = judge(gold, choose_metrics(gold.examples), Outputs(answers(gold, 0), general=nan), outputs)
    document = judgement_as_json(judgement)
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert document["sightline"] == 1
    assert {r["answer"] for r in document["results"]} == {"better"}
    assert document["results"][0]["groups"][0]["group"] == "g0"
    assert document["forgetting"][0]["tuned_loss"] == "NaN"
    assert document["forgetting"][0]["forgot"] is None
    assert document["by_step"][0]["eval_loss"] is None
    assert document["keep"]["checkpoint"] == "checkpoint-2"
    assert document["flips"][0]["base"]["prediction"] == "wrong"
