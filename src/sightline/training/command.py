"""train(): from a Recipe to a finished Run."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import set_seed

from sightline.checkpoints import Parts
from sightline.decisions import Policy, Verdict, judge_run
from sightline.errors import SightlineError, TrainingFailed
from sightline.evaluation import EvalSet, train_probe
from sightline.journal import Masker, Recorder
from sightline.runs import Status
from sightline.training.best import restore_best
from sightline.training.budget import EvaluationBudget
from sightline.training.callback import SightlineCallback
from sightline.training.display import Display
from sightline.training.evaluation_plan import EvaluationPlan
from sightline.training.examine import refuse_waste
from sightline.training.interrupts import Interrupts
from sightline.training.keeping import KeepBest
from sightline.training.model import load_model
from sightline.training.output_folder import claim_output_folder, clear_output_folder
from sightline.training.planner import Planner
from sightline.training.prepare import Prepared, prepare
from sightline.training.quiet import quiet_libraries
from sightline.training.ranks import Ranks
from sightline.training.recipe import Recipe
from sightline.training.trainer import WatchedTrainer

OWN_SAVING_KEYS = {"save_strategy", "save_steps", "saves_per_epoch", "save_total_limit", "load_best_model_at_end"}
"""Who gives one of these wants the Trainer's own saving; Sightline then neither saves nor removes a checkpoint."""


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """How a fine-tune ended."""

    status: Status
    verdict: Verdict | None
    """What can be said of the run; None on ranks that do not record."""
    output_dir: Path
    best_dir: Path | None
    """Folder with the best weights, ready for ``from_pretrained``; None when none beat the base model."""
    signal_name: str | None
    """The signal that ended it, None if none did."""
    lines: tuple[str, ...]
    """Where things are and what to do next, a sentence each."""


def train(recipe: Recipe, display: Display) -> Outcome:
    """Fine-tune under watch.

    Parameters
    ----------
    recipe : Recipe
        What to train on what, and how.
    display : Display
        Hears of everything as it happens, on rank 0.

    Returns
    -------
    Outcome
        How it ended and where things are.

    Raises
    ------
    RunFolderExists, RunFolderInUse
        If the output folder holds another run.
    DataError, ModelError
        If rows or model cannot be trained on, or a check finds that training would be wasted.
    TrainingFailed
        If training broke off; the journal has the reason and ``sightline/traceback.txt`` the rest.
    """
    quiet_libraries()
    os.environ.update(recipe.environment)
    resume_from = claim_output_folder(recipe, display, is_first_process=is_first_process())
    prepared = prepare(recipe)
    refuse_waste(prepared, display)
    recorder = _open_journal(prepared, resume_from)
    try:
        return _fine_tune(prepared, recorder, resume_from, display)
    except SightlineError as error:
        if recorder is not None and not recorder.has_ended:
            recorder.end(Status.FAILED, str(error))
        raise
    finally:
        if recorder is not None:
            recorder.close()


def _fine_tune(prepared: Prepared, recorder: Recorder | None, resume_from: Parts | None, display: Display) -> Outcome:
    recipe = prepared.recipe
    watcher = SightlineCallback(
        recipe.output_dir, recorder=recorder, stop_early=recipe.early_stopping, policy=Policy(), display=display
    )
    interrupts = Interrupts()
    trainer = _make_trainer(prepared, watcher, interrupts, resuming=resume_from is not None)
    if recorder is not None:
        display.begin(
            run_name=recipe.output_dir.name,
            max_steps=prepared.cadence.total_steps,
            first_step=0 if resume_from is None else resume_from.step,
            details=_details(prepared, trainer),
        )
    with _told_failures(recipe.output_dir, trainer, watcher), interrupts.caught():
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from.path))
        if interrupts.signal_name is not None:
            watcher.end(Status.STOPPED, f"interrupted by {interrupts.signal_name}")
            best_dir, lines = None, [_how_to_resume(recipe, trainer.state.global_step)]
        else:
            best_dir, lines = restore_best(trainer, watcher, prepared)
    status = Status.STOPPED if watcher.stopped_by_decision or interrupts.signal_name else Status.FINISHED
    verdict = None if recorder is None else judge_run(recorder.run(), watcher.policy)
    return Outcome(status, verdict, recipe.output_dir, best_dir, interrupts.signal_name, tuple(lines))


def _make_trainer(
    prepared: Prepared, watcher: SightlineCallback, interrupts: Interrupts, *, resuming: bool
) -> WatchedTrainer:
    from trl import SFTConfig

    recipe = prepared.recipe
    set_seed(recipe.seed)
    model, peft_config = load_model(recipe, prepared.hardware)
    arguments = prepared.sft_arguments()
    callbacks = [watcher, interrupts]
    if not OWN_SAVING_KEYS & recipe.given:
        arguments["save_strategy"] = "no"  # KeepBest asks for each save
        arguments.pop("save_steps", None)
        callbacks.insert(1, KeepBest(watcher))
    eval_rows = prepared.eval_rows
    arguments["eval_on_start"] = eval_rows is not None and not resuming
    trainer = WatchedTrainer(
        model=model,
        peft_config=peft_config,
        args=SFTConfig(**arguments),
        processing_class=prepared.tokenizer,
        callbacks=callbacks,
        watcher=watcher,
        train_rows=prepared.train_rows,
        eval_set=None if eval_rows is None else EvalSet(eval_rows),
        probe_set=None
        if eval_rows is None
        else EvalSet(train_probe(prepared.train_rows, eval_rows), name="train probe"),
    )
    if eval_rows is not None and not prepared.cadence.fixed_evaluation:
        _keep_to_budget(prepared, trainer, watcher, resuming=resuming)
    return trainer


