"""train(): from a Recipe to a finished Run."""

from __future__ import annotations

import contextlib
import math
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import set_seed

from sightline.decisions import Policy, Verdict, judge_run
from sightline.diagnosis.context import portion
from sightline.errors import SightlineError, TrainingFailed
from sightline.evaluation import EvalSet, train_probe
from sightline.journal import Masker, Recorder
from sightline.runs import Action, Status
from sightline.training.best import restore_best
from sightline.training.budget import CLEARLY_ABOVE, EvaluationBudget, why_above
from sightline.training.callback import SightlineCallback
from sightline.training.changes import changes
from sightline.training.continuation import Continuation
from sightline.training.display import Display
from sightline.training.examine import refuse_waste
from sightline.training.facts import run_facts
from sightline.training.interrupts import Interrupts
from sightline.training.judging import KEPT_FOR_GOLD, Judging, room_for_judging
from sightline.training.keeping import KeepBest, Rotation
from sightline.training.model import load_model, refuse_broken_weights
from sightline.training.output_folder import claim_output_folder, clear_output_folder
from sightline.training.planner import Planner
from sightline.training.prepare import Prepared, prepare
from sightline.training.quiet import quiet_libraries
from sightline.training.ranks import Ranks
from sightline.training.recipe import Recipe
from sightline.training.resuming import ResumePoint, take_up
from sightline.training.spending import Spending
from sightline.training.trainer import WatchedTrainer
from sightline.training.validation import Validation

OWN_SAVING_KEYS = {"save_strategy", "save_steps", "saves_per_epoch", "save_total_limit", "load_best_model_at_end"}
"""Who gives one of these says when to save; Sightline then removes checkpoints only beyond a ``save_total_limit``."""


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
    point = claim_output_folder(recipe, display) if is_first_process() else None
    prepared = prepare(recipe)
    refuse_waste(prepared, display)
    judging = Judging.of(prepared, display) if is_first_process() else None
    recorder = _open_journal(prepared, point)
    try:
        if judging is not None:
            judging.ask_base()
        return _fine_tune(prepared, recorder, point, display, judging)
    except SightlineError as error:
        if recorder is not None and not recorder.has_ended:
            recorder.end(Status.FAILED, str(error))
        raise
    finally:
        if recorder is not None:
            recorder.close()


def _fine_tune(
    prepared: Prepared,
    recorder: Recorder | None,
    point: ResumePoint | None,
    display: Display,
    judging: Judging | None,
) -> Outcome:
    recipe = prepared.recipe
    watcher = SightlineCallback(
        recipe.output_dir, recorder=recorder, stop_early=recipe.early_stopping, policy=Policy(), display=display
    )
    watcher.ends_itself = False  # the best weights come after the training
    interrupts = Interrupts()
    trainer = _make_trainer(prepared, watcher, interrupts)
    watcher.ranks = Ranks()
    first_step, resume_from, is_over = watcher.ranks.told_by_first(_where_to_go_on(point, watcher, prepared))
    if recorder is not None:
        display.begin(
            run_name=recipe.output_dir.name,
            max_steps=prepared.cadence.total_steps,
            first_step=first_step,
            details=_details(prepared, trainer),
        )
        if point is not None:
            _tell_changes(point, prepared, trainer, watcher)
    with _told_failures(recipe.output_dir, trainer, watcher), interrupts.caught():
        assert trainer.continuation is not None
        if resume_from is not None:
            trainer.continuation.resume(resume_from, watcher.ranks)
            _recall_best(trainer, watcher)
        if is_over:  # it was cut off after its last checkpoint; the Trainer itself would train one more step
            trainer.state.global_step, trainer.state.max_steps = first_step, prepared.cadence.total_steps
        else:
            trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
        if interrupts.signal_name is not None and trainer.state.global_step < trainer.state.max_steps:
            watcher.end(Status.STOPPED, f"interrupted by {interrupts.signal_name}")
            best_dir, lines = None, [_how_to_resume(recipe, trainer.state.global_step)]
        else:
            if trainer.validation is not None:
                trainer.validation.spending.close()
            keep_step = _judged(judging, trainer, watcher, interrupts)
            best_dir, lines = restore_best(trainer, watcher, prepared, keep_step)
            if judging is not None and watcher.run is not None:
                lines += judging.disagreement(watcher.run)
            lines += _time_spent(trainer, watcher)
            watcher.conclude(trainer.state)
    status = Status.STOPPED if watcher.stopped_by_decision or interrupts.signal_name else Status.FINISHED
    verdict = None if recorder is None else judge_run(recorder.run(), watcher.policy)
    return Outcome(status, verdict, recipe.output_dir, best_dir, interrupts.signal_name, tuple(lines))


