"""Models judged for real: tiny ones, from the gold set to the answer."""

from __future__ import annotations

import json
import sys
import types

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from sightline.errors import SightlineError, UsageError  # noqa: E402
from sightline.evaluation import evaluate  # noqa: E402
from sightline.gold.answers import AnswerFile  # noqa: E402
from sightline.gold.asking import Asked, judge_models  # noqa: E402
from sightline.gold.generation import generator  # noqa: E402
from sightline.gold.goldset import read_gold  # noqa: E402
from sightline.gold.judge import judge_pair  # noqa: E402
from sightline.gold.models import Candidate, Models  # noqa: E402
from sightline.runs.gold import GoldAnswer  # noqa: E402
from tests.gold import tiny  # noqa: E402

TEXTS = tuple(f"It was a {word} day, and nobody knew what to do about number {i}." for i, word in enumerate("abcdefgh"))


def gold(n: int = 40, **columns):
    return read_gold((({**row, **columns}, f"line {i}") for i, row in enumerate(tiny.questions(n))), "questions")


def adapter(tiny_models, step: int) -> Candidate:
    return Candidate(tiny_models.run / f"checkpoint-{step}", f"checkpoint-{step}", step)


class Heard:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, int]] = []
        self.findings: list[str] = []
        self.done = 0

    def begins(self, model: str, what: str, total: int) -> None:
        self.begun.append((model, what, total))

    def goes_on(self, progress) -> None:
        self.done = progress.done

    def found(self, finding) -> None:
        self.findings.append(finding.kind)


def test_a_taught_adapter_is_better_and_has_forgotten(tiny_models, tmp_path):
    """With groups, forgetting, progress and all answers on disk."""
    heard = Heard()
    path = tmp_path / "gold.jsonl"
    judgement = judge_models(
        gold(),
        Models(str(tiny_models.base), tiny_models.run / "checkpoint-150"),
        [adapter(tiny_models, 10), adapter(tiny_models, 150)],
        evaluate,
        Asked(general_texts=TEXTS),
        answers=AnswerFile(path),
        watcher=heard,
    )
    first, last = judgement.comparisons
    assert (first.answer, last.answer) == (GoldAnswer.NOT_SHOWN, GoldAnswer.BETTER)
    assert last.tuned.value > 0.9
    assert judgement.choice is not None
    assert judgement.choice.checkpoint == "checkpoint-150"
    assert [group.group for group in last.groups] == ["g0", "g1"]
    assert [f.checkpoint for f in judgement.forgetting] == ["checkpoint-10", "checkpoint-150"]
    assert {(m, w) for m, w, _ in heard.begun} >= {("base", "answers"), ("checkpoint-150", "general text")}
    assert "gold_size" in heard.findings
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 3 * 40
    assert sum(line["scores"]["exact_match"] for line in lines if line["model"] == "checkpoint-150") == last.wins
    assert judgement.predictions == str(path)


def test_a_model_judged_against_itself_is_not_shown_different(tiny_models):
    """And is said to be the base model."""
    same = Candidate(tiny_models.base, "same")
    judgement = judge_models(gold(), Models(str(tiny_models.base)), [same], evaluate, Asked(general_texts=TEXTS))
    assert judgement.answer is GoldAnswer.NOT_SHOWN
    assert judgement.comparisons[0].ties == 40
    assert judgement.forgetting[0].answer is GoldAnswer.NOT_SHOWN
    assert "gold_same_model" in {finding.kind for finding in judgement.findings}


def test_another_metric_needs_no_new_answers(tiny_models, tmp_path):
    """Answers are kept by what they follow from, and the metric is none of it."""
    path, candidate = tmp_path / "gold.jsonl", Candidate(tiny_models.whole, "whole")
    judge_models(gold(), Models(str(tiny_models.base)), [candidate], evaluate, answers=AnswerFile(path))
    heard = Heard()
    asked = Asked(metrics=("token_f1", "exact_match"))
    judgement = judge_models(
        gold(), Models(str(tiny_models.base)), [candidate], evaluate, asked, answers=AnswerFile(path), watcher=heard
    )
    assert [c.metric for c in judgement.comparisons] == ["token_f1", "exact_match"]
    assert {total for _, what, total in heard.begun if what == "answers"} == {0}


def test_only_the_chosen_checkpoint_is_asked_the_rows_that_are_reported(tiny_models, tmp_path):
    """The others are asked those that choose, and the judgement is the one of asking everything."""
    candidates = [adapter(tiny_models, 10), adapter(tiny_models, 150)]
    models, path = Models(str(tiny_models.base)), tmp_path / "gold.jsonl"
    asked = Asked(general_texts=TEXTS, keep_by_gold=True)
    judgement = judge_models(gold(), models, candidates, evaluate, asked, answers=AnswerFile(path))
    assert judgement.choice is not None
    aside = judgement.choice.choosing_rows
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    counted = {
        name: sum(line["model"] == name for line in lines) for name in ("base", "checkpoint-10", "checkpoint-150")
    }
    assert counted == {"base": 40, "checkpoint-10": aside, "checkpoint-150": 40}
    assert all("exact_match" in line["scores"] for line in lines)
    assert judgement.n == 40 - aside
    assert [p.checkpoint for p in judgement.by_step] == ["base", "checkpoint-10", "checkpoint-150"]
    assert [f.checkpoint for f in judgement.forgetting] == ["checkpoint-150"]
    told = [finding.message for finding in judgement.findings]
    assert len(told) == len(set(told))
    everything = judge_models(gold(), models, candidates, evaluate, Asked(general_texts=TEXTS))
    whole, part = everything.by_step[-1].score, judgement.comparisons[0].tuned.value
    assert abs(whole - part) < 0.2


