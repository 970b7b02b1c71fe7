"""Exact sums from a Trainer's own pass: those of evaluate(), whatever the batch size, and nothing else changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import transformers as hf
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from trl import SFTConfig, SFTTrainer

from sightline.evaluation import evaluate
from sightline.evaluation.hook import HookedLosses, LossHook
from tests.evaluation.ranks import on_ranks
from tests.evaluation.tiny import CAUSAL, SHAPE, build, rows_of

ROWS = [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in rows_of(13)]
TRAINING = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "bf16": False}


class Hooked(hf.TrainerCallback):
    """Delegates to a LossHook, as a callback of any Trainer does."""

    def __init__(self, hook: LossHook) -> None:
        self.hook = hook
        self.taken: list[HookedLosses | None] = []

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.hook.attach(kwargs["model"])

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.hook.batch_done()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.taken.append(self.hook.take(len(kwargs["eval_dataloader"].dataset)))


def collate(batch: list[Any]) -> dict[str, Any]:
    """Pad a batch at the right."""
    width = max(len(row["input_ids"]) for row in batch)
    pads = [width - len(row["input_ids"]) for row in batch]
    return {
        "input_ids": torch.tensor([r["input_ids"] + [0] * p for r, p in zip(batch, pads, strict=True)]),
        "labels": torch.tensor([r["labels"] + [-100] * p for r, p in zip(batch, pads, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(r["labels"]) + [0] * p for r, p in zip(batch, pads, strict=True)]),
    }


def trainer(model: Any, callback: Any, folder: Any, rows: Any = ROWS, batch_size: int = 4, **options: Any) -> Any:
    """Return a plain Trainer."""
    args = hf.TrainingArguments(str(folder), per_device_eval_batch_size=batch_size, **TRAINING, **options)
    return hf.Trainer(
        model=model, args=args, data_collator=collate, train_dataset=rows, eval_dataset=rows, callbacks=[callback]
    )


def sft_trainer(model: Any, callback: Any, folder: Any, rows: Any = ROWS, batch_size: int = 4, **options: Any) -> Any:
    """Return TRL's SFTTrainer, whose output has log-probabilities instead of logits."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), pad_token="<pad>", eos_token="</s>"
    )
    args = SFTConfig(
        str(folder),
        per_device_eval_batch_size=batch_size,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        **TRAINING,
        **options,
    )
    data = Dataset.from_list(rows)
    return SFTTrainer(
        model=model,
        args=args,
        processing_class=tokenizer,
        data_collator=collate,
        train_dataset=data,
        eval_dataset=data,
        callbacks=[callback],
    )


def assert_equal_to_evaluate(found: HookedLosses | None, model: Any) -> None:
    """Assert that a hooked pass has the rows and the total of the exact evaluation."""
    exact = evaluate(model, ROWS)
    assert found is not None
    assert found.tokens == exact.tokens
    assert found.loss == pytest.approx(exact.loss, rel=1e-6)
    assert found.rows is not None
    np.testing.assert_array_equal(found.rows.token_counts, exact.token_counts)
    np.testing.assert_allclose(found.rows.loss_sums, exact.loss_sums, rtol=2e-6)


@pytest.mark.parametrize("make", [trainer, sft_trainer])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_any_batch_size_gives_the_exact_loss(make: Callable[..., Any], batch_size: int, tmp_path: Path) -> None:
    """The Trainer's own number moves with the batch size; the hooked one does not."""
    model, callback = build(CAUSAL["llama"]), Hooked(LossHook())
    reported = make(model, callback, tmp_path, batch_size=batch_size).evaluate()["eval_loss"]
    assert_equal_to_evaluate(callback.taken[0], model)
    if batch_size < 13:
        assert reported != pytest.approx(callback.taken[0].loss, rel=1e-4)


@pytest.mark.parametrize("family", ["gemma2_softcap", "mixtral_aux"])
def test_auxiliary_losses_are_left_out(family: str, tmp_path: Path) -> None:
    """The load-balancing loss in a mixture's own loss is not the tokens'."""
    model, callback = build(CAUSAL[family]), Hooked(LossHook())
    trainer(model, callback, tmp_path).evaluate()
    assert_equal_to_evaluate(callback.taken[0], model)


