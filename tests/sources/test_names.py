"""Metric names: the table, the rules beside it, and their page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sightline.runs.names import (
    ALIASES,
    EPOCH_NAMES,
    STEP_NAMES,
    TIME_NAMES,
    canonical,
    is_loss,
    is_validation,
    judged_metrics,
    lower_is_better,
    not_a_loss,
)
from sightline.sources.readers import READERS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_name_is_documented() -> None:
    """The page shows each alias with what it means, and every column that counts or tells the time."""
    text = (DOCS / "metric_names.md").read_text()
    rows = {cells[1]: cells[0] for line in text.splitlines() if len(cells := line.strip("| ").split(" | ")) == 2}
    shown = {alias: name.strip("`") for name, aliases in rows.items() for alias in re.findall(r"`([^`]+)`", aliases)}
    assert {alias: shown.get(alias) for alias in ALIASES} == ALIASES
    for name in (*STEP_NAMES, *EPOCH_NAMES, *TIME_NAMES):
        assert f"`{name}`" in text


def test_every_format_is_documented() -> None:
    """Every reader's format has its row."""
    text = (DOCS / "sources.md").read_text()
    for reader in READERS:
        assert f"| `{reader.name}` |" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Loss/Validation", "eval_loss"),
        ("val loss", "eval_loss"),
        ("train/grad_norm", "grad_norm"),
        ("eval/rouge1", "eval_rouge1"),
        ("train/train_loss", "train_loss"),
        ("Train-Loss", "loss"),
        ("val/acc", "val/acc"),
        ("train/", "train/"),
        ("", ""),
    ],
)
def test_canonical(name: str, expected: str) -> None:
    """Spelling does not matter; what is unknown stays."""
    assert canonical(name) == expected


@pytest.mark.parametrize(
    ("points", "train", "evaluation"),
    [
        ({"loss": 9, "eval_loss": 3, "eval_b_loss": 4}, "loss", "eval_loss"),
        ({"train_loss": 1, "eval_loss": 3}, "loss", "eval_loss"),
        ({"train_loss_step": 90, "train_loss_epoch": 3, "val_loss_epoch": 3}, "train_loss_step", "val_loss_epoch"),
        ({"nll_loss": 5, "val/rmse_loss": 4, "test_loss": 9}, "nll_loss", "val/rmse_loss"),
        ({"loss": 5, "test_loss": 2}, "loss", "test_loss"),
        ({"loss": 5, "eval_a_loss": 2, "eval_b_loss": 4}, "loss", "eval_b_loss"),
        ({"accuracy": 5, "best_val_loss": 3, "loss_scale": 8}, "loss", "eval_loss"),
    ],
)
def test_judged_metrics(points: dict[str, int], train: str, evaluation: str) -> None:
    """The plainest loss is judged, the Trainer's final average never."""
    assert judged_metrics(points) == (train, evaluation)


def test_what_need_not_fall() -> None:
    """Policy gradients are told from preference losses, which fall."""
    assert not_a_loss({"loss": 1, "reward": 1}) and not_a_loss({"losses/policy_loss": 1})
    assert not_a_loss({"loss": 1, "rewards/chosen": 1, "rewards/margins": 1}) is None


def test_kinds_of_names() -> None:
    """Losses, validation and direction are told by words, not by letters inside words."""
    assert (
        is_loss("val/box_loss") and not is_loss("glossary") and not is_loss("loss_scale") and not is_loss("best_loss")
    )
    assert is_validation("Loss/Validation") and not is_validation("evaluate_interval") and not is_validation("loss")
    assert lower_is_better("eval_wer") and not lower_is_better("eval_f1")
