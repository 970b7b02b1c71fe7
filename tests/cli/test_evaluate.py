"""`sightline evaluate`: the same loss whatever the batch, and clear words for what cannot be scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from sightline.cli import main
from sightline.demo import base_model_path
from sightline.training.scoring import score_file
from tests.cli.logs import sightline


@pytest.fixture
def rows(tmp_path) -> Path:
    """Twelve rows of unequal length."""
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"Return the {'very ' * i}first item.>", "completion": f"item{i}"} for i in range(12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def evaluated(capsys, *words):
    """Run the command in this process; return its exit code, its document and what it said of errors."""
    code = main(["evaluate", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_the_loss_does_not_depend_on_the_batch(rows, capsys):
    """One row at a time or all at once: the same digits."""
    losses = []
    for tokens in ("1", "100000"):
        code, document, err = evaluated(capsys, base_model_path(), rows, "--batch-tokens", tokens)
        assert code == 0, err
        assert document["rows"] == len(document["examples"]) == 12 and document["non_finite"] == 0
        assert document["tokens"] == sum(example["tokens"] for example in document["examples"])
        losses.append(document["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=2e-7)


def test_a_model_against_itself_differs_in_no_row(rows, capsys):
    """The page says so."""
    assert (
        main(["evaluate", str(base_model_path()), str(rows), "--against", str(base_model_path()), "--width", "44"]) == 0
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "difference +0.000000" in out and "Rows that got worse, in nats: none" in out
    assert "12 rows, " in out and " tokens " in out  # a narrow terminal cuts no number off


def test_a_model_that_reads_fewer_tokens_is_compared_on_what_both_read(tmp_path, capsys):
    """The shorter context counts where it is known in time; else the message says what to give."""
    AutoModelForCausalLM.from_pretrained(base_model_path(), max_position_embeddings=40).save_pretrained(tmp_path / "m")
    AutoTokenizer.from_pretrained(base_model_path()).save_pretrained(tmp_path / "m")
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "Count.>", "completion": "one two " * 60}) + "\n")
    code, document, err = evaluated(capsys, tmp_path / "m", path, "--against", base_model_path())
    assert code == 0, err
    assert document["eval_loss"] == document["against"]["eval_loss"]
    code, _, err = evaluated(capsys, base_model_path(), path, "--against", tmp_path / "m")
    assert code == 3 and "give --max-length 40" in err


def test_what_is_no_model_is_one_clear_line(rows, capsys):
    """Exit code 3, no traceback; once in a process of its own."""
    done = sightline("evaluate", rows, rows)
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    code, _, err = evaluated(capsys, "nowhere/at/all/x", rows)
    assert code == 3 and err.count("\n") == 1


def test_rows_of_token_ids_are_scored_as_they_stand(rows, tmp_path, capsys):
    """Ids with labels, with TRL's mask and with padding give what the text gives, row by row."""
    code, text, _ = evaluated(capsys, base_model_path(), rows)
    tokenised = score_file(str(base_model_path()), str(rows)).rows
    ids, masks, padded = [], [], []
    for row in tokenised:
        row_ids, labels = row.input_ids.tolist(), row.labels.tolist()
        ids.append({"input_ids": row_ids, "labels": labels})
        masks.append({"input_ids": row_ids, "completion_mask": [int(label != -100) for label in labels]})
        padded.append(
            {
                "input_ids": [0, 0, *row_ids],
                "labels": [-100, -100, *labels],
                "attention_mask": [0, 0, *[1] * len(row_ids)],
            }
        )
    for name, records in (("ids", ids), ("masks", masks), ("padded", padded)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        code, document, err = evaluated(capsys, base_model_path(), path)
        assert code == 0, err
        assert document["eval_loss"] == text["eval_loss"] and document["tokens"] == text["tokens"]
        assert document["examples"][3]["where"].endswith(f"{name}.jsonl, line 4")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input_ids": [5, 6, 999_999]}, "bad.jsonl, line 1: token id 999999 is outside the model's vocabulary"),
        ({"input_ids": [5, 6], "labels": [5]}, "line 1: 1 labels for 2 input_ids"),
        ({"input_ids": [5, 6], "labels": [6, -100]}, "line 1: labels differ from input_ids"),
        ({"input_ids": [5, 6], "labels": [-100, -100]}, "its only row has no label to score"),
        ({"input_ids": [0.5]}, "line 1: input_ids must be a list of whole numbers"),
        ({"input_ids": []}, "line 1: input_ids must be a list of whole numbers"),
        ({"input_ids": [[5], [6, 7]]}, "line 1: input_ids must be a list of whole numbers"),
        ({"input_ids": [5, 2**40]}, "line 1: input_ids holds 1099511627776"),
        ({"other": 1}, "line 1: no columns to learn from"),
    ],
)
def test_rows_that_cannot_be_scored_are_one_clear_line(tmp_path, capsys, record, message):
    """Exit code 3, file and line, what was found."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(record) + "\n")
    code, document, err = evaluated(capsys, base_model_path(), path)
    assert (code, document) == (3, None) and err.count("\n") == 1
    assert message in err


def test_rows_past_the_context_are_cut_and_said(tmp_path, capsys):
    """One row is enough; what is cut stands in the notices."""
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "Count.>", "completion": "one two " * 3000}) + "\n")
    code, document, _ = evaluated(capsys, base_model_path(), path)
    assert code == 0 and document["rows"] == 1
    assert "1 of 1 rows is longer than" in document["notices"][0]


def test_a_row_without_a_label_is_said_and_is_no_row_of_the_page(tmp_path, capsys):
    """It has no loss: not one of zero among the highest; an absolute loss has no sign."""
    path = tmp_path / "masked.jsonl"
    records = [{"input_ids": [1, 5, 9], "labels": [-100] * 3}, {"input_ids": [1, 5, 9], "labels": [-100, 5, 9]}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["evaluate", str(base_model_path()), str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 rows has no labelled token and does not count" in out
    assert "masked.jsonl, line 2" in out and "masked.jsonl, line 1" not in out and " +" not in out


def test_broken_weights_are_counted_and_are_a_verdict(rows, tmp_path, capsys):
    """NaN weights give exit code 1, the strings "NaN" and every row counted."""
    model = AutoModelForCausalLM.from_pretrained(base_model_path())
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "mlp" in name).fill_(torch.nan)
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(base_model_path()).save_pretrained(tmp_path / "broken")
    code, document, _ = evaluated(capsys, tmp_path / "broken", rows)
    assert code == 1 and document["non_finite"] == 12 and document["eval_loss"] == "NaN"
    for broken_first, title in ((True, "got worse,"), (False, "got better,")):
        models = [str(tmp_path / "broken"), str(base_model_path())][:: 1 if broken_first else -1]
        assert main(["evaluate", models[0], str(rows), "--against", models[1]]) == 1
        out = capsys.readouterr().out
        assert "12 rows have no finite loss" in out and "nan" not in out.replace(str(tmp_path), "")
        assert out.partition(title)[2].split()[2:6] == ["NaN", "rows.jsonl,", "line", "1"]


@pytest.mark.parametrize("kind", ["classifier", "encoder-decoder"])
def test_a_model_of_another_kind_is_refused(rows, tmp_path, capsys, kind):
    """A head that would be made at random is no model."""
    size = {"vocab_size": 512, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    if kind == "classifier":
        model = LlamaForSequenceClassification(LlamaConfig(**size, num_attention_heads=2, num_labels=3))
    else:
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=512, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        )
    model.save_pretrained(tmp_path / kind)
    AutoTokenizer.from_pretrained(base_model_path()).save_pretrained(tmp_path / kind)
    code, _, err = evaluated(capsys, tmp_path / kind, rows)
    assert code == 3 and err.count("\n") == 1 and "give a causal language model" in err


def test_it_works_from_another_folder_and_says_what_the_hub_cannot_give(rows, tmp_path, capsys, monkeypatch):
    """Relative paths count from where one is; without a network an id of the hub is one clear line."""
    monkeypatch.chdir(tmp_path)
    assert evaluated(capsys, base_model_path(), "rows.jsonl")[0] == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for words in (("nobody/no-model", "rows.jsonl"), (base_model_path(), "nobody/no-rows")):
        code, _, err = evaluated(capsys, *words)
        assert code == 3 and err.count("\n") == 1 and "nobody/no-" in err
