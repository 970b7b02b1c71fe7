"""Resuming anyone's Trainer under watch: bit-equal where nothing changed, named before the first step where it did."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from sightline.journal import reader
from sightline.training.callback import SightlineCallback

from .tiny import VOCABULARY, collate, tiny_model, tiny_rows, weights

STEPS = 14
"""Of 10 an epoch."""
SAMPLE = ("mid-epoch", "epoch 2", "accumulation 3", "global shuffle of an iterable", "LoRA dropout")
"""Situations of the quick tests; all of them are slow ones."""


class FixedRows(torch.utils.data.IterableDataset):
    """Rows that come in one order, or shuffled by the global random state."""

    def __init__(self, rows: list[Any], shuffle: bool = False) -> None:
        self.rows, self.shuffle = rows, shuffle

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        rows = self.rows if worker is None else self.rows[worker.id :: worker.num_workers]
        order = torch.randperm(len(rows)).tolist() if self.shuffle else range(len(rows))
        return (rows[i] for i in order)


class Augmented(torch.utils.data.Dataset):
    """Rows whose first token is drawn anew at each reading."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        row = self.rows[i]
        return {"input_ids": [random.randrange(VOCABULARY), *row["input_ids"][1:]], "labels": row["labels"]}


def no_dropout() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0,
            attn_pdrop=0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def lora() -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_dropout=0.2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    return get_peft_model(tiny_model(), config)


ROWS = tiny_rows(40)
EPOCHS = {"max_steps": -1, "num_train_epochs": 2.3}
SITUATIONS: dict[str, dict[str, Any]] = {
    "mid-epoch": {},
    "epoch end": {"at": 10},
    "epoch 2": {"at": 12},
    "no dropout": {"model": no_dropout},
    "data_seed": {"data_seed": 11},
    "accumulation 3": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "at": 5},
    "short last accumulation": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 4, "at": 4},
    "2 workers": {"dataloader_num_workers": 2},
    "group_by_length": {"train_sampling_strategy": "group_by_length"},
    "an iterable in fixed order": {"train_dataset": lambda: FixedRows(ROWS)},
    "global shuffle of an iterable": {"train_dataset": lambda: FixedRows(ROWS, shuffle=True)},
    "an iterable of 2 workers": {"train_dataset": lambda: FixedRows(ROWS), "dataloader_num_workers": 2},
    "evaluated every 2 steps": {"eval_strategy": "steps", "eval_steps": 2},
    "ReduceLROnPlateau": {
        "eval_strategy": "steps", "eval_steps": 3, "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"patience": 0}, "at": 9,
    },
    "LoRA dropout": {"model": lora},
    "bf16": {"bf16": True},
    "the first step": {"at": 1},
    "2.3 epochs": {**EPOCHS, "at": 15},
}  # fmt: skip
"""Those of the Trainer that nothing changes in between."""


def trainer_of(folder: Path, situation: dict[str, Any], *, watched: bool = True) -> Trainer:
    given = {k: v for k, v in situation.items() if k not in ("at", "model", "train_dataset")}
    settings: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": 4, "logging_steps": 1,
        "eval_strategy": "no", "save_strategy": "steps", "save_steps": situation.get("at", 6), "learning_rate": 1e-2,
        "seed": 3, "disable_tqdm": True, "report_to": [], "use_cpu": True,
    } | given  # fmt: skip
    model: Callable[[], Any] = situation.get("model", tiny_model)
    rows: Callable[[], Any] = situation.get("train_dataset", lambda: ROWS)
    return Trainer(
        model=model(),
        args=TrainingArguments(**settings),
        train_dataset=rows(),
        eval_dataset=tiny_rows(12, seed=2),
        data_collator=collate,
        callbacks=[SightlineCallback()] if watched else [],
    )


def losses(trainer: Trainer, after: int) -> list[tuple[int, float]]:
    return [(e["step"], e["loss"]) for e in trainer.state.log_history if "loss" in e and e["step"] > after]


def run_unbroken_and_resumed(tmp_path: Path, situation: dict[str, Any]) -> tuple[Any, Any]:
    """Train to the end and, in a copy of the folder, again from its first checkpoint."""
    at = situation.get("at", 6)
    unbroken = trainer_of(tmp_path / "run", situation)
    unbroken.train()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    resumed = trainer_of(tmp_path / "again", situation)
    resumed.train(resume_from_checkpoint=str(tmp_path / "again" / f"checkpoint-{at}"))
    return unbroken, resumed


