"""Checks of the rows: the end token, text and labels, the same prompt on two sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from sightline.runs import Severity
from sightline.training.checks import run_checks
from sightline.training.checks.resemblance import near_prompts

from .checked import distinct, found, sound
from .synthetic import CHATML, byte_tokenizer, model_folder, prepared, rows, word_tokenizer


def test_no_end_token_at_all(tmp_path):
    tokenizer = byte_tokenizer()
    context = sound(tmp_path)
    tokenizer.eos_token = None
    finding = found(replace(context, tokenizer=tokenizer))["end_token_missing"]
    assert finding.severity is Severity.CRITICAL
    assert "eos_token" in finding.message


def test_an_end_token_whose_text_is_several_tokens(tmp_path):
    """The text behind another word becomes ordinary pieces: its marker is only known after a normaliser's mark."""
    base = Tokenizer.from_str(byte_tokenizer().backend_tokenizer.to_str())
    base.normalizer = normalizers.Prepend("\u2581")
    base.add_special_tokens([AddedToken("<|end|>", normalized=True, special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, pad_token="<pad>", eos_token="<pad>")
    tokenizer._special_tokens_map["eos_token"] = "<|end|>"
    assert tokenizer("x<|end|>", add_special_tokens=False)["input_ids"][-1] != tokenizer.eos_token_id
    context = replace(sound(tmp_path), tokenizer=tokenizer)
    finding = next(f for f in run_checks(context) if f.kind == "end_token_text_split")
    assert finding.severity is Severity.WARNING
    assert "normalized" in finding.message


def test_an_end_token_the_model_does_not_have(tmp_path):
    model = model_folder(tmp_path / "m", byte_tokenizer(), vocab_size=260)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|new|>"})
    tokenizer.save_pretrained(model)
    kinds = found(tmp_path, model=model)
    assert kinds["end_token_outside_vocabulary"].severity is Severity.CRITICAL
    assert kinds["ids_outside_vocabulary"].severity is Severity.CRITICAL


def untrained(matrix):
    """Give the end token's row and thirty others one value, as rows that no training ever touched have."""
    matrix = matrix.copy()
    matrix[[2, *range(250, 280)]] = matrix[2] * (1 + 1e-4 * np.arange(31)[:, None])
    return matrix


def test_an_untrained_end_token_under_lora(tmp_path):
    model = model_folder(tmp_path / "m", embedding=untrained)
    finding = found(tmp_path, model=model, use_peft=True)["end_token_untrained"]
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence["same_rows"] == 30
    full = found(tmp_path, model=model, use_peft=False)["end_token_untrained"]
    assert full.severity is Severity.INFO  # it is trained now
    saved = found(tmp_path, model=model, use_peft=True, lora_modules_to_save="[embed_tokens, lm_head]")
    assert saved["end_token_untrained"].severity is Severity.INFO
    assert "end_token_untrained" not in found(tmp_path, model=model, use_peft=True, eos_token="<s>")


def test_an_end_token_with_a_tiny_embedding(tmp_path):
    def small(matrix):
        matrix = matrix.copy()
        matrix[2] *= 0.01
        return matrix

    model = model_folder(tmp_path / "m", embedding=small)
    assert found(tmp_path, model=model, use_peft=True)["end_token_untrained"].severity is Severity.CRITICAL


def test_generation_that_stops_at_another_token(tmp_path):
    finding = found(tmp_path, use_peft=True, eos_token="<s>")["end_token_not_generation_end"]
    assert finding.evidence == {"end_token_id": 1, "generation_ends": "2"}


def test_rows_that_do_not_teach_the_end_token(tmp_path):
    context = sound(tmp_path)
    unlearnt = replace(context.train_rows, labelled=context.train_rows.labelled & (context.train_rows.input_ids != 2))
    finding = found(replace(context, train_rows=unlearnt))["end_token_not_learnt"]
    assert finding.severity is Severity.CRITICAL


def test_characters_without_a_token(tmp_path):
    records = [
        {"prompt": f"a b {'c d'[i % 3 :]} e" + " f" * i, "completion": "a" if i % 10 else "a £"} for i in range(60)
    ]
    model = model_folder(tmp_path / "m", word_tokenizer())
    finding = found(tmp_path, records, model=model)["unknown_characters"]
    assert finding.severity is Severity.WARNING
    assert finding.evidence["characters"] == "£"
    assert finding.evidence["rows_in_completion"] == finding.evidence["rows"]
    worse = [record | {"completion": "£ £"} for record in records]
    assert found(tmp_path, worse, model=model)["unknown_characters"].severity is Severity.CRITICAL


def test_characters_that_vanish(tmp_path):
    """A normaliser that strips what it does not know leaves no trace but the round trip."""
    base = Tokenizer.from_str(byte_tokenizer().backend_tokenizer.to_str())
    base.normalizer = normalizers.Replace("£", "")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, pad_token="<pad>", eos_token="</s>")
    records = [{"prompt": f"cost {i}?\n", "completion": f"£{i}"} for i in range(40)]
    finding = found(tmp_path, records, model=model_folder(tmp_path / "m", tokenizer))["unknown_characters"]
    assert finding.evidence["characters"] == "£"


def test_lower_casing_loses_nothing(tmp_path):
    base = Tokenizer.from_str(byte_tokenizer().backend_tokenizer.to_str())
    base.normalizer = normalizers.Lowercase()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, pad_token="<pad>", eos_token="</s>")
    assert "unknown_characters" not in found(tmp_path, rows(30), model=model_folder(tmp_path / "m", tokenizer))


