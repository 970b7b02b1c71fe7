"""What a user may get wrong, as the command answers it: in words, with what to do, and nothing lost."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tests.gold import tiny  # noqa: E402
from tests.gold.test_command import judge  # noqa: E402, F401 - a fixture


def told(out: str, kind: str) -> list[tuple[str, str]]:
    """Return severity and message of the findings of a kind."""
    return [(f["severity"], f["message"]) for f in json.loads(out)["findings"] if f["kind"] == kind]


def test_references_that_never_can_match(judge, tiny_models, tmp_path):  # noqa: F811
    """Counted by their cause, and critical where it is all of them."""
    rows = tiny.questions(24)
    for row in rows[:6]:
        row["completion"] = "..."  # nothing is left of it once signs are gone
    words = ["--tuned", tiny_models.whole, "--base", tiny_models.base, "--metric", "exact_match", "--json"]
    _, out, _ = judge(tiny.write_rows(tmp_path / "some.jsonl", rows), *words)
    ((severity, message),) = told(out, "gold_unmatchable")
    assert severity == "warning" and message.startswith("6 of 24") and "nothing is left" in message
    _, out, _ = judge(tiny.write_rows(tmp_path / "all.jsonl", rows[:6]), *words)
    assert told(out, "gold_unmatchable")[0][0] == "critical"
    long = [{**row, "completion": "word " * 8} for row in tiny.questions(12)]
    _, out, _ = judge(tiny.write_rows(tmp_path / "long.jsonl", long), *words, "--max-new-tokens", "5")
    assert "longer than --max-new-tokens 5" in told(out, "gold_unmatchable")[0][1]


def test_an_adapter_of_another_base_model(judge, tiny_models, tmp_path):  # noqa: F811
    """Refused where it does not fit, and told where it fits all the same."""
    tuned = ["--tuned", tiny_models.run / "checkpoint-150", "--json"]
    smaller = tiny.save(tiny.base_model(hidden=32), tmp_path / "smaller")
    code, out, err = judge(tiny_models.gold, *tuned, "--base", smaller)
    assert (code, out) == (3, "")
    assert "does not fit the base model" in err and "size mismatch" in err
    assert f"it was made for {tiny_models.base}; give the base model it was trained on" in err
    other = tiny.save(tiny.base_model(seed=7), tmp_path / "other")
    _, out, _ = judge(tiny_models.gold, *tuned, "--base", other)
    assert f"--base {tiny_models.base}" in told(out, "gold_other_base")[0][1]
    copied = shutil.copytree(tiny_models.base, tmp_path / "a copy of it")
    _, out, _ = judge(tiny_models.gold, *tuned, "--base", copied)
    assert told(out, "gold_other_base") == []


def test_a_tuned_model_of_another_tokenizer(judge, tiny_models, tmp_path):  # noqa: F811
    """Answers are compared, losses are not, and the page says so."""
    other = shutil.copytree(tiny_models.whole, tmp_path / "other")
    saved = json.loads((other / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (other / "tokenizer.json").write_text(json.dumps(saved))
    words = ["--tuned", other, "--base", tiny_models.base]
    _, out, _ = judge(tiny_models.gold, *words, "--forgetting", "embedded", "--json")
    assert "2 tokens differ" in told(out, "gold_other_tokenizer")[0][1]
    assert (json.loads(out)["answer"], json.loads(out)["forgetting"]) == ("better", [])
    code, _, err = judge(tiny_models.gold, *words, "--metric", "reference_loss")
    assert code == 2 and "use a metric on answers" in err


def test_an_adapter_that_changes_nothing(judge, tiny_models, tmp_path):  # noqa: F811
    """As one that was saved before the first step."""
    folder = tiny.with_adapter(tiny_models.base, [], 0, tmp_path / "fresh")
    code, out, _ = judge(tiny_models.gold, "--tuned", folder, "--fail-on", "not-shown", "--json")
    ((severity, message),) = told(out, "gold_same_model")
    assert severity == "critical"
    assert "the adapter changes nothing" in message and "saved before training" in message
    assert (code, json.loads(out)["answer"]) == (1, "not shown")


def test_a_model_that_never_ends_its_answers(judge, tiny_models, tmp_path):  # noqa: F811
    """Cut at the limit, counted, and asked whether the end token was learnt."""
    from transformers import LlamaForCausalLM

    endless = LlamaForCausalLM.from_pretrained(tiny_models.base)
    tiny.teach(endless, tiny.questions(), with_end=False)
    folder = tiny.save(endless, tmp_path / "endless")
    _, out, _ = judge(tiny_models.gold, "--tuned", folder, "--base", tiny_models.base, "--json")
    messages = [message for _, message in told(out, "gold_no_end") if message.startswith("endless")]
    assert "was the end token learnt?" in messages[0]
    answers = [json.loads(line) for line in (tmp_path / "questions.answers.jsonl").read_text().splitlines()]
    assert max(line["tokens"] for line in answers) == 16


def test_out_of_memory(judge, tiny_models, tmp_path, monkeypatch):  # noqa: F811
    """Fewer answers at a time until it fits; where one does not fit, the answers before it are kept."""
    from sightline.gold import slots

    real, room = slots.decode, [4, 60]

    def short_of_memory(model, prompts, limits, ends, on_answer, *, width, **options):
        room[1] -= 1
        if width > room[0] or room[1] <= 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        real(model, prompts, limits, ends, on_answer, width=width, **options)

    monkeypatch.setattr(slots, "decode", short_of_memory)
    words = ["--tuned", tiny_models.whole, "--base", tiny_models.base, "--batch-size", "8"]
    code, out, _ = judge(tiny_models.gold, *words, "--json")
    assert (code, json.loads(out)["answer"]) == (0, "better")
    (tmp_path / "questions.answers.jsonl").unlink()
    room[1] = 3  # halved once, then the first chunk of the base model, then nothing fits any more
    more = tiny.write_rows(tmp_path / "more.jsonl", tiny.questions(200))
    code, out, err = judge(more, *words)
    assert (code, out) == (3, "")
    assert "not enough memory to answer a single prompt" in err and "--max-new-tokens" in err
    assert len((tmp_path / "more.answers.jsonl").read_text().splitlines()) == 8 * 16