@pytest.mark.parametrize(
    "name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in SITUATIONS], ids=str
)
def test_an_unchanged_run_goes_on_bit_for_bit(tmp_path, trials, name):
    """Every later loss and the final weights are those of the run left alone, nothing is warned of, one history."""
    tally = trials("C6", "unchanged situations resumed bit for bit")
    situation = SITUATIONS[name]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        unbroken, resumed = run_unbroken_and_resumed(tmp_path, situation)
    at = situation.get("at", 6)
    same = losses(unbroken, at) == losses(resumed, at) and len(losses(resumed, at)) > 1
    same &= all(torch.equal(a, b) for a, b in zip(weights(unbroken), weights(resumed), strict=True))
    tally.count(same, name)
    tally.check()
    assert not [str(w.message) for w in told if "not as before" in str(w.message)]
    once, twice = reader.read(tmp_path / "run"), reader.read(tmp_path / "again")
    assert [s.from_step for s in twice.segments] == [0, at]
    assert twice.train_loss.steps.tolist() == once.train_loss.steps.tolist()
    assert twice.train_loss.values.tolist() == once.train_loss.values.tolist()


BREAKING: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "random augmentation": ({"train_dataset": lambda: Augmented(ROWS)}, {}, "random augmentation"),
    "batch size": ({}, {"per_device_train_batch_size": 2}, "per_device_train_batch_size"),
    "4x1 to 2x2": (
        {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, "gradient_accumulation_steps"
    ),
    "max_steps": ({}, {"max_steps": STEPS + 4}, "max_steps"),
    "seed": ({}, {"seed": 4}, "seed"),
    "ignore_data_skip": ({}, {"ignore_data_skip": True}, "ignore_data_skip"),
    "save_only_model": ({"save_only_model": True}, {}, "save_only_model"),
    "no random states": ({}, {}, "rng_state.pth"),
    "evaluation removed": ({"eval_strategy": "steps", "eval_steps": 4}, {"eval_strategy": "no"}, "eval_strategy"),
    "sdpa to eager": ({}, {"eager": True}, "attn_implementation"),
    "grouped rows in epoch 2": ({"train_sampling_strategy": "group_by_length", "at": 12}, {}, "group_by_length"),
    "inside a logging window": ({"logging_steps": 4}, {}, "logging window"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_the_continuation_is_named_before_the_first_step(tmp_path, trials, name):
    """A warning with the argument's own name comes while ``global_step`` is still that of the checkpoint."""
    tally = trials("C6", "changes that break a continuation named before the first step")
    situation, changed, word = BREAKING[name]
    at = situation.get("at", 6)
    trainer_of(tmp_path, situation | {"max_steps": at + 1}).train()
    checkpoint = tmp_path / f"checkpoint-{at}"
    if name == "no random states":
        (checkpoint / "rng_state.pth").unlink()
    eager = changed.get("eager")
    asked = {"max_steps": at + 1} | {k: v for k, v in changed.items() if k != "eager"}
    resumed = trainer_of(tmp_path, situation | asked)
    if eager:
        resumed.model.set_attn_implementation("eager")
    steps: list[int] = []
    callback = next(c for c in resumed.callback_handler.callbacks if isinstance(c, SightlineCallback))
    told: list[str] = []
    callback.warn = lambda sentence: (told.append(sentence), steps.append(resumed.state.global_step))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resumed.train(resume_from_checkpoint=str(checkpoint))
    found = [step for sentence, step in zip(told, steps, strict=True) if word in sentence]
    tally.count(bool(found) and found[0] == at, f"{name}: {told}")
    tally.check()


@pytest.mark.parametrize(("argument", "value"), [("learning_rate", 1e-3), ("weight_decay", 0.1), ("eval_steps", 3)])
def test_what_a_resume_ignores_is_named(tmp_path, argument, value):
    """Learning rate, weight decay and intervals come from the checkpoint, whatever is asked."""
    situation = {"max_steps": 7, "eval_strategy": "steps", "eval_steps": 2}
    trainer_of(tmp_path, situation).train()
    resumed = trainer_of(tmp_path, situation | {argument: value})
    with pytest.warns(RuntimeWarning, match=f"{argument} {value} is ignored"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_watching_a_resume_changes_nothing(tmp_path):
    """The look at the rows before the first step leaves every random state as it was."""
    trainer_of(tmp_path / "run", {}).train()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    ends = []
    for folder, watched in (("run", True), ("again", False)):
        trainer = trainer_of(tmp_path / folder, {}, watched=watched)
        trainer.train(resume_from_checkpoint=str(tmp_path / folder / "checkpoint-6"))
        ends.append(weights(trainer))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
