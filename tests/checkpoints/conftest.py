"""Checkpoints that the real Trainer wrote: a whole model and a LoRA, four saves each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

KINDS = ("full", "lora")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that trains once for each kind and returns the output folder; not to be changed."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "out"
            _train(made[kind], kind)
        return made[kind]

    return run


@pytest.fixture
def run_copy(trained: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that gives a copy of a trained output folder, free to be damaged."""

    def copied(kind: str) -> Path:
        shutil.copytree(trained(kind), tmp_path / kind)
        return tmp_path / kind

    return copied


def _train(output_dir: Path, kind: str) -> None:
    from tests.training.tiny import tiny_trainer

    trainer = tiny_trainer(output_dir, save_strategy="steps", save_steps=3)
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.1, task_type="CAUSAL_LM")
        trainer.model = get_peft_model(trainer.model, config)
        trainer.model_wrapped = trainer.model
    trainer.train()