def _recall_best(trainer: WatchedTrainer, watcher: SightlineCallback) -> None:
    """Have the best evaluation before a resume known where the run is recorded."""
    if trainer.validation is not None and watcher.run is not None:
        known = [e for e in watcher.run.evaluations if math.isfinite(e.eval_loss)]
        trainer.validation.best = min(known, key=lambda evaluation: evaluation.eval_loss, default=None)


def _time_spent(trainer: WatchedTrainer, watcher: SightlineCallback) -> list[str]:
    """Say which part of the run's time evaluations took, where they had to keep to one, and why if it was more."""
    validation = trainer.validation
    if validation is None or validation.share is None:
        return []
    spending = validation.spending
    watcher.tell_facts({"evaluation_time": round(spending.share, 4)})
    taken = f"evaluations took {100 * spending.share:.1f} % of the run's time"
    if watcher.run is None or spending.share <= CLEARLY_ABOVE * validation.share:
        return [taken]
    return [
        f"{taken}, not {validation.share:.0%}: {why_above(spending, validation.share, len(watcher.run.evaluations))}"
    ]


def _judged(
    judging: Judging | None, trainer: WatchedTrainer, watcher: SightlineCallback, interrupts: Interrupts
) -> int | None:
    """Judge the checkpoints on the gold set; return the step that it chose, on every rank, None where the loss does."""
    chosen = None
    if judging is not None and watcher.recorder is not None:
        watcher.checkpoints.afterwards.wait()  # none is removed or given its manifest while it is judged
        judging.is_interrupted = lambda: interrupts.signal_name is not None
        with room_for_judging(trainer):
            judgement = judging.judge(watcher.recorder.run())
        if judgement is not None:
            watcher.recorder.gold(judgement)
            watcher.verdict = judge_run(watcher.recorder.run(), watcher.policy)
            if judging.asked.keep_by_gold and judgement.choice is not None:
                chosen = judgement.choice.step
    return chosen if watcher.ranks is None else watcher.ranks.told_by_first(chosen)


def _where_to_go_on(
    point: ResumePoint | None, watcher: SightlineCallback, prepared: Prepared
) -> tuple[int, Path | None, bool]:
    """Return step and checkpoint to go on from, and whether no step is left to train."""
    run = watcher.run
    if point is None or run is None:
        return 0, None, False
    is_finished = point.step >= prepared.cadence.total_steps
    if run.eval_loss is not None:
        watcher.verdict = judge_run(run, watcher.policy)
        decided = watcher.verdict.decision.action is Action.STOP and int(run.eval_loss.steps[-1]) == point.step
        watcher.stopped_by_decision = decided and prepared.recipe.early_stopping and not is_finished
    return point.step, point.path, watcher.stopped_by_decision or is_finished


def _tell_changes(point: ResumePoint, prepared: Prepared, trainer: WatchedTrainer, watcher: SightlineCallback) -> None:
    """Name what makes the continuation differ from the run left alone, before its first step."""
    if point.earlier is None:
        return
    now = Masker(os.environ).json(
        {
            **run_facts(trainer.args, trainer.model),
            "recipe": prepared.recipe.as_config(),
            "rows": prepared.row_facts(),
        }
    )
    for change in changes(point.earlier.config, now):
        watcher.warn(f"not as before the checkpoint: {change}")


