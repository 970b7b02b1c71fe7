"""Tasks of lm-evaluation-harness: its scores, our comparison. The harness itself is played by a stand-in."""

from __future__ import annotations

import sys
import types

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from sightline.errors import DataError, SightlineError, UsageError
from sightline.evaluation import evaluate
from sightline.gold.asking import Asked, judge_models
from sightline.gold.generation import generator
from sightline.gold.goldset import read_gold
from sightline.gold.harness import Tasks, judge_tasks, tasks_of
from sightline.gold.models import Candidate, Models
from sightline.runs.gold import GoldAnswer
from tests.gold import tiny


class FakeHarness:
    """The parts of lm_eval 0.4 that are used, with samples shaped as it shapes them."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.fails_with: Exception | None = None

    def install(self, monkeypatch) -> None:
        root = types.ModuleType("lm_eval")
        root.simple_evaluate = self.simple_evaluate
        huggingface, tasks = types.ModuleType("lm_eval.models.huggingface"), types.ModuleType("lm_eval.tasks")
        huggingface.HFLM = types.SimpleNamespace
        tasks.TaskManager = lambda include_path=None: types.SimpleNamespace(
            all_tasks=["colours", "even", "odd", "both"]
        )
        modules = {"lm_eval": root, "lm_eval.models": types.ModuleType("lm_eval.models"), "lm_eval.tasks": tasks}
        for name, module in {**modules, "lm_eval.models.huggingface": huggingface}.items():
            monkeypatch.setitem(sys.modules, name, module)

    def simple_evaluate(self, model, tasks, limit, **options):
        if self.fails_with is not None:
            raise self.fails_with
        self.asked.append({"tasks": tasks, "limit": limit, **options})
        gold = read_gold(((row, "") for row in tiny.questions()), "g").examples[:limit]
        answers = generator(model.pretrained, model.tokenizer)(gold)
        samples = []
        for i, (example, answer) in enumerate(zip(gold, answers, strict=True)):
            right = answer.text in example.references
            samples.append(
                {
                    "doc_id": i,
                    "target": example.references[0],
                    "arguments": [(example.prompt, {"until": []})],
                    "filtered_resps": [answer.text],
                    "filter": "none",
                    "metrics": ["exact_match", "weights"],
                    "exact_match": float(right),
                    "weights": (1.0, 2.0),
                }
            )
        parts = {"even": samples[::2], "odd": samples[1::2]}
        shown = parts if tasks == ["both"] else {"colours": samples}
        better = {name: {"exact_match": True} for name in shown}
        return {"samples": shown, "higher_is_better": better, "group_subtasks": {"both": ["even", "odd"]}}


@pytest.fixture
def harness(monkeypatch) -> FakeHarness:
    fake = FakeHarness()
    fake.install(monkeypatch)
    return fake


def judged(tiny_models, *names: str, **options):
    candidates = [Candidate(tiny_models.run / f"checkpoint-{step}", f"checkpoint-{step}", step) for step in (10, 150)]
    models = Models(str(tiny_models.base), tiny_models.run / "checkpoint-150")
    return judge_tasks(
        Tasks(names, **options), models, candidates, evaluate, Asked(general_texts=("Once upon a time",))
    )


def test_documents_are_compared_one_by_one(harness, tiny_models):
    """With McNemar's test where every document is right or wrong; metrics that are no number are left out."""
    judgement = judged(tiny_models, "colours", limit=36)
    first, last = judgement.comparisons
    assert {c.metric for c in judgement.comparisons} == {"colours/exact_match"}
    assert (first.answer, last.answer) == (GoldAnswer.NOT_SHOWN, GoldAnswer.BETTER)
    assert last.test == "mcnemar_exact"
    assert (judgement.n, harness.asked[0]["limit"]) == (36, 36)
    assert judgement.choice is not None
    assert judgement.choice.checkpoint == "checkpoint-150"
    assert judgement.flips[0].tuned.text in judgement.flips[0].example.references
    assert len(judgement.forgetting) == 2


def test_a_group_of_tasks_is_one_comparison_with_groups(harness, tiny_models):
    """Documents together, each task a group."""
    judgement = judged(tiny_models, "both")
    last = judgement.comparisons[-1]
    assert (last.metric, last.base.n) == ("both/exact_match", 40)
    assert [group.group for group in last.groups] == ["even", "odd"]


def test_what_the_harness_cannot_do_is_said_plainly(harness, tiny_models, monkeypatch):
    """An unknown task, a data set it cannot load, the harness not installed."""
    with pytest.raises(UsageError, match="knows no task nonsense"):
        judged(tiny_models, "colours", "nonsense")
    harness.fails_with = ConnectionError("Couldn't reach the Hub\nlong trace")
    with pytest.raises(DataError, match=r"the harness failed: Couldn't reach the Hub$"):
        judged(tiny_models, "colours")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SightlineError, match="pip install lm-eval"):
        judged(tiny_models, "colours")


def test_names_of_tasks():
    """A file stays a file."""
    assert tasks_of("lm_eval:arc_easy, gsm8k") == ("arc_easy", "gsm8k")
    assert tasks_of("gold.jsonl") is None


TASK = """
task: sightline_colours
dataset_path: json
dataset_kwargs: {{data_files: {rows}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{completion}}}}"
target_delimiter: ""
generation_kwargs: {{until: ["<|end|>"], max_gen_toks: 16, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def test_the_harness_itself_scores_as_we_do(tiny_models, tmp_path, monkeypatch):
    """Where lm-evaluation-harness is installed: a task of one's own on the gold set's rows, row by row."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK.format(rows=tiny_models.gold))
    theirs = judged(tiny_models, "sightline_colours", folder=folder)
    candidates = [Candidate(tiny_models.run / f"checkpoint-{step}", f"checkpoint-{step}", step) for step in (10, 150)]
    gold = read_gold(((row, "") for row in tiny.questions()), "g")
    models = Models(str(tiny_models.base), tiny_models.run / "checkpoint-150")
    ours = judge_models(gold, models, candidates, evaluate, Asked(("exact_match",)))
    for a, b in zip(theirs.comparisons, ours.comparisons, strict=True):
        assert (a.wins, a.losses, a.ties, a.tuned.value) == (b.wins, b.losses, b.ties, b.tuned.value)
    assert ours.comparisons[-1].answer is GoldAnswer.BETTER
