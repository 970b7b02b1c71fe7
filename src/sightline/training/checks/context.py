"""CheckContext: all that a check may look at, and how a check reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.runs import ExampleLosses, Finding, Severity
from sightline.training.base_model import local_folder
from sightline.training.cadence import Cadence
from sightline.training.checks.weights import Weights, planned_weights, read_weights
from sightline.training.hardware import Hardware
from sightline.training.recipe import Recipe
from sightline.training.rows import Example, TokenisedRows

if TYPE_CHECKING:
    from sightline.training.prepare import Prepared

SAMPLE = 2000
"""Rows that checks on text look at: enough to see a fault of one row in five hundred."""


@dataclass(frozen=True, eq=False, slots=True)
class CheckContext:
    """All that a check may look at; nothing in it is changed."""

    recipe: Recipe
    tokenizer: Any
    model_config: Any
    train_rows: TokenisedRows
    eval_rows: TokenisedRows | None
    gold_rows: tuple[Example, ...]
    cadence: Cadence
    hardware: Hardware
    max_length: int
    weights: Weights | None = None
    """Headers of the base model's files; None where they cannot be read."""
    losses: ExampleLosses | None = None
    """Losses of the validation rows under a model near the one wanted, once they are known."""

    @classmethod
    def of(cls, prepared: Prepared, losses: ExampleLosses | None = None) -> CheckContext:
        """Gather what is known once rows and tokenizer are ready.

        Parameters
        ----------
        prepared : Prepared
            From ``prepare(recipe)``.
        losses : ExampleLosses, optional
            Of the validation rows, from an earlier run or evaluation: the size they need is then told from them.

        Returns
        -------
        CheckContext
            With the headers of the model's weight files.
        """
        folder = local_folder(prepared.recipe.model_name_or_path)
        weights = read_weights(folder) if folder is not None else None
        return cls(
            recipe=prepared.recipe,
            tokenizer=prepared.tokenizer,
            model_config=prepared.model_config,
            train_rows=prepared.train_rows,
            eval_rows=prepared.eval_rows,
            gold_rows=prepared.gold_rows,
            cadence=prepared.cadence,
            hardware=prepared.hardware,
            max_length=prepared.max_length,
            weights=weights or planned_weights(prepared.model_config),
            losses=losses,
        )

    @property
    def model_folder(self) -> Path | None:
        """Folder of the base model; None for one of the hub."""
        return local_folder(self.recipe.model_name_or_path)

    @property
    def text_config(self) -> Any:
        """The part of the model's config that describes its text model."""
        config = self.model_config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    def sample(self) -> tuple[Example, ...]:
        """Return at most ``SAMPLE`` training rows, evenly spread over the file."""
        examples = self.train_rows.examples
        if len(examples) <= SAMPLE:
            return examples
        return tuple(examples[i] for i in np.linspace(0, len(examples) - 1, SAMPLE).astype(int))


def finding(kind: str, severity: Severity, message: str, evidence: Mapping[str, Any] | None = None) -> Finding:
    """Return a Finding of a check: it concerns no step, and it is a plain fact."""
    return Finding(kind=kind, severity=severity, message=message, evidence=dict(evidence or {}))


def places(examples: tuple[Example, ...] | list[Example], most: int = 3) -> str:
    """Return where the first few rows stand, for a message."""
    shown, file = [], None
    for example in examples[:most]:
        place, _, line = example.where.rpartition(", ")
        shown.append(line.removeprefix("line ") if place == file and line.startswith("line ") else example.where)
        file = place
    return ", ".join(shown) + (", …" if len(examples) > most else "")


def share(part: int, whole: int) -> str:
    """Return a share in words that fit its size: ``3 of 2,000 (0.15 %)``."""
    percent = 100 * part / whole if whole else 0.0
    digits = f"{percent:.0f}" if percent >= 10 or percent == 0 else f"{percent:.2g}"
    return f"{part:,} of {whole:,} ({digits} %)"


def plural(count: int, noun: str) -> str:
    """Return ``1 row`` or ``3 rows``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