def test_metrics_of_likelihood(tiny_models):
    """Choices and right answers are scored exactly, without a single answer."""
    candidate = Candidate(tiny_models.whole, "whole")
    choices = gold(choices=list(tiny.COLOURS))
    heard = Heard()
    judgement = judge_models(choices, Models(str(tiny_models.base)), [candidate], evaluate, watcher=heard)
    assert judgement.comparisons[0].metric == "multiple_choice"
    assert judgement.answer is GoldAnswer.BETTER
    assert "answers" not in {what for _, what, _ in heard.begun}
    losses = judge_models(gold(), Models(str(tiny_models.base)), [candidate], evaluate, Asked(("reference_loss",)))
    assert losses.answer is GoldAnswer.BETTER
    assert losses.comparisons[0].difference < 0


def test_an_end_token_that_was_never_learnt_is_told(tiny_models, tmp_path):
    """Exact match 0 beside right answers that go on."""
    from transformers import LlamaForCausalLM

    endless = LlamaForCausalLM.from_pretrained(tiny_models.base)
    tiny.teach(endless, tiny.questions(), with_end=False)
    folder = tiny.save(endless, tmp_path / "endless")
    judgement = judge_models(gold(), Models(str(tiny_models.base)), [Candidate(folder, "endless")], evaluate)
    assert judgement.comparisons[0].tuned.value < 0.1
    told = [f.message for f in judgement.findings if f.kind == "gold_no_end" and f.message.startswith("endless")]
    assert "begin with the right answer and go on: was the end token learnt?" in told[0]


def test_losses_of_two_tokenizers_are_not_compared(tiny_models, tmp_path):
    """Answers are."""
    import shutil

    folder = tmp_path / "other"
    shutil.copytree(tiny_models.whole, folder)
    saved = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    candidate = Candidate(folder, "other")
    models = Models(str(tiny_models.base), folder)
    with pytest.raises(UsageError, match="different tokenizers, so their losses per token cannot be compared"):
        judge_models(gold(), models, [candidate], evaluate, Asked(("reference_loss",)))
    judgement = judge_models(gold(), Models(str(tiny_models.base), folder), [candidate], evaluate, Asked((), TEXTS))
    assert judgement.answer is GoldAnswer.BETTER
    assert judgement.forgetting == ()
    assert "gold_other_tokenizer" in {finding.kind for finding in judgement.findings}


def test_two_models_at_hand(tiny_models):
    """As a training command has them: no folders, two functions."""
    from transformers import LlamaForCausalLM

    base, tuned = (LlamaForCausalLM.from_pretrained(folder) for folder in (tiny_models.base, tiny_models.whole))
    read = tiny.tokenizer()
    judgement = judge_pair(gold(), generator(base, read), generator(tuned, read))
    assert judgement.answer is GoldAnswer.BETTER


class FakeVllm(types.ModuleType):
    """vLLM's interface in front of a model of transformers."""

    def __init__(self) -> None:
        super().__init__("vllm")
        self.loaded: list[tuple[str, dict]] = []
        self.LLM = self._engine
        self.SamplingParams = types.SimpleNamespace

    def _engine(self, model: str, **options):
        from peft import PeftModel
        from transformers import LlamaForCausalLM

        from sightline.gold.generation import Settings, TransformersBackend

        self.loaded.append((model, options))

        def generate(prompts, params, lora_request=None, use_tqdm=True):
            answering = LlamaForCausalLM.from_pretrained(model)
            if lora_request is not None:
                answering = PeftModel.from_pretrained(answering, lora_request.path)
            outputs: list = [None] * len(prompts)

            def on(i, tokens, ended):
                ids = [*tokens, 0] if ended else tokens
                completion = types.SimpleNamespace(token_ids=ids, finish_reason="stop" if ended else "length")
                outputs[i] = types.SimpleNamespace(outputs=[completion])

            limits, ends = [p.max_tokens for p in params], frozenset(params[0].stop_token_ids)
            ids = [p["prompt_token_ids"] for p in prompts]
            TransformersBackend(answering, tiny.tokenizer()).generate(ids, limits, Settings(99, ends), on)
            return outputs

        return types.SimpleNamespace(generate=generate)


def test_vllm_answers_through_the_same_interface(tiny_models, monkeypatch):
    """One engine for base and adapters, another for a whole model; the judgement is that of transformers."""
    vllm = FakeVllm()
    request = types.ModuleType("vllm.lora.request")
    request.LoRARequest = lambda name, number, path: types.SimpleNamespace(name=name, number=number, path=path)
    for name, module in (("vllm", vllm), ("vllm.lora", types.ModuleType("vllm.lora")), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    candidates = [adapter(tiny_models, 150), Candidate(tiny_models.whole, "whole")]
    base = str(tiny_models.base)
    by_vllm = judge_models(gold(), Models(base), candidates, evaluate, Asked(backend="vllm"))
    assert by_vllm == judge_models(gold(), Models(base), candidates, evaluate)
    assert vllm.loaded == [
        (base, {"enable_lora": True, "max_lora_rank": 16}),
        (str(tiny_models.whole), {}),
    ]


def test_vllm_that_is_not_installed(tiny_models, monkeypatch):
    """Answered with what to do."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SightlineError, match="pip install vllm"):
        judge_models(gold(), Models(str(tiny_models.base)), [adapter(tiny_models, 10)], evaluate, Asked(backend="vllm"))
