"""A fine-tune with a gold set: the base first, the kept checkpoints at the end, and who chooses the best."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from sightline.decisions import verdict_as_json
from sightline.demo import demo_rows
from sightline.errors import DataError, ModelError, SightlineError
from sightline.gold.asking import Asked
from sightline.gold.generation import Progress
from sightline.journal import reader
from sightline.runs import Status
from sightline.training import judging
from sightline.training.command import train
from sightline.training.display import Silent
from sightline.training.keeping import spread_out
from sightline.training.recipe import Recipe
from tests.terminal import verdicts
from tests.training.test_train import data, settings  # noqa: F401 - a fixture

ROWS = 60


class Told(Silent):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text, severity) -> None:
        self.notices.append(text)


@pytest.fixture(scope="module")
def gold(tmp_path_factory) -> Path:
    """Gold rows of the demo."""
    path = tmp_path_factory.mktemp("gold") / "gold.jsonl"
    rows = demo_rows(seed=0).gold[:ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fine_tune(data, gold, folder, display=None, **changes):  # noqa: F811
    given = settings(data, folder, gold=gold, learning_rate=1e-2, lora_dropout=0.0, **changes)
    return train(Recipe.load(None, given), display or Told())


def test_the_kept_checkpoints_are_judged_against_the_base(data, gold, tmp_path):  # noqa: F811
    """The answer stands in the journal, in the verdict's JSON and on the card; the base was asked before the start."""
    told = Told()
    outcome = fine_tune(data, gold, tmp_path / "run", told, max_steps=20)
    (judgement,) = reader.read(tmp_path / "run").judgements
    assert judgement.n == ROWS
    assert {c.tuned.checkpoint for c in judgement.comparisons} == {
        p.name for p in (tmp_path / "run").glob("checkpoint-*")
    }
    assert judgement.by_step[0].checkpoint == "base"
    assert judgement.by_step[0].eval_loss == outcome.verdict.run.eval_loss.at(0)
    assert judgement.forgetting
    assert verdict_as_json(outcome.verdict)["gold"]["answer"] == judgement.answer.value
    assert outcome.status is Status.FINISHED
    lines = [json.loads(line) for line in (tmp_path / "run" / "sightline" / "gold.jsonl").read_text().splitlines()]
    assert len(lines) == ROWS * (1 + len(judgement.comparisons))
    begun = [text for text in told.notices if text.startswith(("asking the base", "the base model on"))]
    assert len(begun) == 2 and "exact_match" in begun[1]
    assert "exact_match" in (outcome.best_dir / "README.md").read_text()


def test_a_part_of_the_gold_set_chooses_and_the_other_is_reported(data, gold, tmp_path):  # noqa: F811
    """What is saved as best is what the gold set chose."""
    outcome = fine_tune(data, gold, tmp_path / "run", max_steps=10, keep_by="gold", forgetting="none")
    (judgement,) = reader.read(tmp_path / "run").judgements
    assert judgement.choice.choosing_rows + judgement.n == ROWS
    assert judgement.forgetting == ()
    assert [c.tuned.checkpoint for c in judgement.comparisons] == [judgement.choice.checkpoint]
    weights = "adapter_model.safetensors"
    chosen = tmp_path / "run" / judgement.choice.checkpoint / weights
    assert (outcome.best_dir / weights).read_bytes() == chosen.read_bytes()


def test_a_judging_that_fails_hurts_nothing_else(data, gold, tmp_path, monkeypatch):  # noqa: F811
    """It is told, with the command that does it later, and the best weights are there; a signal ends it as well."""

    def fails(*args, watcher, **kwargs):
        watcher.goes_on(Progress(1, 9, 10.0, 0.8))
        watcher.is_interrupted = lambda: True
        with pytest.raises(SightlineError, match="interrupted"):
            watcher.goes_on(Progress(2, 9, 10.0, 0.7))
        raise ModelError("not enough memory for this")

    monkeypatch.setattr(judging, "judge_models", fails)
    told = Told()
    outcome = fine_tune(data, gold, tmp_path / "run", told, max_steps=5)
    assert outcome.best_dir is not None
    assert outcome.verdict.run.judgements == ()
    (text,) = [text for text in told.notices if "not enough memory for this" in text]
    assert "sightline judge" in text


def test_best_by_the_loss_says_so_where_the_gold_set_disagrees():
    """And the page and the decision follow the gold set."""
    run = verdicts.judged().run
    one = judging.Judging(None, None, Asked(), Told())
    (line,) = one.disagreement(run)
    assert "best/ holds the lowest validation loss (checkpoint-600)" in line and "checkpoint-1500" in line
    assert judging.Judging(None, None, Asked(keep_by_gold=True), Told()).disagreement(run) == []
    assert one.disagreement(run.until(1500)) == []


@pytest.mark.parametrize(
    ("rows", "keep_by", "message"),
    [
        ([{"prompt": "a"}, {"prompt": "b"}], "loss", "none of its 2 rows has a right answer"),
        ([{"prompt": f"p{i}", "references": ["x"]} for i in range(8)], "gold", "too few to choose a checkpoint"),
    ],
)
def test_a_gold_set_that_is_of_no_use_is_refused_before_anything_is_written(data, tmp_path, rows, keep_by, message):  # noqa: F811
    """And before the model is loaded."""
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        fine_tune(data, path, tmp_path / "run", keep_by=keep_by)
    assert not (tmp_path / "run").exists()


def test_checkpoints_to_choose_among_are_spread_over_the_run():
    """The best, the last and, up to a number, those that leave the smallest gaps."""
    assert spread_out([10, 20, 30, 40, 50, 60], {60, 30}, 4) == {20, 30, 50, 60}
    assert spread_out([10, 20, 30], {30}, 0) == {30}
    assert spread_out([10, 20, 30], {30, 5}, 9) == {5, 10, 20, 30}
    kept: set[int] = set()
    for step in range(10, 1010, 10):  # as they are saved, one after the other
        kept = spread_out(sorted(kept | {step}), {step}, 6)
    assert len(kept) == 6
    assert max(b - a for a, b in itertools.pairwise(sorted(kept | {0}))) <= 400
