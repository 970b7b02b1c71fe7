"""Memory and disk a run will need, estimated before anything is loaded.

Weights, gradients and the optimizer's state follow from the shapes and are exact to a few percent. Activations are
counted as in [1]_ for a Llama-shaped layer with fused attention; the bytes a unit were measured with PyTorch's
``saved_tensors_hooks`` on layers of several shapes (a test does it again and allows a quarter). To them come the logits
of labelled positions and their gradient.

References
----------
.. [1] V. Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models (2022). arXiv:2205.05198
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding

HIDDEN_BYTES = 42
"""Bytes a layer keeps for its backward pass, a token and unit of the hidden size; norms keep 32 bits in any "
"precision."""
INNER_BYTES = {False: 16, True: 8}
"""The same a unit of the feed-forward layer's inner size, by whether the run computes in 16 bits."""
LORA_BYTES = {False: 4.6, True: 3.0}
"""The same a unit of the inputs of all linear layers, for LoRA's own path and its dropout."""
OPTIMIZER_BYTES = {"adamw": 8, "adafactor": 1, "sgd": 0, "lion": 4, "adagrad": 4, "rmsprop": 4, "ademamix": 12}
"""Bytes of state a trainable parameter, by the beginning of the optimizer's name."""
TIGHT = 0.85
"""Share of free memory from which it is called tight."""
OWN_CHECKPOINTS = 3
"""Checkpoints Sightline has on disk at most: the best, the last, and the one being written."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes a run needs, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def state(self) -> int:
        """What the model and its optimizer take whatever the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it at its peak."""
        return self.state + self.activations + self.logits


def trainable_parameters(context: CheckContext) -> int:
    """Return how many parameters are trained: all, or those of LoRA's matrices."""
    weights, recipe = context.weights, context.recipe
    assert weights is not None
    if not recipe.use_peft:
        return weights.parameters
    targets = recipe.lora_target_modules
    wanted = None if targets == "all-linear" else (targets,) if isinstance(targets, str) else targets
    shapes = [
        shape
        for name, shape in weights.linear().items()
        if wanted is None or name.removesuffix(".weight").rsplit(".", 1)[-1] in wanted
    ]
    saved = [t for n, t in weights.tensors.items() if any(f"{m}.weight" in n for m in recipe.lora_modules_to_save)]
    return sum(recipe.lora_r * sum(shape) for shape in shapes) + sum(prod(t.shape) for t in saved)


def estimate_memory(context: CheckContext, *, checkpointing: bool) -> Memory | None:
    """Estimate the memory of one process at its peak.

    Parameters
    ----------
    context : CheckContext
        With the model's shapes.
    checkpointing : bool
        Whether activations are recomputed.

    Returns
    -------
    Memory or None
        None where the model's shapes are not known.
    """
    config = context.text_config
    hidden, layers = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    if context.weights is None or not hidden or not layers:
        return None
    recipe, trainable = context.recipe, trainable_parameters(context)
    half = context.hardware.bf16 or bool(recipe.arguments.get("fp16")) or bool(recipe.arguments.get("bf16"))
    weight_bytes = {"bfloat16": 2, "float16": 2, "float32": 4}.get(
        recipe.dtype or "", 2 if recipe.use_peft and half else 4
    )
    lengths = np.sort(context.train_rows.lengths)[::-1][: recipe.batch_size]
    tokens = int(lengths[0]) * recipe.batch_size if lengths.size else 0
    labels = int(np.sort(context.train_rows.label_counts)[::-1][: recipe.batch_size].sum())
    layer = int(_layer_bytes(config, half, recipe.use_peft) * tokens)
    kept = (2 if half else 4) * int(hidden) * tokens  # the input of each layer is all that stays
    return Memory(
        weights=context.weights.parameters * weight_bytes + (trainable * 4 if recipe.use_peft else 0),
        gradients=trainable * 4,
        optimizer=trainable * _optimizer_bytes(recipe.arguments),
        activations=int(layers) * kept + layer if checkpointing else int(layers) * layer,
        logits=labels * int(getattr(config, "vocab_size", 0) or 0) * 4 * 2,
    )


def _layer_bytes(config: Any, half: bool, lora: bool) -> float:
    """Return bytes one layer keeps for its backward pass, a token."""
    hidden = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    own = HIDDEN_BYTES * hidden + INNER_BYTES[half] * inner
    return own + (LORA_BYTES[half] * (6 * hidden + inner) if lora else 0.0)