def _keep_to_budget(prepared: Prepared, trainer: WatchedTrainer, watcher: SightlineCallback, *, resuming: bool) -> None:
    """Have evaluations keep to their share of the time; a resumed run goes on with the rows it had."""
    assert trainer.eval_set is not None and trainer.probe_set is not None and prepared.cadence.eval_steps is not None
    planned = EvaluationPlan(prepared.cadence.eval_steps, len(trainer.eval_set), len(trainer.probe_set))
    share = prepared.recipe.eval_time_budget
    trainer.budget = EvaluationBudget(planned.interval, share)
    trainer.add_callback(trainer.budget)
    if not resuming:
        trainer.planner = Planner(planned, prepared, trainer.eval_set, trainer.probe_set)
        return
    told = None if watcher.run is None else watcher.run.config.get("evaluation")
    made = Ranks().told_by_first(EvaluationPlan(**told) if isinstance(told, dict) else planned)
    trainer.budget.interval = made.interval
    trainer.score_only(made)


def _open_journal(prepared: Prepared, resume_from: Parts | None) -> Recorder | None:
    """Open the run folder on rank 0."""
    if not is_first_process():
        return None
    recipe = prepared.recipe
    clear_output_folder(recipe)
    rows = {"train": len(prepared.train_rows), "eval": 0 if prepared.eval_rows is None else len(prepared.eval_rows)}
    return Recorder.open(
        recipe.output_dir,
        config={"recipe": recipe.as_config(), "rows": rows},
        name=recipe.output_dir.name,
        resume=resume_from is not None,
        overwrite=recipe.overwrite,
        from_step=0 if resume_from is None else resume_from.step,
        max_steps=prepared.cadence.total_steps,
    )


def is_first_process() -> bool:
    """Whether this is rank 0 by the launcher's word; the process group does not exist yet."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def _told_failures(output_dir: Path, trainer: WatchedTrainer, watcher: SightlineCallback) -> Iterator[None]:
    """Turn whatever breaks the training off into one line, the journal's end and a traceback in a file."""
    try:
        yield
    except KeyboardInterrupt:
        watcher.end(Status.STOPPED, "interrupted by SIGINT (Ctrl-C)")
        raise
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first_line}"
        watcher.end(Status.FAILED, reason)
        told = f"training broke off at step {trainer.state.global_step}: {reason}{_advice(error)}"
        file = output_dir / "sightline" / "traceback.txt"
        with contextlib.suppress(OSError):
            file.write_text(Masker(os.environ).text(traceback.format_exc()), encoding="utf-8")
            told += f" (traceback: {file})"
        raise TrainingFailed(told) from error


def _advice(error: Exception) -> str:
    """Say what to do about an error that has a known cure."""
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "; lower per_device_train_batch_size and raise gradient_accumulation_steps, or set gradient_checkpointing"
        )
    if isinstance(error, OSError) or "No space left" in str(error) or "unexpected pos" in str(error):
        return "; free disk space, then go on with --resume"
    return ""


def _how_to_resume(recipe: Recipe, step: int) -> str:
    return f"saved at step {step}; go on with the same command and --resume"


def _details(prepared: Prepared, trainer: WatchedTrainer) -> list[tuple[str, str]]:
    """Return what a person wants to see before the first step."""
    recipe, cadence, hardware = prepared.recipe, prepared.cadence, prepared.hardware
    total = sum(p.numel() for p in trainer.model.parameters())
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    method = f"LoRA r={recipe.lora_r}, {trainable:,} of {total:,}" if recipe.use_peft else f"all {total:,}"
    evaluated = "never" if cadence.eval_steps is None else f"every {cadence.eval_steps} steps"
    if cadence.eval_steps is not None and not cadence.fixed_evaluation:
        evaluated += f", less often if it took more than {recipe.eval_time_budget:.0%} of the time"
    validation = 0 if prepared.eval_rows is None else len(prepared.eval_rows)
    precision = "bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else "float32"
    return [
        ("model", f"{recipe.model_name_or_path} ({method} parameters trained)"),
        ("rows", f"{len(prepared.train_rows):,} training, {validation:,} validation"),
        ("steps", f"{cadence.total_steps:,} of {cadence.rows_per_step} rows, {cadence.epochs:.3g} epochs"),
        ("evaluated", evaluated),
        ("learning rate", f"{recipe.learning_rate:g}, {trainer.args.lr_scheduler_type.value}"),
        ("hardware", f"{hardware.name}, {precision}"),
        ("output", str(recipe.output_dir)),
    ]
