"""Eight faults met in real fine-tunes: each is caught on the real files, or cannot happen here.

The files (two small base models, public data sets) stand beside the project on some machines only.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from sightline.runs import Finding, Severity
from sightline.training.checks import CheckContext, run_checks
from sightline.training.prepare import Prepared, prepare
from sightline.training.recipe import Recipe
from sightline.training.rows import IGNORED

from .synthetic import CPU, shared, write_rows


def ready(model: str, train: str, **keys: object) -> Prepared:
    paths = {key: str(shared("data", str(keys.pop(key)))) for key in ("eval_dataset", "gold") if key in keys}
    overrides = {"model_name_or_path": str(shared("models", model)), "dataset": str(shared("data", train))}
    return prepare(Recipe.load(None, overrides | paths | keys), CPU)


def kinds(prepared: Prepared) -> dict[str, Finding]:
    findings = {f.kind: f for f in run_checks(CheckContext.of(prepared))}
    assert "check_failed" not in findings
    return findings


def test_1_the_text_of_the_end_token_is_not_one_token(tmp_path):
    """Caught; and it does no harm here: rows end in the id itself."""
    model = tmp_path / "model"
    shutil.copytree(shared("models", "tinystories-656k", "upstream"), model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").unlink()
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    prepared = ready("tinystories-656k", "banking77/val.jsonl", tokenizer_name_or_path=str(model), use_peft=True)
    assert "end_token_text_split" in kinds(prepared)
    assert "end_token_not_learnt" not in kinds(prepared)
    rows = prepared.train_rows
    assert (rows.input_ids[rows.offsets[1:] - 1] == 2).all()


@pytest.mark.parametrize(("end", "critical"), [("</s>", True), ("<s>", False)])
def test_2_the_end_token_is_untrained_and_frozen(end, critical):
    prepared = ready("stories260k", "banking77/val.jsonl", eos_token=end, lora_r=16)
    assert ("end_token_untrained" in kinds(prepared)) is critical
    if critical:
        assert kinds(prepared)["end_token_untrained"].severity is Severity.CRITICAL
        whole = ready("stories260k", "banking77/val.jsonl", eos_token=end)
        assert kinds(whole)["end_token_untrained"].severity is Severity.INFO


@pytest.mark.parametrize("upstream", [True, False])
def test_3_characters_that_get_lost(tmp_path, upstream):
    """Dropped without a trace by the rebuilt tokenizer, <unk> by the repaired one: both are told."""
    records = [{"prompt": f"What does item {i} cost>", "completion": f"£{i}0"} for i in range(40)]
    tokenizer = shared("models", "tinystories-656k")
    prepared = prepare(
        Recipe.load(
            None,
            {
                "model_name_or_path": str(tokenizer),
                "tokenizer_name_or_path": str(tokenizer / "upstream" if upstream else tokenizer),
                "dataset": str(write_rows(tmp_path / "rows.jsonl", records)),
            },
        ),
        CPU,
    )
    finding = kinds(prepared)["unknown_characters"]
    assert finding.evidence["characters"] == "£"
    assert finding.severity is Severity.CRITICAL


@pytest.mark.parametrize(("seam", "caught"), [((":", " "), True), ((">", ""), False)])
def test_4_tokens_across_the_end_of_the_prompt(tmp_path, seam, caught):
    import orjson

    lines = shared("data", "banking77", "val.jsonl").read_bytes().splitlines()[:200]
    records = [
        {"prompt": r["prompt"].removesuffix(">") + seam[0], "completion": seam[1] + r["completion"]}
        for r in map(orjson.loads, lines)
    ]
    dataset = write_rows(tmp_path / "rows.jsonl", records)
    prepared = prepare(
        Recipe.load(None, {"model_name_or_path": str(shared("models", "tinystories-656k")), "dataset": str(dataset)}),
        CPU,
    )
    assert ("boundary_merge" in kinds(prepared)) is caught


def test_5_the_validation_loss_does_not_depend_on_the_batch():
    """The Trainer's own number does; the exact sum over rows does not (5 % apart on these rows)."""
    import torch
    from transformers import AutoModelForCausalLM

    from sightline.evaluation import EvalSet, evaluate

    prepared = ready("tinystories-656k", "instruct_1100/train.jsonl", eval_dataset="instruct_1100/test.jsonl")
    rows = prepared.eval_rows
    assert rows is not None
    model = AutoModelForCausalLM.from_pretrained(shared("models", "tinystories-656k"), dtype=torch.float32)
    shuffled = rows.select(np.random.default_rng(0).permutation(len(rows)))
    exact = [evaluate(model, EvalSet(part)).loss for part in (rows, shuffled)]
    assert exact[0] == pytest.approx(exact[1], rel=1e-6)
    assert exact[0] == pytest.approx(7.081, abs=2e-3)  # the token mean, whatever the batch


def test_6_what_only_costs_on_a_cpu_is_off_and_told_when_asked_for():
    plain = ready("tinystories-656k", "banking77/val.jsonl").sft_arguments()
    assert (plain["bf16"], plain["activation_checkpointing"]) == (False, False)
    asked = ready("tinystories-656k", "banking77/val.jsonl", bf16=True, gradient_checkpointing=True)
    assert "costly_on_cpu" in kinds(asked)
    busy = replace(CheckContext.of(asked), hardware=replace(CPU, cores=2, threads=2, load=4.0))
    assert "busy_machine" in {f.kind for f in run_checks(busy)}


def test_7_a_low_loss_is_no_gold_score():
    """Without a gold set one is advised, because nothing else shows it."""
    assert "no_gold_set" in kinds(ready("tinystories-656k", "banking77/val.jsonl"))
    with_gold = ready("tinystories-656k", "banking77/val.jsonl", gold="banking77/test.jsonl")
    assert "no_gold_set" not in kinds(with_gold)


@pytest.mark.parametrize(
    ("train", "other", "side", "prompts", "of"),
    [
        ("instruct_1100/train.jsonl", "instruct_1100/val.jsonl", "validation", 4, 55),
        ("instruct_1100/train.jsonl", "instruct_1100/test.jsonl", "gold", 1, 109),
        ("banking77/train.jsonl", "banking77/test.jsonl", "gold", 6, 3079),
        ("webnlg_2017/train.jsonl", "webnlg_2017/test_gold.jsonl", "gold", 10, 1862),
    ],
)
def test_8_released_sets_that_leak(train, other, side, prompts, of):
    """As many as were counted by hand, on each released set."""
    keys = {"eval_dataset": other} if side == "validation" else {"gold": other, "eval_size": 0}
    finding = kinds(ready("tinystories-656k", train, **keys))[f"prompts_in_train_and_{side}"]
    assert (finding.evidence["prompts"], finding.evidence["of"]) == (prompts, of)


def test_the_split_never_leaks_on_a_set_that_repeats_prompts():
    prepared = ready("stories260k", "instruct_1100/train.jsonl")
    assert "prompts_in_train_and_validation" not in kinds(prepared)
    row = prepared.train_rows[0]
    assert (row.labels != IGNORED).any()
