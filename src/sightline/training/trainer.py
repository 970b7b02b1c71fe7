"""WatchedTrainer: TRL's SFTTrainer with an exact evaluation and a loss that projects labelled positions only.

What differs from SFTTrainer, and why:

- ``evaluate()`` scores every validation row exactly (``sightline.evaluation``) instead of averaging batch means,
  and scores the train probe the same way.
- ``compute_loss()`` gives the same loss, without the entropy and the accuracy that SFTTrainer computes at every
  position; off Triton devices it projects to the vocabulary only where there is a label.
- rows come tokenised, from memory, in an order that seed and epoch alone decide.
- checkpoints are saved whole or not at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler
from transformers import PrinterCallback, TrainerControl
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from sightline.decisions.rising import PLACES
from sightline.runs import Evaluation
from sightline.training.callback import SightlineCallback
from sightline.training.continuation import Continuation
from sightline.training.labelled_head import project_labelled_positions
from sightline.training.ranks import Ranks
from sightline.training.row_order import RowOrder
from sightline.training.rows import TokenisedRow
from sightline.training.saving import save_checkpoint
from sightline.training.validation import Validation

MOST_PLACES = 10_000
"""Rows whose file and line the journal names."""


class RowsInMemory(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Tokenised rows as the Trainer's sampler and collator want them; an Arrow table costs more per row than a step."""

    def __init__(self, rows: Sequence[TokenisedRow]) -> None:
        self._rows = [as_features(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._rows[index]


def as_features(row: TokenisedRow) -> dict[str, list[int]]:
    """Return a row as the Trainer's collator wants it."""
    return {"input_ids": np.asarray(row.input_ids).tolist(), "labels": np.asarray(row.labels).tolist()}


class WatchedTrainer(SFTTrainer):  # type: ignore[misc]
    """The Trainer of `sightline train`.

    Parameters
    ----------
    watcher : SightlineCallback
        Gets the exact losses of every evaluation.
    train_rows : sequence of TokenisedRow
        What is learnt.
    validation : Validation or None
        Validation rows and the train probe, ready to be scored.
    **kwargs
        As SFTTrainer takes them.
    """

    control: TrainerControl

    def __init__(
        self,
        *,
        watcher: SightlineCallback,
        train_rows: Sequence[TokenisedRow],
        validation: Validation | None,
        **kwargs: Any,
    ) -> None:
        watcher.evaluation.expect()
        packing = kwargs["args"].packing
        # Unless TRL is to pack them, it needs to see only one row; the rows themselves are put in its place below.
        shown = Dataset.from_list([as_features(row) for row in (train_rows if packing else [train_rows[0]])])
        super().__init__(train_dataset=shown, eval_dataset=None if validation is None else shown, **kwargs)
        if not packing:
            self.train_dataset = RowsInMemory(train_rows)
        self.remove_callback(PrinterCallback)  # what is logged is shown by the display
        self.watcher = watcher
        self.validation = validation
        self._plain_loss = (
            self.args.loss_type == "nll"
            and self.compute_loss_func is None
            and self.label_smoother is None
            and not self.aux_loss_enabled
        )
        if self._plain_loss:
            project_labelled_positions(self.model)
        self._rows_told = 0
        self._blindness_told = False
        self.tokens_since_log: torch.Tensor | int = 0
        self._logged_at = time.perf_counter()
        self._evaluating_s = 0.0
        self.row_order: RowOrder | None = None
        """The order of the training rows, once their loader is made; None where a strategy has no order of rows."""
        self.continuation: Continuation | None = None
        self.goes_on_unsaved = False
        """Whether a failed save is told and training goes on, instead of breaking off."""
        self._saving_ranks: Ranks | None = None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score the validation rows and the train probe exactly; another data set goes the Trainer's own way.

        Once training has begun an evaluation that fails is left out and told: training goes on.
        """
        if eval_dataset is not None or self.validation is None:
            metrics: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            return metrics
        began = time.perf_counter()
        try:
            evaluation = self.validation.evaluate(self.model, self.state.global_step)
        except Exception as error:  # on all ranks alike
            if self.state.global_step == 0:  # nothing is lost yet, and the next evaluation would fail as well
                raise
            self.watcher.miss_evaluation(self.state.global_step, error)
            return {"eval_loss": math.nan}
        runtime_s = time.perf_counter() - began
        self._evaluating_s += runtime_s
        metrics = {"eval_loss": evaluation.eval_loss, "eval_runtime": round(runtime_s, 4)}
        if evaluation.probe is not None:
            metrics["eval_probe_loss"] = evaluation.probe.loss
        if evaluation.losses is not None and evaluation.losses.non_finite:
            metrics["eval_non_finite_rows"] = float(evaluation.losses.non_finite)
        self.watcher.evaluation.receive(evaluation)
        self.validation.look_ahead(evaluation)
        self._tell_rows(evaluation)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _tell_rows(self, evaluation: Evaluation) -> None:
        """Let the journal know which rows were scored, and a person what they show and what they cannot show."""
        assert self.validation is not None
        sample, before = self.validation.sample, self._rows_told
        if len(sample) != before:
            self._rows_told = len(sample)
            facts: dict[str, Any] = {"evaluation": {"eval_rows": len(sample), "of_rows": len(sample.whole)}}
            if 0 < len(sample.rows.places) <= MOST_PLACES:
                facts[PLACES] = sample.rows.places
            self.watcher.tell_facts(facts)
            if before and evaluation.measured_loss is not None:
                self.watcher.tell(
                    f"{len(sample)} instead of {before} of {len(sample.whole)} validation rows are scored from step "
                    f"{evaluation.step} on, so that a change of 1% shows; on them the loss is "
                    f"{evaluation.measured_loss:.4f}, and eval_loss {evaluation.eval_loss:.4f} goes on from the rows before"
                )
        if self.validation.blindness is not None and not self._blindness_told:
            self._blindness_told = True
            self.watcher.tell(self.validation.blindness)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean token loss over all tokens of the update, as SFTTrainer does."""
        if "attention_mask" in inputs:
            self.tokens_since_log = self.tokens_since_log + inputs["attention_mask"].sum()
        else:
            self.tokens_since_log = self.tokens_since_log + inputs["input_ids"].numel()
        if not self._plain_loss or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True, num_items_in_batch=num_items_in_batch)
        loss = outputs.loss
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())  # DDP averages over the ranks
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the tokens seen and their rate to the training logs."""
        if "loss" in logs:
            tokens = self.accelerator.reduce(torch.as_tensor(self.tokens_since_log, device=self.args.device)).item()
            now = time.perf_counter()
            training_s = max(now - self._logged_at - self._evaluating_s, 1e-9)
            self.state.num_input_tokens_seen += int(tokens)
            logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
            logs["tokens_per_second"] = round(tokens / training_s, 1)
            self.tokens_since_log, self._logged_at, self._evaluating_s = 0, now, 0.0
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Leave the output folder without TRL's draft, which is written at every save; the best weights get a card."""
        if self.args.push_to_hub:
            super().create_model_card(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Draw each epoch's rows from its own seed, so that a resumed run finds the same order."""
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, RandomSampler | LengthGroupedSampler | SequentialSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self.row_order = RowOrder(sampler, seed)
        return self.row_order

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save whole or not at all."""
        assert self.continuation is not None
        if self._saving_ranks is None:
            self._saving_ranks = Ranks()
        try:
            save_checkpoint(self, self._saving_ranks, self.continuation.write)
        except Exception as error:
            if not self.goes_on_unsaved:
                raise
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.watcher.warn(f"checkpoint-{self.state.global_step} could not be saved, training goes on: {first_line}")
