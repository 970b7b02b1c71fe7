"""SightlineCallback: Trainer events to the journal, verdicts back to TrainerControl.

It only translates: the recorder writes, ``judge_run`` decides. Whatever fails in here is reported once and never
reaches the Trainer. Watching changes nothing of the training: no random number is drawn, no flag of another
callback is cleared, and unless ``stop_early`` is asked for the run goes on whatever the verdict says.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.decisions import Policy, Verdict, judge_run
from sightline.journal import Masker, Recorder, reader
from sightline.runs import Action, Finding, Run, Severity, Status
from sightline.runs.names import canonical
from sightline.training.checkpoint_watch import CheckpointWatch
from sightline.training.display import Display, Silent
from sightline.training.facts import run_facts
from sightline.training.harmless import harmless, report_once
from sightline.training.judged_evaluation import JudgedEvaluation
from sightline.training.ranks import Ranks
from sightline.training.resume_warnings import resume_warnings

TRAINING_SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
"""What the Trainer logs once at the end; its ``train_loss`` there is an average over the session and no point."""

SHOWN_EVERY_S = 0.25
"""A display gets a new picture of the run after this many seconds."""

_RECORDING: WeakValueDictionary[Path, Recorder] = WeakValueDictionary()
"""Recorders that callbacks of this process have opened, by folder."""


class SightlineCallback(TrainerCallback):  # type: ignore[misc]
    """Watch a Trainer: record every metric, judge the run at every evaluation and, if asked, stop it.

    Where the Trainer's own pass has the exact sum of token losses, the run is judged by that; the Trainer's number
    stays beside it as ``eval_loss_reported``.

    Parameters
    ----------
    output_dir : path, optional
        Where the run folder ``sightline/`` goes; the Trainer's own ``output_dir`` unless told.
    stop_early : bool
        Stop the training when the verdict says so. False (the default) only watches.
    policy : Policy, optional
        Thresholds of the decision.
    display : Display, optional
        Hears of every event; shows nothing unless told.
    config : mapping, optional
        Written to the journal beside the Trainer's own arguments.
    recorder : Recorder, optional
        An open recorder of the run to record into; opened in ``output_dir`` when training begins unless given.
    exact_evaluation : bool
        At each evaluation score validation rows and a train probe in a pass of its own, whatever the Trainer's batch
        size, and put ``eval_loss_exact`` into its metrics, where ``metric_for_best_model`` finds it. False (the
        default) takes the exact sums from the Trainer's pass, where it has them.

    Notes
    -----
    Under several processes rank 0 records and decides, and every rank hears the decision at the same event.
    """

    def __init__(
        self,
        output_dir: str | Path | None = None,
        *,
        stop_early: bool = False,
        policy: Policy | None = None,
        display: Display | None = None,
        config: Mapping[str, Any] | None = None,
        recorder: Recorder | None = None,
        exact_evaluation: bool = False,
    ) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.stop_early = stop_early
        self.policy = policy or Policy()
        self.display: Display = display or Silent()
        self.config = dict(config or {})
        self.recorder = recorder
        self.ends_itself = True
        """Whether the end of the training is the end of the run; False where more is to be done before."""
        self.verdict: Verdict | None = None
        self.stopped_by_decision = False
        self.ranks: Ranks | None = None
        self.evaluation = JudgedEvaluation(own_pass=exact_evaluation)
        self._missed: set[str] = set()
        self.checkpoints = CheckpointWatch(self.warn)
        self._ended = False
        self._judged_step: int | None = None
        self._begun = False
        self._shown: Run | None = None
        self._shown_at = 0.0

    # -- what others may ask or tell ---------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run as recorded so far; None before training has begun and on ranks that do not record."""
        return None if self.recorder is None else self.recorder.run()

    @harmless
    def tell(self, text: str) -> None:
        """Tell whoever is looking, on the rank that records."""
        if self.recorder is not None:
            self.display.notice(text, Severity.INFO)

    @harmless
    def miss_evaluation(self, step: int, error: Exception) -> None:
        """Tell, in the journal and on the display, that an evaluation failed and training goes on without it."""
        if self.recorder is None:
            return
        first_line = (str(error).strip().splitlines() or [""])[0]
        message = (
            f"the evaluation at step {step} failed and is left out, training goes on: "
            f"{type(error).__name__}: {first_line}"
        )
        finding = Finding("evaluation_failed", Severity.WARNING, message, step, step, None, {})
        self.recorder.alert(step, finding)
        if message.partition(": ")[2] not in self._missed:
            self._missed.add(message.partition(": ")[2])
            self.display.notice(message, Severity.WARNING)

    @harmless
    def tell_facts(self, facts: Mapping[str, Any]) -> None:
        """Add to the journal what has become known of the run."""
        if self.recorder is not None:
            self.recorder.configure(config=facts)

    def warn(self, sentence: str) -> None:
        """Tell a person of what needs attention: on the display, or as a RuntimeWarning where there is none."""
        if isinstance(self.display, Silent):
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)
        else:
            self.display.notice(sentence, Severity.WARNING)

    def end(self, status: Status, reason: str | None) -> None:
        """Write how the run ended, once, when every checkpoint is verified."""
        self._await_checkpoints()
        if self.recorder is not None and not self._ended:
            self._ended = True
            self.recorder.end(status, reason)

    @harmless
    def conclude(self, state: TrainerState) -> None:
        """Write how a training ended that came to its end."""
        if self.stopped_by_decision and self.verdict is not None:
            self.end(Status.STOPPED, self.verdict.decision.why)
        elif state.global_step >= state.max_steps:
            self.end(Status.FINISHED, None)
        else:
            self.end(Status.STOPPED, f"ended at step {state.global_step} of {state.max_steps}")

    # -- Trainer events ----------------------------------------------------------------------------------------

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Begin to see the model's forwards."""
        self.evaluation.attach(kwargs.get("model"))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the journal, or go on with it from the step the Trainer resumes at."""
        self.evaluation.attach(kwargs.get("model"))
        self._meet_ranks()
        if state.is_world_process_zero:
            self._recall(args, state, kwargs)
            self._open(args, state, kwargs.get("model"))
            self._begin_checkpoints(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what the Trainer logs."""
        if not state.is_world_process_zero or not logs:
            return
        if not self.evaluation.is_of_another_set(logs, kwargs.get("eval_dataloader"), ended=self._ended):
            self._record_log(args, state, logs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Have the last step logged: the Trainer leaves steps after its last interval out of every line."""
        if state.global_step >= state.max_steps > 0:
            control.should_log = True
        self._show_step(state.global_step)
        return control

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the sums of a batch from the Trainer's own pass."""
        self.evaluation.batch_done(kwargs.get("eval_dataloader"))

    def on_predict(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave a prediction out: it is no evaluation."""
        self.evaluation.forget()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Judge the run; rank 0 decides and every rank hears it here."""
        if metrics is not None:
            self._measure(state.global_step, metrics, kwargs)
        stop = False
        if state.is_world_process_zero:
            stop = bool(self._judge(state.global_step))
        if self.ranks is not None:
            stop = self.ranks.told_by_first(stop)
        if stop and self.stop_early and state.global_step < state.max_steps:  # after its last step a run has finished
            self.stopped_by_decision = True
            control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record that a checkpoint was saved."""
        if state.is_world_process_zero:
            self._record_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write how the run ended."""
        if state.is_world_process_zero:
            self._end_checkpoints(args, state)
            if self.ends_itself:
                self.conclude(state)

    # -- each of these may fail without hurting the training -----------------------------------------------------

    @harmless
    def _meet_ranks(self) -> None:
        if self.ranks is None:
            self.ranks = Ranks()

    @harmless
    def _measure(self, step: int, metrics: dict[str, float], given: Mapping[str, Any]) -> None:
        """Take the exact loss of the Trainer's evaluation; a set that is not judged has a curve of its own."""
        self._meet_ranks()
        curves = self.evaluation.measure(step, metrics, given, self.ranks or Ranks(), ended=self._ended)
        if curves and self.recorder is not None:
            self.recorder.log(step, curves)

    @harmless
    def _open(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        self._ended = False
        self._judged_step = None
        began_before, self._begun = self._begun, True
        if self.recorder is not None:
            if began_before:  # trainer.train() a second time: a new segment of the same run
                self.recorder.segment(state.global_step)
            else:
                self.recorder.configure(config=self._facts(args, model), max_steps=state.max_steps)
            return
        folder = self.output_dir or Path(args.output_dir)
        _let_go(folder)
        self.recorder = Recorder.open(
            folder,
            config=self._facts(args, model),
            name=folder.name,
            resume=True,
            from_step=state.global_step,
            max_steps=state.max_steps,
        )
        _RECORDING[folder.resolve()] = self.recorder
        if self.recorder.problem:
            report_once(self, self.recorder.problem)
        atexit.register(self._end_at_exit)

    @harmless
    def _begin_checkpoints(self, args: TrainingArguments, state: TrainerState) -> None:
        """See what is there, and take up again what was judged best before a resume."""
        self.checkpoints.begin(Path(args.output_dir), args.save_total_limit)
        if state.global_step > 0 and self.run is not None and self.run.eval_loss is not None:
            self.verdict = judge_run(self.run, self.policy)

    def _facts(self, args: TrainingArguments, model: Any) -> dict[str, Any]:
        return {**run_facts(args, model), **self.config}

    @harmless
    def _recall(self, args: TrainingArguments, state: TrainerState, given: Mapping[str, Any]) -> None:
        """Before a resumed run's first step, say what is not as it was; the journal still has how it was."""
        folder = self.output_dir or Path(args.output_dir)
        if self.recorder is not None or state.global_step == 0 or not reader.recognises(folder):
            return
        before = reader.read(folder).config
        now = Masker(os.environ).json(self._facts(args, given.get("model")))
        loader = given.get("train_dataloader")
        for sentence in resume_warnings(args, state, before=before, now=now, train_dataloader=loader):
            self.warn(f"not as before step {state.global_step}: {sentence}")

    @harmless
    def _record_log(self, args: TrainingArguments, state: TrainerState, logs: Mapping[str, Any]) -> None:
        if self.recorder is None:
            if self._ended or state.global_step > 0:
                return
            self._open(args, state, None)  # trainer.evaluate() before trainer.train()
        if self.recorder is None:
            return
        numbers = {canonical(k): v for k, v in logs.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        if "train_runtime" in logs:
            self.recorder.log(state.global_step, {k: numbers[k] for k in TRAINING_SUMMARY if k in numbers})
            return
        self.recorder.log(state.global_step, numbers)
        if "loss" in logs:
            self._show_log(state.global_step, numbers)

    def _show_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell the display; the run so far is put together a few times a second at most, it has every point."""
        assert self.recorder is not None
        now = time.monotonic()
        if self._shown is None or now - self._shown_at >= SHOWN_EVERY_S:
            self._shown, self._shown_at = self.recorder.run(), now
        self.display.logged(self._shown, step, metrics)

    @harmless
    def _show_step(self, step: int) -> None:
        self.display.stepped(step)

    @harmless
    def _judge(self, step: int) -> bool:
        if self.recorder is None:
            return False
        evaluation = self.evaluation.take(step)
        if evaluation is not None:
            self.recorder.evaluation(evaluation)
        if self._judged_step == step:  # several validation sets: one verdict a step
            return False
        self._judged_step = step
        self.verdict = judge_run(self.recorder.run(), self.policy)
        self.recorder.decision(step, self.verdict.diagnosis, self.verdict.decision)
        self.display.evaluated(self.verdict)
        return self.verdict.decision.action is Action.STOP

    @harmless
    def _record_checkpoint(self, folder: Path, step: int) -> None:
        if self.recorder is not None:
            self.checkpoints.saved(self.recorder, folder, step)

    @harmless
    def _await_checkpoints(self) -> None:
        self.checkpoints.afterwards.wait()

    @harmless
    def _end_checkpoints(self, args: TrainingArguments, state: TrainerState) -> None:
        if self.recorder is not None:
            self.checkpoints.end(self.recorder, Path(args.output_dir), state.global_step)

    @harmless
    def _end_at_exit(self) -> None:
        """Say why, when the process ends without ``on_train_end``."""
        error = getattr(sys, "last_value", None)
        if isinstance(error, KeyboardInterrupt):
            self.end(Status.STOPPED, "interrupted by SIGINT")
        elif error is not None:
            first_line = (str(error).splitlines() or [""])[0]
            self.end(Status.FAILED, f"{type(error).__name__}: {first_line}")
        else:
            self.end(Status.FAILED, "the process ended before the training did")
        if self.recorder is not None:
            self.recorder.close()


def watch(
    trainer: Any, *, stop_early: bool = False, policy: Policy | None = None, exact_evaluation: bool = False
) -> SightlineCallback:
    """Watch a Trainer that already exists.

    Parameters
    ----------
    trainer : transformers.Trainer
        Any Trainer, TRL's included, before ``train()``.
    stop_early : bool
        Stop the training when the verdict says so.
    policy : Policy, optional
        Thresholds of the decision.
    exact_evaluation : bool
        Score validation rows and a train probe in a pass of its own at each evaluation.

    Returns
    -------
    SightlineCallback
        The callback that was added, or the one that was already there.
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, SightlineCallback):
            if exact_evaluation:
                callback.evaluation.score_exactly()
            return callback
    callback = SightlineCallback(stop_early=stop_early, policy=policy, exact_evaluation=exact_evaluation)
    trainer.add_callback(callback)
    callback.evaluation.attach(trainer.model)
    return callback


def _let_go(folder: Path) -> None:
    """Close the recorder of a run of this process that has ended: a notebook trains into one folder again."""
    earlier = _RECORDING.get(folder.resolve())
    if earlier is not None and earlier.has_ended:
        earlier.close()
