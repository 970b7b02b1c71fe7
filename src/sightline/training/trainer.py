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

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
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
from sightline.evaluation import EvalSet, evaluate
from sightline.runs import Evaluation, ExampleLosses
from sightline.training.budget import EvaluationBudget
from sightline.training.callback import SightlineCallback
from sightline.training.continuation import Continuation
from sightline.training.evaluation_plan import EvaluationPlan
from sightline.training.labelled_head import project_labelled_positions
from sightline.training.ranks import Ranks
from sightline.training.row_order import RowOrder
from sightline.training.rows import TokenisedRow
from sightline.training.sample import Sample
from sightline.training.saving import save_checkpoint

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
    eval_set, probe_set : EvalSet
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
        eval_set: EvalSet | None,
        probe_set: EvalSet | None,
        **kwargs: Any,
    ) -> None:
        watcher.evaluation.expect()
        packing = kwargs["args"].packing
        # Unless TRL is to pack them, it needs to see only one row; the rows themselves are put in its place below.
        shown = Dataset.from_list([as_features(row) for row in (train_rows if packing else [train_rows[0]])])
        super().__init__(train_dataset=shown, eval_dataset=shown if eval_set else None, **kwargs)
        if not packing:
            self.train_dataset = RowsInMemory(train_rows)
        self.remove_callback(PrinterCallback)  # what is logged is shown by the display
        self.watcher = watcher
        self.eval_set = eval_set
        self.probe_set = probe_set
        self.budget: EvaluationBudget | None = None
        self.planner: Callable[[nn.Module], EvaluationPlan] | None = None
        """Asked before the base model is scored how many rows to score, on every rank."""
        self.scored = None if eval_set is None else Sample.of(eval_set, len(eval_set))
        self.scored_probe = None if probe_set is None else Sample.of(probe_set, len(probe_set))
        self._plain_loss = (
            self.args.loss_type == "nll"
            and self.compute_loss_func is None
            and self.label_smoother is None
            and not self.aux_loss_enabled
        )
        if self._plain_loss:
            project_labelled_positions(self.model)
        self._places_told = False
        self._best: ExampleLosses | None = None
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
        if eval_dataset is not None or self.eval_set is None:
            metrics: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            return metrics
        began = time.perf_counter()
        try:
            evaluation = self._evaluate_exactly()
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
        self._tell_blindness(evaluation)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _tell_blindness(self, evaluation: Evaluation) -> None:
        """Say once, as soon as the loss has stopped falling, that the rows scored show no change of 1 %."""
        losses, best = evaluation.losses, self._best
        if losses is None or not math.isfinite(losses.loss):
            return
        if best is None or losses.loss < best.loss:
            self._best = losses
        elif self.scored is not None and not self._blindness_told:
            told = self.scored.blind_to(best, losses)
            self._blindness_told = told is not None
            if told is not None:
                self.watcher.tell(told)

    def score_only(self, plan: EvaluationPlan) -> None:
        """Score these many rows at every evaluation from now on, and let the journal know."""
        assert self.eval_set is not None and self.probe_set is not None
        self.scored = Sample.of(self.eval_set, plan.eval_rows)
        self.scored_probe = Sample.of(self.probe_set, plan.probe_rows)
        self.watcher.tell_facts({"evaluation": dataclasses.asdict(plan)})
        self._places_told = False

    def _evaluate_exactly(self) -> Evaluation:
        if self.planner is not None and self.state.global_step == 0:
            plan = self.planner(self.model)
            if self.budget is not None:
                self.budget.interval = plan.interval
            self.score_only(plan)
            self.planner = None
        assert self.scored is not None and self.scored_probe is not None
        if not self._places_told and 0 < len(self.scored.rows.places) <= MOST_PLACES:
            self.watcher.tell_facts({PLACES: self.scored.rows.places})
        self._places_told = True
        began = time.perf_counter()
        losses = evaluate(self.model, self.scored.rows)
        probe = evaluate(self.model, self.scored_probe.rows)
        runtime_s = time.perf_counter() - began
        if self.budget is not None:
            self.budget.took(runtime_s)
        return Evaluation(
            step=self.state.global_step, eval_loss=losses.loss, losses=losses, probe=probe, runtime_s=runtime_s
        )

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
