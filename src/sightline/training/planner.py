"""Planner: before the first step, how many rows an evaluation can afford."""

from __future__ import annotations

import time

from torch import nn

from sightline.evaluation import EvalSet, evaluate
from sightline.training.evaluation_plan import FEWEST_ROWS, EvaluationPlan, plan_evaluations
from sightline.training.prepare import Prepared
from sightline.training.ranks import Ranks
from sightline.training.sample import Sample
from sightline.training.validation import tokens

WARM_UP_ROWS = 8
STEP_PER_PASS = 2.5
"""Time of a training step over that of a forward pass on the same tokens: 2 under LoRA, 3 for all weights, and more on
padded rows. Only the first guess: steps are timed as soon as there are some."""


class Planner:
    """Times a few rows of the validation set and spares as many as their share of the run then asks for.

    Parameters
    ----------
    prepared : Prepared
        Rows and steps of the run.
    eval_set, probe_set : EvalSet
        What could be scored.
    """

    def __init__(self, prepared: Prepared, eval_set: EvalSet, probe_set: EvalSet) -> None:
        self.prepared = prepared
        self.eval_set = eval_set
        self.probe_set = probe_set

    def __call__(self, model: nn.Module) -> EvaluationPlan:
        """Return the plan, the same on every rank."""
        evaluate(model, Sample.drawn(self.eval_set, WARM_UP_ROWS).rows)  # the first pass pays for what is made once
        few = Sample.drawn(self.eval_set, FEWEST_ROWS).rows
        began = time.perf_counter()
        evaluate(model, few)
        token_s = (time.perf_counter() - began) / tokens(few)
        cadence, train_rows = self.prepared.cadence, self.prepared.train_rows
        step_tokens = train_rows.tokens / len(train_rows) * cadence.rows_per_step  # ranks share passes and steps alike
        plan = plan_evaluations(
            EvaluationPlan(len(self.eval_set), len(self.probe_set)),
            evaluations=cadence.evaluations,
            eval_s=token_s * tokens(self.eval_set),
            probe_s=token_s * tokens(self.probe_set),
            step_s=STEP_PER_PASS * token_s * step_tokens,
            total_steps=cadence.total_steps,
            share=self.prepared.recipe.eval_time_budget,
        )
        return Ranks().told_by_first(plan)
