"""Runs of `sightline train` on the embedded base model: twenty steps, a few seconds."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from sightline.demo import base_model_path, demo_rows
from sightline.runs import Run, Severity
from sightline.training.command import Outcome, train
from sightline.training.display import Silent
from sightline.training.recipe import Recipe


def write_demo_rows(folder: Path) -> Path:
    """Write eighty training and twenty validation rows of the demo."""
    rows = demo_rows(seed=0)
    for name, part in (("train", rows.train[:80]), ("validation", rows.validation[:20])):
        lines = [json.dumps({"prompt": r["prompt"], "completion": r["completion"]}) for r in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def settings(data: Path, output_dir: Path, **changes: object) -> list[str]:
    """Return the command line of a run of 20 steps, 10 an epoch."""
    keys = {
        "model_name_or_path": base_model_path(), "dataset": data / "train.jsonl",
        "eval_dataset": data / "validation.jsonl", "output_dir": output_dir, "max_steps": 20,
        "per_device_train_batch_size": 8, "learning_rate": 3e-3,
        "use_peft": True, "lora_r": 8, "lora_dropout": 0.1, "eval_steps": 5, "eval_time_budget": 1.0, "max_length": 96,
        "seed": 1, "use_cpu": True, "early_stopping": False,
    } | changes  # fmt: skip
    given = {key: value for key, value in keys.items() if value is not None}
    return [word for key, value in given.items() for word in (f"--{key}", str(value))]


class Told:
    """A display that remembers what a person was told, and may send this process SIGTERM after a step."""

    def __getattr__(self, name: str) -> Any:
        return getattr(Silent(), name)

    def __init__(self, stop_after: int | None = None) -> None:
        self.notices: list[str] = []
        self.stop_after = stop_after

    def stepped(self, step: int) -> None:
        if step == self.stop_after:
            signal.raise_signal(signal.SIGTERM)

    def notice(self, text: str, severity: Severity) -> None:
        self.notices.append(text)


def run_of(data: Path, output_dir: Path, display: Any = None, **changes: object) -> Outcome:
    """Train in this process."""
    return train(Recipe.load(None, settings(data, output_dir, **changes)), display or Silent())


def points(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return what a continuation must repeat: every loss at its step."""
    names = ("loss", "eval_loss", "probe_loss", "grad_norm", "learning_rate", "num_input_tokens_seen")
    return {
        name: list(zip(run.curves[name].steps.tolist(), run.curves[name].values.tolist(), strict=True))
        for name in names
        if name in run.curves
    }