def test_tokens_across_the_end_of_the_prompt(tmp_path):
    records = [{"prompt": f"Question {i}: the capital of Fr", "completion": "ance is Paris."} for i in range(40)]
    finding = found(tmp_path, records)["boundary_merge"]
    assert finding.severity is Severity.WARNING
    assert finding.evidence["rows"] == finding.evidence["rows_looked_at"]
    assert "boundary_merge" not in found(tmp_path, rows(40))


def test_rows_cut_left_out_and_empty(tmp_path):
    records = distinct(60, 0)
    records += [{"prompt": f"long answer {i}\n", "completion": "x" * 300} for i in range(3)]
    records += [{"prompt": f"{i}" + "q" * 400, "completion": "a"} for i in range(4)]
    records += [{"prompt": f"empty {i}\n", "completion": " "} for i in range(2)]
    kinds = found(tmp_path, records, eval_records=distinct(20, 1))
    assert kinds["rows_truncated"].evidence["rows"] == 3
    assert kinds["rows_without_label"].evidence["rows"] == 4
    assert kinds["empty_completions"].evidence["rows"] == 2
    assert "line 68, 69" in kinds["empty_completions"].message
    mostly = distinct(10, 0) + [{"prompt": f"{i}" + "q" * 400, "completion": "a"} for i in range(20)]
    assert found(tmp_path, mostly, eval_records=distinct(20, 1))["rows_without_label"].severity is Severity.CRITICAL


def test_leaks_are_counted(tmp_path):
    train = distinct(100, 0)
    leaked = [{"prompt": train[i]["prompt"].upper() + " ", "completion": "z"} for i in range(3)]
    gold = [{"prompt": train[50]["prompt"], "references": ["z"]}, {"prompt": leaked[0]["prompt"], "references": ["z"]}]
    kinds = found(tmp_path, train, eval_records=distinct(30, 1) + leaked, gold_records=gold)
    assert kinds["prompts_in_train_and_validation"].evidence == {
        "prompts": 3, "of": 33, "rows": 3, "train_rows": 3, "copied_rows": 0,
    }  # fmt: skip
    assert kinds["prompts_in_train_and_validation"].severity is Severity.WARNING
    assert kinds["prompts_in_train_and_gold"].evidence["prompts"] == 2
    assert kinds["prompts_in_validation_and_gold"].evidence["rows"] == 1
    assert "near_prompts_in_train_and_validation" not in kinds  # they are the same, not nearly so