def _optimizer_bytes(arguments: Any) -> int:
    """Return bytes of optimizer state a trainable parameter."""
    name = str(arguments.get("optim", "adamw_torch_fused")).removeprefix("paged_").removeprefix("galore_")
    full = next((size for start, size in OPTIMIZER_BYTES.items() if name.startswith(start)), 8)
    return max(full // 4, min(full, 1)) if "8bit" in name or "4bit" in name else full


def needs_checkpointing(context: CheckContext) -> bool:
    """Whether activations do not fit without recomputing them, but do with it."""
    free = context.hardware.free_memory_bytes
    plain, recomputed = (estimate_memory(context, checkpointing=c) for c in (False, True))
    if free is None or plain is None or recomputed is None:
        return False
    return plain.total > TIGHT * free and recomputed.total < plain.total


def check_memory(context: CheckContext) -> Iterator[Finding]:
    """Compare the estimate with the free memory of the device."""
    given = context.recipe.arguments
    asked = given.get("activation_checkpointing", given.get("gradient_checkpointing"))
    checkpointing = bool(asked) if asked is not None else needs_checkpointing(context)
    estimate, free = estimate_memory(context, checkpointing=checkpointing), context.hardware.free_memory_bytes
    if estimate is None or free is None or estimate.total <= TIGHT * free:
        return
    where = "RAM" if context.hardware.is_cpu else f"memory of {context.hardware.name}"
    parts = (
        f"model {_gib(estimate.weights)}, gradients {_gib(estimate.gradients)}, optimizer {_gib(estimate.optimizer)}, "
        f"activations about {_gib(estimate.activations + estimate.logits)}"
    )
    hopeless = estimate.state > free
    cure = (
        "use LoRA (use_peft: true), dtype: bfloat16, or a smaller model"
        if hopeless
        else "halve per_device_train_batch_size and double gradient_accumulation_steps, or lower max_length"
    )
    message = f"the run needs about {_gib(estimate.total)}, {_gib(free)} of {where} are free ({parts}): {cure}"
    evidence = {"bytes_needed": estimate.total, "bytes_free": free, "bytes_state": estimate.state}
    yield finding("memory", Severity.CRITICAL if hopeless else Severity.WARNING, message, evidence)


def checkpoint_bytes(context: CheckContext) -> int | None:
    """Return bytes of one checkpoint: trained weights, optimizer, tokenizer; None where shapes are not known."""
    if context.weights is None:
        return None
    trainable = trainable_parameters(context)
    weight_bytes = 4 if context.recipe.dtype in (None, "float32") or context.recipe.use_peft else 2
    optimizer = 0 if context.recipe.arguments.get("save_only_model") else _optimizer_bytes(context.recipe.arguments)
    tokenizer = 100 * int(getattr(context.text_config, "vocab_size", 0) or 0) + 2**16
    return trainable * (weight_bytes + optimizer) + tokenizer


def planned_checkpoints(context: CheckContext) -> int:
    """Return how many checkpoints stand on the disk at once, at most."""
    given, cadence = context.recipe.given, context.cadence
    limit = context.recipe.arguments.get("save_total_limit")
    if cadence.save_steps is None:
        return 1
    if not given & {"save_steps", "saves_per_epoch", "save_strategy", "save_total_limit", "load_best_model_at_end"}:
        return OWN_CHECKPOINTS
    count = max(1, cadence.total_steps // cadence.save_steps)
    return min(count, int(limit) + 1) if limit else count


def check_disk(context: CheckContext) -> Iterator[Finding]:
    """Compare the checkpoints planned with the free disk of the output folder."""
    size = checkpoint_bytes(context)
    folder = _existing(context.recipe.output_dir)
    if size is None:
        return
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    count = planned_checkpoints(context)
    needed = size * count
    if needed <= TIGHT * free:
        return
    message = (
        f"{count} checkpoints of about {_gib(size)} need {_gib(needed)}, {_gib(free)} are free in {folder}: a full "
        "disk breaks the run off and leaves a broken checkpoint; free some, choose another output_dir, or set "
        "save_only_model: true"
    )
    severity = Severity.CRITICAL if needed > free else Severity.WARNING
    evidence = {"bytes_needed": needed, "bytes_free": free, "checkpoints": count, "bytes_checkpoint": size}
    yield finding("disk", severity, message, evidence)


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            return folder
    return Path()


def _gib(size: int) -> str:
    """Return bytes in a unit a person reads."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
