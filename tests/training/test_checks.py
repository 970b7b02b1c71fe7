"""Checks: each fault is found, named and answered with what to do; sound runs are left in peace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from sightline.runs import ExampleLosses, Finding, Severity
from sightline.training.checks import CHECKS, KINDS, CheckContext, run_checks
from sightline.training.checks import run as run_module
from sightline.training.checks.memory import checkpoint_bytes, estimate_memory, trainable_parameters
from sightline.training.checks.plan import learning_rate_band
from sightline.training.checks.resemblance import near_prompts
from sightline.training.checks.validation_size import rows_needed, spread_of
from sightline.training.checks.weights import EMBEDDINGS, planned_weights, read_rows, read_weights

from .synthetic import CHATML, CPU, GPU, byte_tokenizer, model_folder, prepared, rows, word_tokenizer

DOCS = Path(__file__).parents[2] / "docs" / "checks.md"


def found(context_or_folder, records=None, **keys) -> dict[str, Finding]:
    """Run every check on a run and return its findings by kind."""
    context = context_or_folder
    if isinstance(context, Path):
        context = CheckContext.of(prepared(context, records, **keys))
    findings = run_checks(context)
    for finding in findings:
        assert finding.kind in KINDS
        assert "\n" not in finding.message
        assert finding.kind != "check_failed", finding.message
    return {finding.kind: finding for finding in findings}


def sound(folder: Path, **keys) -> CheckContext:
    """Return a run nothing is wrong with."""
    keys = {"eval_records": distinct(400, 1), "use_peft": True, "gold_records": distinct(20, 2)} | keys
    return CheckContext.of(prepared(folder, distinct(300, 0), **keys))


def distinct(n: int, seed: int) -> list[dict[str, str]]:
    """Return rows whose prompts share no wording."""
    rng = np.random.default_rng(seed)
    words = [f"{'bcdfghjklmnpqrstvwz'[i % 19]}{'aeiou'[i % 5]}{i}" for i in range(4000)]
    return [
        {"prompt": " ".join(rng.choice(words, 8)) + "?\n", "completion": " ".join(rng.choice(words, 3))}
        for _ in range(n)
    ]


def test_a_sound_run_has_no_findings(tmp_path):
    assert found(sound(tmp_path)) == {}


def test_most_severe_first_and_a_broken_check_stops_nobody(tmp_path, monkeypatch):
    def check_broken(context):
        raise RuntimeError("first line\nsecond")
        yield

    monkeypatch.setattr(run_module, "CHECKS", (check_broken, *CHECKS))
    findings = run_checks(CheckContext.of(prepared(tmp_path, rows(30), use_peft=True)))
    order = [Severity.CRITICAL, Severity.WARNING, Severity.INFO]
    assert [order.index(f.severity) for f in findings] == sorted(order.index(f.severity) for f in findings)
    [failed] = [f for f in findings if f.kind == "check_failed"]
    assert failed.severity is Severity.INFO
    assert "broken" in failed.message
    assert "first line" in failed.message


def test_every_kind_is_documented():
    page = DOCS.read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"### {kind}\n" not in page] == []


# -- the end token ------------------------------------------------------------------------------------------------


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


# -- text and labels ----------------------------------------------------------------------------------------------


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


# -- the same prompt on two sides ---------------------------------------------------------------------------------


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


# -- enough rows to tell ------------------------------------------------------------------------------------------


def test_too_few_validation_rows(tmp_path):
    kinds = found(tmp_path, distinct(100, 0), eval_records=distinct(6, 1))
    finding = kinds["few_validation_rows"]
    assert finding.severity is Severity.WARNING
    assert finding.evidence["rows_needed"] == rows_needed(0.10) == 385
    assert found(tmp_path, distinct(100, 0), eval_size=0)["no_validation_rows"].severity is Severity.WARNING


def test_rows_needed_is_the_formula_of_a_paired_comparison():
    """With so many rows a change of 1 % stands out in 95 of 100 repetitions of the null, to sampling error."""
    rng = np.random.default_rng(0)
    spread = 0.08
    n = rows_needed(spread)
    means = rng.normal(0, spread, (4000, n)).mean(axis=1)
    assert np.mean(np.abs(means) > 0.01) == pytest.approx(0.05, abs=0.012)


def test_the_spread_follows_from_the_rows_own_losses(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 50, 300)
    losses = ExampleLosses(counts * rng.normal(2.0, 0.2, 300), counts)
    assert 0.01 < spread_of(losses) < 0.05
    context = replace(sound(tmp_path, eval_records=distinct(12, 1)), losses=losses)
    assert found(context)["few_validation_rows"].evidence["rows_needed"] == rows_needed(spread_of(losses))


# -- settings -----------------------------------------------------------------------------------------------------


def test_too_few_evaluations(tmp_path):
    kinds = found(tmp_path, distinct(60, 0), eval_steps=15, max_steps=30)
    assert "lower eval_steps" in kinds["few_evaluations"].message
    assert "few_evaluations" in found(tmp_path, distinct(60, 0), max_steps=2)


def test_logging_and_saving_that_miss_evaluations(tmp_path):
    kinds = found(tmp_path, logging_steps=9, eval_steps=4, save_steps=6, save_total_limit=2)
    assert {"logging_sparser_than_evaluation", "saving_misses_evaluations", "trainer_rotation"} <= set(kinds)


def test_long_warmup(tmp_path):
    assert found(tmp_path, max_steps=20, warmup_steps=40)["long_warmup"].severity is Severity.WARNING
    assert found(tmp_path, max_steps=20, warmup_steps=0.8)["long_warmup"].severity is Severity.INFO
    assert "long_warmup" not in found(tmp_path, max_steps=20, warmup_steps=2)


def test_learning_rates_far_from_the_usual(tmp_path):
    assert "above" in found(tmp_path, learning_rate=0.5)["unusual_learning_rate"].message
    assert "below" in found(tmp_path, learning_rate=1e-8)["unusual_learning_rate"].message
    assert "unusual_learning_rate" not in found(tmp_path, learning_rate=1e-3)


@pytest.mark.parametrize("parameters", [10**6, 10**8, 10**9, 10**10, 10**11])
def test_the_band_holds_what_papers_use(parameters):
    low, high = learning_rate_band(parameters, lora=False)
    assert low <= 2e-5 <= high  # LIMA, Alpaca, Tulu 2: 1e-5 to 2e-5 at 7 to 70 billion
    low, high = learning_rate_band(parameters, lora=True)
    assert low <= 2e-4 <= high  # QLoRA: 1e-4 to 2e-4 at 7 to 65 billion


def test_hardware_that_does_not_fit(tmp_path):
    two = replace(GPU, visible_devices=2)
    assert found(tmp_path, hardware=two)["several_devices_one_process"].severity is Severity.CRITICAL
    assert "several_devices_one_process" not in found(tmp_path, hardware=replace(two, world_size=2))
    old = replace(GPU, bf16=False)
    assert found(tmp_path, hardware=old, bf16=True)["precision_not_supported"].severity is Severity.CRITICAL
    assert "packing_without_flash_attention" in found(tmp_path, hardware=GPU, packing=True)
    costly = found(tmp_path, bf16=True, gradient_checkpointing=True)["costly_on_cpu"]
    assert costly.evidence["settings"] == "bf16, gradient_checkpointing"
    assert "busy_machine" in found(tmp_path, hardware=replace(CPU, cores=2, threads=2, load=6.0))
    assert "busy_machine" not in found(tmp_path, hardware=replace(CPU, cores=2, threads=1, load=6.0))


def test_without_a_gold_set_one_is_advised(tmp_path):
    assert found(tmp_path)["no_gold_set"].severity is Severity.INFO


# -- memory and disk ----------------------------------------------------------------------------------------------


def test_parameters_are_counted_as_peft_counts_them(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    for keys in ({"lora_r": 4}, {"lora_r": 8, "lora_target_modules": "[q_proj, v_proj]"}):
        context = CheckContext.of(prepared(tmp_path, rows(40), **keys))
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert context.weights is not None
        assert context.weights.parameters == sum(p.numel() for p in model.parameters())
        adapted = get_peft_model(model, LoraConfig(**context.recipe.lora_arguments()))
        assert trainable_parameters(context) == adapted.get_nb_trainable_parameters()[0]


def test_shapes_without_files_are_those_of_the_model(tmp_path):
    context = CheckContext.of(prepared(tmp_path, rows(40)))
    planned = planned_weights(context.model_config)
    assert planned is not None
    assert context.weights is not None
    assert planned.parameters == context.weights.parameters
    assert planned.linear() == context.weights.linear()
    assert planned_weights(object()) is None


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_activations_are_estimated_within_a_quarter(tmp_path, lora, half):
    """What autograd really keeps for the backward pass of a model, against the estimate."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model_path = model_folder(tmp_path / "m", hidden=128, layers=3, intermediate_size=256)
    keys = {"lora_r": 16} if lora else {}
    context = CheckContext.of(prepared(tmp_path, rows(40), model=model_path, hardware=replace(CPU, bf16=half), **keys))
    model = AutoModelForCausalLM.from_pretrained(model_path).train()
    if lora:
        model = get_peft_model(model, LoraConfig(**context.recipe.lora_arguments()))
    estimate = estimate_memory(context, checkpointing=False)
    assert estimate is not None
    tokens = int(context.train_rows.lengths.max())
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    body = (model.base_model.model if lora else model).model
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        body(input_ids=torch.ones(8, tokens, dtype=torch.long))
    assert sum(kept.values()) == pytest.approx(estimate.activations, rel=0.25)