def test_a_validation_set_that_is_the_training_set_wastes_the_run(tmp_path):
    kinds = found(tmp_path, distinct(60, 0), eval_records=distinct(60, 0))
    assert kinds["prompts_in_train_and_validation"].severity is Severity.CRITICAL


def test_a_prompt_with_many_answers_is_no_copy(tmp_path):
    train = [{"prompt": "Write a story.", "completion": f"Story {i}."} for i in range(60)]
    other = [{"prompt": "Write a story.", "completion": f"Tale {i}."} for i in range(30)]
    kinds = found(tmp_path, train, eval_records=other)
    assert kinds["prompts_in_train_and_validation"].severity is Severity.WARNING


def test_near_leaks_are_told_apart_from_the_template(tmp_path):
    train = [r | {"prompt": "Please answer the following question briefly: " + r["prompt"]} for r in distinct(200, 0)]
    near = train[7]["prompt"].replace("?", "!").replace("Please", "please,")
    others = [r | {"prompt": "Please answer the following question briefly: " + r["prompt"]} for r in distinct(60, 1)]
    kinds = found(tmp_path, train, eval_records=[*others, {"prompt": near, "completion": "z"}])
    evidence = kinds["near_prompts_in_train_and_validation"].evidence
    assert (evidence["rows"], evidence["most_alike"]) == (1, 1.0)


def test_resemblance_is_the_share_of_word_pairs():
    text = "the quick brown fox jumps over the lazy dog again today as usual"
    assert near_prompts([text], [text.upper()])[0].resemblance == 1.0
    [pair] = near_prompts(["other words altogether here now", text], [text.replace("again", "once")])
    assert pair.train == 1
    assert pair.resemblance == pytest.approx(10 / 14)  # 12 pairs each, 10 shared
    assert near_prompts([text], ["nothing in common with that one here"]) == []
    assert near_prompts([], [text]) == near_prompts([text], []) == near_prompts(["a"], ["a"]) == []


def test_near_prompts_of_many_rows_are_bounded(monkeypatch):
    from sightline.training.checks import resemblance

    train = [r["prompt"] for r in distinct(300, 0)]
    monkeypatch.setattr(resemblance, "BUDGET_CHARACTERS", sum(map(len, train)) // 3)
    pairs = near_prompts(train, [train[0], train[1]])
    assert [(p.other, p.train) for p in pairs] == [(0, 0)]  # every third row is compared, and keeps its place


def test_repeated_rows(tmp_path):
    kinds = found(tmp_path, distinct(90, 0) + [{"prompt": "twice?\n", "completion": "yes"}] * 15)
    assert kinds["duplicate_rows"].evidence == {
        "rows": 14,
        "of": len(prepared(tmp_path, distinct(90, 0) + [{"prompt": "twice?\n", "completion": "yes"}] * 15).train_rows),
        "most": 15,
    }
    assert kinds["duplicate_rows"].severity is Severity.WARNING
    few = found(
        tmp_path, distinct(200, 0) + [{"prompt": "twice?\n", "completion": "yes"}] * 2, eval_records=distinct(9, 1)
    )
    assert few["duplicate_rows"].severity is Severity.INFO


def test_messages_are_checked_too(tmp_path):
    """A conversation's template, end token and prompts go through the same checks."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHATML
    model = model_folder(tmp_path / "m", tokenizer)
    records = [
        {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["completion"]}]}
        for r in distinct(300, 0)
    ]
    validation = [
        records[0],
        *(
            {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": "z"}]}
            for r in distinct(390, 1)
        ),
    ]
    kinds = found(tmp_path, records, model=model, eval_records=validation, gold_records=distinct(5, 3))
    assert set(kinds) == {"prompts_in_train_and_validation"}
