"""What a person should know before the first step of a run that their own script resumes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerState, TrainingArguments

from sightline.checkpoints import read_parts
from sightline.training.changes import changes


def resume_warnings(
    args: TrainingArguments,
    state: TrainerState,
    *,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    train_dataloader: Any = None,
) -> Iterator[str]:
    """Say what makes the continuation differ from the run left alone, or is ignored.

    Parameters
    ----------
    args : TrainingArguments
        As they are now.
    state : TrainerState
        As the Trainer took it from the checkpoint.
    before, now : mapping
        Facts of the run, as for ``changes``.
    train_dataloader : DataLoader, optional
        Its first row is made twice, to see whether rows are made anew at each reading.

    Yields
    ------
    str
        One sentence for each, beginning with the name of what it is about.
    """
    yield from changes(before, now)
    yield from _given_now(args, before)
    yield from _lacking(Path(args.output_dir) / f"checkpoint-{state.global_step}")
    if args.train_sampling_strategy == "group_by_length" and state.epoch and state.epoch > 1 and state.epoch % 1:
        yield (
            "train_sampling_strategy group_by_length: the order of the rows in this epoch was drawn from a random state "
            "that the Trainer does not have any more, so some rows are seen twice and others not at all"
        )
    if args.logging_strategy == "steps" and state.logging_steps and state.global_step % state.logging_steps:
        yield (
            f"logging_steps {state.logging_steps}: step {state.global_step} lies inside a logging window, so the first "
            "loss logged averages only the steps of this session (the weights are not affected)"
        )
    if _makes_rows_anew(getattr(train_dataloader, "dataset", None)):
        yield (
            "random augmentation: the training rows are made anew each time they are read, by a random state that no "
            "checkpoint holds, so the continuation does not see the rows that the run left alone would have seen"
        )


def _given_now(args: TrainingArguments, before: Mapping[str, Any]) -> Iterator[str]:
    """Name settings that matter by themselves, whatever was set before."""
    old = before.get("arguments")
    told = old if isinstance(old, Mapping) else {}
    if args.ignore_data_skip and told.get("ignore_data_skip", True):
        yield "ignore_data_skip: the epoch's rows are gone through from its first one again"


def _lacking(checkpoint: Path) -> Iterator[str]:
    """Name what an exact resume needs and the checkpoint does not hold."""
    if not checkpoint.is_dir():
        return
    parts = read_parts(checkpoint)
    if parts.is_weights_only:
        yield (
            f"save_only_model: {checkpoint.name} holds no optimizer, schedule or random states, so they start afresh and "
            "every later loss differs"
        )
        return
    for lack in parts.missing:
        yield f"{checkpoint.name} lacks {lack}, which the Trainer passes over in silence; later losses differ"


def _makes_rows_anew(dataset: Any) -> bool:
    """Whether reading a row twice gives two rows; the random states are as before afterwards."""
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or not len(dataset):
        return False
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the legacy state is what datasets use
    try:
        with torch.random.fork_rng():
            first, second = dataset[0], dataset[0]
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
    return not _same(first, second)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)