def test_memory_that_is_not_there(tmp_path):
    tight = replace(GPU, free_memory_bytes=1_200_000)
    finding = found(tmp_path, hardware=tight, activation_checkpointing=False)["memory"]
    assert finding.severity is Severity.WARNING
    hopeless = replace(GPU, free_memory_bytes=50_000)
    finding = found(tmp_path, hardware=hopeless)["memory"]
    assert finding.severity is Severity.CRITICAL
    assert "use_peft" in finding.message
    assert "memory" not in found(tmp_path, hardware=replace(GPU, free_memory_bytes=None))


def test_disk_that_is_not_there(tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, 300_000))
    finding = found(tmp_path)["disk"]
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence["checkpoints"] == 3
    many = found(tmp_path, save_steps=1, max_steps=20)["disk"]
    assert many.evidence["checkpoints"] == 20
    limited = found(tmp_path, save_steps=1, max_steps=20, save_total_limit=2)["disk"]
    assert limited.evidence["checkpoints"] == 3


def test_checkpoints_are_about_as_large_as_estimated(tmp_path):
    """A real checkpoint of the Trainer, with its optimizer, against the estimate."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model_path = model_folder(tmp_path / "m", hidden=128, layers=3)
    ready = prepared(tmp_path, rows(40), model=model_path)
    estimate = checkpoint_bytes(CheckContext.of(ready))
    arguments = TrainingArguments(
        str(tmp_path / "t"), max_steps=1, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True
    )
    features = [{"input_ids": torch.ones(4, dtype=torch.long), "labels": torch.ones(4, dtype=torch.long)}]
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(model_path),
        arguments,
        train_dataset=features,
        processing_class=ready.tokenizer,
    )
    trainer.train()
    trainer._save_checkpoint(trainer.model, trial=None)
    real = sum(f.stat().st_size for f in (tmp_path / "t" / "checkpoint-1").iterdir())
    assert real == pytest.approx(estimate, rel=0.25)


# -- weight files -------------------------------------------------------------------------------------------------


def test_rows_are_read_from_files_as_they_are(tmp_path):
    import torch
    from safetensors.torch import save_file

    matrix = torch.randn(20, 6)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        save_file({"model.embed_tokens.weight": matrix.to(dtype)}, tmp_path / "model.safetensors")
        weights = read_weights(tmp_path)
        assert weights is not None
        tensor = weights.named(EMBEDDINGS)
        assert tensor is not None
        read = read_rows(tensor, [3, 0, 19])
        assert (read == matrix.to(dtype).float().numpy()[[3, 0, 19]]).all()
        assert read_rows(tensor, [20]) is None


def test_broken_weight_files_say_nothing(tmp_path):
    assert read_weights(tmp_path) is None
    for content in (b"", b"\x08\0\0\0\0\0\0\0not json", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert read_weights(tmp_path) is None


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
