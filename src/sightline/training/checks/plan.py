"""Settings against each other and against the hardware: cadence, warm-up, learning rate, precision, processes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding, plural

FEW_EVALUATIONS = 5
"""Evaluations from which the shape of a run begins to show."""


def check_cadence(context: CheckContext) -> Iterator[Finding]:
    """Compare steps, logging, evaluation and saving."""
    cadence = context.cadence
    evidence = {
        "total_steps": cadence.total_steps,
        "steps_per_epoch": cadence.steps_per_epoch,
        "eval_steps": cadence.eval_steps,
        "logging_steps": cadence.logging_steps,
    }
    if cadence.eval_steps is None:
        return
    if cadence.evaluations < FEW_EVALUATIONS:
        cure = (
            "lower eval_steps"
            if cadence.fixed_evaluation and cadence.total_steps > cadence.evaluations
            else "train on more rows, for more epochs or in smaller batches"
        )
        message = (
            f"the run of {plural(cadence.total_steps, 'step')} has {plural(cadence.evaluations, 'evaluation')} after "
            f"the start: too few to tell learning from memorising; {cure}"
        )
        yield finding("few_evaluations", Severity.WARNING, message, evidence)
    if cadence.logging_steps > cadence.eval_steps:
        message = (
            f"the training loss is logged every {cadence.logging_steps} steps but evaluated every "
            f"{cadence.eval_steps}: some evaluations have no training loss beside them; set logging_steps to "
            f"{cadence.eval_steps} or a divisor of it"
        )
        yield finding("logging_sparser_than_evaluation", Severity.WARNING, message, evidence)
    if cadence.save_steps is not None and cadence.fixed_saving and cadence.save_steps % cadence.eval_steps:
        message = (
            f"checkpoints every {cadence.save_steps} steps fall between evaluations every {cadence.eval_steps}: the "
            "best evaluation may not be saved; make save_steps equal to eval_steps, or leave it out"
        )
        yield finding("saving_misses_evaluations", Severity.WARNING, message, evidence)
    if "save_total_limit" in context.recipe.given:
        message = (
            "save_total_limit lets the Trainer delete checkpoints by their files' times, which removes new ones when "
            "a clock steps back or files were copied; leave it out and Sightline keeps the best and the last"
        )
        yield finding(
            "trainer_rotation",
            Severity.INFO,
            message,
            {"save_total_limit": context.recipe.arguments["save_total_limit"]},
        )


def check_warmup(context: CheckContext) -> Iterator[Finding]:
    """See that the learning rate reaches its peak."""
    warmup = context.recipe.arguments.get("warmup_steps", 0)
    total = context.cadence.total_steps
    steps = math.ceil(total * warmup) if warmup < 1 else int(warmup)
    if steps * 2 <= total or steps <= 1:
        return
    never = "never reaches its peak" if steps >= total else f"is still rising for {steps / total:.0%} of the run"
    message = (
        f"warm-up of {steps} steps in a run of {total}: the learning rate {never}; set warmup_steps to about "
        f"{max(1, total // 20)} or 0.03"
    )
    severity = Severity.WARNING if steps >= total else Severity.INFO
    yield finding("long_warmup", severity, message, {"warmup_steps": steps, "total_steps": total})


def check_learning_rate(context: CheckContext) -> Iterator[Finding]:
    """Compare the learning rate with the band that models of this size usually train in."""
    if context.weights is None:
        return
    rate, parameters = context.recipe.learning_rate, context.weights.parameters
    low, high = learning_rate_band(parameters, lora=context.recipe.use_peft)
    if low <= rate <= high:
        return
    method = "LoRA" if context.recipe.use_peft else "full fine-tuning"
    effect = "the loss may blow up or forget what the base knows" if rate > high else "the loss may hardly move"
    message = (
        f"a learning rate of {rate:g} is {'above' if rate > high else 'below'} the usual {low:.0e} to {high:.0e} for "
        f"{method} of {parameters:,} parameters: {effect}; watch the first evaluations"
    )
    evidence = {"learning_rate": rate, "low": low, "high": high, "parameters": parameters}
    yield finding("unusual_learning_rate", Severity.INFO, message, evidence)


def learning_rate_band(parameters: int, *, lora: bool) -> tuple[float, float]:
    """Return the learning rates models of a size are usually fine-tuned with.

    Parameters
    ----------
    parameters : int
        Of the whole model.
    lora : bool
        LoRA takes about ten times the rate of full fine-tuning.

    Returns
    -------
    low, high : float
        A band of more than two decades; the upper end falls with the square root of the size, from 1e-2 for the
        smallest to 1e-4 at a billion parameters and 3e-5 at ten billion (full fine-tuning).

    Notes
    -----
    A rule of thumb, reported as information only: published full fine-tunes of 1 to 70 billion parameters lie between
    1e-6 and 1e-4, those of LoRA between 1e-5 and 1e-3, and models of a few million parameters train well at 3e-3.
    """
    high = min(1e-2, max(3e-5, 1e-4 * math.sqrt(1e9 / max(parameters, 1))))
    return (1e-5, min(2e-2, 10 * high)) if lora else (1e-6, high)


def check_hardware(context: CheckContext) -> Iterator[Finding]:
    """See that what was asked for fits the device."""
    hardware, arguments = context.hardware, context.recipe.arguments
    if hardware.visible_devices > 1 and hardware.world_size == 1:
        message = (
            f"{hardware.visible_devices} GPUs are visible to one process, which TRL refuses to train with: start with "
            f"`torchrun --nproc_per_node {hardware.visible_devices} -m sightline train …`, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )
        yield finding("several_devices_one_process", Severity.CRITICAL, message, {"devices": hardware.visible_devices})
    if hardware.is_cpu:
        yield from _cpu(context)
    elif arguments.get("bf16") and hardware.device == "cuda" and not hardware.bf16:
        message = f"bf16 is asked for but {hardware.name} does not compute it; use fp16: true"
        yield finding("precision_not_supported", Severity.CRITICAL, message)
    joined = context.recipe.packing or bool(arguments.get("padding_free"))
    if joined and not hardware.flash_attention:
        message = (
            "packing without flash attention lets rows in one block attend to each other, so the loss is not the "
            "rows' own; leave packing out (rows are grouped by length instead) or install flash-attn"
        )
        yield finding("packing_without_flash_attention", Severity.WARNING, message)


def _cpu(context: CheckContext) -> Iterator[Finding]:
    """Name settings that only cost on a CPU."""
    arguments, hardware = context.recipe.arguments, context.hardware
    names = ("bf16", "gradient_checkpointing", "activation_checkpointing")
    costly = [name for name in names if arguments.get(name)]
    if costly:
        message = f"{' and '.join(costly)} on a CPU makes training up to 5 times slower and saves little; leave it out"
        yield finding("costly_on_cpu", Severity.WARNING, message, {"settings": ", ".join(costly)})
    if hardware.load is not None and hardware.threads > 1 and hardware.load + hardware.threads > 1.5 * hardware.cores:
        message = (
            f"this machine is busy (load {hardware.load:.1f} on {hardware.cores} cores) and torch would use "
            f"{hardware.threads} threads: waiting for each other they can be 5 times slower than one; set "
            "OMP_NUM_THREADS=1 or wait"
        )
        evidence = {"load": round(hardware.load, 2), "cores": hardware.cores, "threads": hardware.threads}
        yield finding("busy_machine", Severity.INFO, message, evidence)


def check_judging(context: CheckContext) -> Iterator[Finding]:
    """Say what the losses of this run can and cannot show."""
    if context.eval_rows is not None and not context.gold_rows and "gold" not in context.recipe.given:
        message = (
            "no gold set: a falling loss does not prove better answers (a model that never learnt to stop has a low "
            "loss and not one right answer); give gold: gold.jsonl with prompts and references"
        )
        yield finding("no_gold_set", Severity.INFO, message)