def test_adapter_is_seen_through(tmp_path: Path) -> None:
    """The loss of a PeftModel is that of the model inside."""
    model = get_peft_model(build(CAUSAL["llama"]), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    callback = Hooked(LossHook())
    trainer(model, callback, tmp_path, label_names=["labels"]).evaluate()
    assert_equal_to_evaluate(callback.taken[0], model)


def test_total_alone_costs_nothing_and_is_exact(tmp_path: Path) -> None:
    """Without rows only the loss the model has computed is read."""
    model, callback = build(CAUSAL["llama"]), Hooked(LossHook(with_rows=False))
    trainer(model, callback, tmp_path).evaluate()
    found, exact = callback.taken[0], evaluate(model, ROWS)
    assert (found.rows, found.tokens) == (None, exact.tokens)
    assert found.loss == pytest.approx(exact.loss, rel=1e-6)


def test_smoothed_labels_give_no_exact_loss(tmp_path: Path) -> None:
    """A Trainer that keeps the labels from the model has none."""
    callback = Hooked(LossHook())
    trainer(build(CAUSAL["llama"]), callback, tmp_path, label_smoothing_factor=0.1).evaluate()
    assert callback.taken == [None]


def test_other_forwards_do_not_count(tmp_path: Path) -> None:
    """Forwards that belong to no prediction step are not added up; a second pass begins at zero."""
    model, callback = build(CAUSAL["llama"]), Hooked(LossHook())
    made = trainer(model, callback, tmp_path)
    model.eval()
    ids = torch.tensor([[5, 6, 7]])
    model(input_ids=ids, labels=ids)
    evaluate(model, ROWS)
    made.evaluate()
    model.train()
    made.evaluate()
    for found in callback.taken:
        assert_equal_to_evaluate(found, model)


def test_nan_is_not_filtered(tmp_path: Path) -> None:
    """What the Trainer leaves out of its mean shows here."""
    model, callback = build(CAUSAL["llama"]), Hooked(LossHook())
    with torch.no_grad():
        model.model.embed_tokens.weight[ROWS[2]["input_ids"][0]] = torch.nan
    reported = trainer(model, callback, tmp_path, batch_size=1).evaluate()["eval_loss"]
    assert np.isfinite(reported)
    assert np.isnan(callback.taken[0].loss)
    assert callback.taken[0].rows.non_finite >= 1


@pytest.mark.parametrize("make", [trainer, sft_trainer])
def test_training_is_bit_for_bit_the_same(make: Callable[..., Any], tmp_path: Path) -> None:
    """Losses and weights of a dropout model, with the hook and without."""

    def run(callback: Any) -> tuple[list[Any], dict[str, torch.Tensor]]:
        model = build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, attention_dropout=0.2)), loud=1.0)
        made = make(model, callback, tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2, logging_steps=1)
        made.train()
        return [e["loss"] for e in made.state.log_history if "loss" in e], model.state_dict()

    hooked = Hooked(LossHook())
    (losses, weights), (plain_losses, plain) = run(hooked), run(hf.TrainerCallback())
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
    assert len(hooked.taken) == 2


def _on_ranks(n: int, sft: bool) -> list[Any]:
    """Evaluate through a Trainer on every rank; return what each batch size came to."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{world_size}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}
    model, found = build(CAUSAL["llama"]), []
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in (2, 4, 16):
            callback = Hooked(LossHook())
            make = sft_trainer if sft else trainer
            reported = make(model, callback, folder, ROWS[:n], batch_size=batch_size).evaluate()["eval_loss"]
            taken = callback.taken[0]
            found.append((reported, taken.loss, taken.tokens, taken.rows.loss_sums))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "n", "sft"), [(2, 13, False), (2, 13, True), (3, 11, False), (2, 3, False)])
def test_rows_that_fill_the_last_batch_are_left_out(world_size: int, n: int, sft: bool) -> None:
    """Under several ranks the total, the tokens and every row are those of one process; the Trainer's number is not."""
    alone = evaluate(build(CAUSAL["llama"]), ROWS[:n])
    for of_rank in on_ranks(_on_ranks, world_size, n, sft):
        for _, loss, tokens, sums in of_rank:
            assert tokens == alone.tokens
            assert loss == pytest.approx(alone.loss, rel=1e-6)
            np.testing.assert_allclose(sums, alone.loss_sums, rtol=2e-6)
