"""Continuation: what the Trainer's own checkpoint lacks for an exact continuation, kept beside it and restored.

``sightline_state.json`` (``sightline_state_R.json`` for rank R above 0) in a checkpoint says

- ``run``: id of the run that saved it;
- ``window``: the training loss summed since the last log line, the step of that line and the tokens since: without
  them the first loss logged after a resume averages only the steps of the new session;
- ``evaluation_due``: whether a signal came at a step that was to be evaluated; the evaluation is made on resuming;
- ``evaluation``: how many rows are scored, the level of their loss, and what evaluations have cost so far;
- ``order``: epoch, rows of it that were trained on, and the hash of their order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sightline.errors import SourceError
from sightline.sources.files import read_whole
from sightline.training.harmless import harmless
from sightline.training.ranks import Ranks

LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """What was summed since the last log line on one rank."""

    loss_sum: float
    last_logged_step: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Order:
    """The rows of the current epoch that were trained on."""

    epoch: int
    rows: int
    digest: str


def state_file(rank: int) -> str:
    """Return the name of a rank's file in a checkpoint."""
    return f"sightline_state_{rank}.json" if rank else "sightline_state.json"


def run_of(checkpoint: Path) -> str | None:
    """Return the id of the run that saved a checkpoint, None where Sightline did not save it."""
    told = _read(checkpoint, 0).get("run")
    return told if isinstance(told, str) else None


class Continuation(TrainerCallback):  # type: ignore[misc]
    """Keeps and restores a WatchedTrainer's place: its logging window and its order of rows.

    Parameters
    ----------
    trainer : WatchedTrainer
        Whose place it is.
    run_id : str
        Written into each checkpoint.
    steps_per_epoch : int
        As the Trainer counts them.
    tell : callable
        Told in one sentence when the rows come in another order than before.
    note : callable
        Puts a fact into the journal: at each save, the hash of the order of rows.
    evaluation_due : callable
        Asked at each save whether an evaluation of this step was left out.
    """

    def __init__(
        self,
        trainer: Any,
        *,
        run_id: str,
        steps_per_epoch: int,
        tell: Callable[[str], None],
        note: Callable[[Mapping[str, Any]], None],
        evaluation_due: Callable[[], bool],
    ) -> None:
        self.trainer = trainer
        self.run_id = run_id
        self.steps_per_epoch = steps_per_epoch
        self.tell = tell
        self.note = note
        self.evaluation_due = evaluation_due
        self.resumed_from: Path | None = None
        """The checkpoint that training goes on from, known before it begins."""

    def resume(self, checkpoint: Path, ranks: Ranks) -> None:
        """Go on from a checkpoint: with the rows that were scored before it, on every rank those of rank 0."""
        self.resumed_from = checkpoint
        told = ranks.told_by_first(_read(checkpoint, 0).get("evaluation"))
        if isinstance(told, dict):
            self._restore_evaluation(told)

    def write(self, checkpoint: Path) -> None:
        """Write this rank's place into a checkpoint that is being saved.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        order, validation = self._order(), self.trainer.validation
        state = {
            "sightline_state": 1,
            "run": self.run_id,
            "step": self.trainer.state.global_step,
            "evaluation_due": self.evaluation_due(),
            "window": asdict(self._window()),
            "order": None if order is None else asdict(order),
            "evaluation": None if validation is None else validation.state(),
        }
        path = checkpoint / state_file(self.trainer.args.process_index)
        path.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        if order is not None:
            self.note({"row_order": {"step": self.trainer.state.global_step, **asdict(order)}})

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the place that the checkpoint names."""
        self._begin_epoch(state)
        if self.resumed_from is not None:
            told = _read(self.resumed_from, args.process_index)
            self._restore_window(told)
            self._compare_order(told)
            if told.get("evaluation_due") is True:
                self.trainer.evaluate()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have the rows of this epoch come in its own order."""
        self._begin_epoch(state)

    def _begin_epoch(self, state: TrainerState) -> None:
        if self.trainer.row_order is not None:
            self.trainer.row_order.epoch = state.global_step // self.steps_per_epoch

    def _window(self) -> Window:
        trainer = self.trainer
        return Window(
            loss_sum=float(trainer._tr_loss.item()),
            last_logged_step=int(trainer._globalstep_last_logged),
            tokens=int(trainer.tokens_since_log),
        )

    def _order(self) -> Order | None:
        order = self.trainer.row_order
        if order is None:
            return None
        steps = self.trainer.state.global_step - order.epoch * self.steps_per_epoch
        args = self.trainer.args
        rows = min(len(order), steps * args.gradient_accumulation_steps * args.train_batch_size * args.world_size)
        digest = order.digest(rows)
        return None if digest is None else Order(order.epoch, rows, digest)

    @harmless
    def _restore_evaluation(self, told: Mapping[str, Any]) -> None:
        if self.trainer.validation is not None:
            self.trainer.validation.restore(told)

    @harmless
    def _restore_window(self, told: Mapping[str, Any]) -> None:
        if not isinstance(told.get("window"), dict):
            return
        window = Window(**told["window"])
        if window.last_logged_step <= self.trainer.state.global_step:
            self.trainer._tr_loss = torch.tensor(window.loss_sum, device=self.trainer.args.device)
            self.trainer._globalstep_last_logged = window.last_logged_step
            self.trainer.tokens_since_log = window.tokens

    @harmless
    def _compare_order(self, told: Mapping[str, Any]) -> None:
        order = self.trainer.row_order
        if order is None or not isinstance(told.get("order"), dict):
            return
        before = Order(**told["order"])
        if order.expected_digest(before.epoch, before.rows) != before.digest:
            self.tell(
                f"the rows come in another order than before the checkpoint: the {before.rows} rows already trained on "
                f"in epoch {before.epoch + 1} are not the ones that are skipped now, so some are seen twice and others "
                "not at all (other rows, another seed, or another train_sampling_strategy)"
            )


def _read(checkpoint: Path, rank: int) -> dict[str, Any]:
    """Return what a rank's file says; nothing where there is none or it cannot be read."""
    try:
        told = json.loads(read_whole(checkpoint / state_file(rank), LIMIT_BYTES))
    except (OSError, SourceError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