def _make_trainer(prepared: Prepared, watcher: SightlineCallback, interrupts: Interrupts) -> WatchedTrainer:
    from trl import SFTConfig

    recipe = prepared.recipe
    set_seed(recipe.seed)
    model, peft_config = load_model(recipe, prepared.hardware)
    refuse_broken_weights(model, recipe.model_name_or_path)
    arguments = prepared.sft_arguments()
    callbacks = [watcher]
    limit = arguments.pop("save_total_limit", None)  # the Trainer's rotation deletes folders it never wrote
    if not OWN_SAVING_KEYS & recipe.given:
        arguments["save_strategy"] = "no"  # KeepBest asks for each save
        arguments.pop("save_steps", None)
        callbacks[1:1] = [KeepBest(watcher), Rotation(watcher, spread=KEPT_FOR_GOLD if recipe.keep_by == "gold" else 0)]
    elif limit:
        callbacks.append(Rotation(watcher, limit))
    validation = _validation(prepared)
    arguments["eval_on_start"] = validation is not None and not recipe.resume
    trainer = WatchedTrainer(
        model=model,
        peft_config=peft_config,
        args=SFTConfig(**arguments),
        processing_class=prepared.tokenizer,
        callbacks=callbacks,
        watcher=watcher,
        train_rows=prepared.train_rows,
        validation=validation,
    )
    trainer.goes_on_unsaved = recipe.on_failed_save == "continue"
    trainer.continuation = Continuation(
        trainer,
        run_id="" if watcher.recorder is None else watcher.recorder.id,
        steps_per_epoch=prepared.cadence.steps_per_epoch,
        tell=watcher.warn,
        note=watcher.tell_facts,
        evaluation_due=lambda: interrupts.left_out_evaluation,
    )
    trainer.add_callback(trainer.continuation)
    if validation is not None and not prepared.cadence.fixed_evaluation:
        assert prepared.cadence.eval_steps is not None
        budget = EvaluationBudget(
            prepared.cadence.eval_steps, recipe.eval_time_budget, validation.spending, watcher.tell
        )
        validation.share = recipe.eval_time_budget
        validation.planner = Planner(prepared, validation.sample.whole, validation.probe.whole)
        trainer.add_callback(budget)
    trainer.add_callback(interrupts)  # last: it knows what the others want at the step it ends
    return trainer


def _validation(prepared: Prepared) -> Validation | None:
    """Make the rows ready that evaluations score; None where there are none."""
    rows = prepared.eval_rows
    if rows is None:
        return None
    return Validation(
        EvalSet(rows, places=[e.where.rpartition("/")[2] for e in rows.examples]),
        EvalSet(train_probe(prepared.train_rows, rows), name="train probe"),
        Spending(prepared.cadence.total_steps),
    )


def _open_journal(prepared: Prepared, point: ResumePoint | None) -> Recorder | None:
    """Open the run folder on rank 0, and put away what is not gone on from."""
    if not is_first_process():
        return None
    recipe = prepared.recipe
    clear_output_folder(recipe)
    recorder = Recorder.open(
        recipe.output_dir,
        config={"recipe": recipe.as_config(), "rows": prepared.row_facts()},
        name=recipe.output_dir.name,
        resume=point is not None,
        overwrite=recipe.overwrite,
        from_step=0 if point is None else point.step,
        max_steps=prepared.cadence.total_steps,
    )
    if point is not None:
        take_up(point, recorder)
    return recorder


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
    except SightlineError:  # says already what it is about; train() ends the run with it
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
    every = "every step" if cadence.eval_steps == 1 else f"every {cadence.eval_steps} steps"
    evaluated = "never" if cadence.eval_steps is None else every
    if cadence.eval_steps is not None and not cadence.fixed_evaluation:
        evaluated += f"; fewer evaluations if they would take over {portion(recipe.eval_time_budget)} of the time"
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
