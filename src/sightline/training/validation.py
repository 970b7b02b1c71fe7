"""Validation: what `sightline train` scores at an evaluation, how many rows of it, and what that costs.

Where the rows are a sample, it is widened when it turns out too small to show a change of 1 %. More rows have another
level, so the loss that the run is judged by goes on from the rows before: at the evaluation that first scores the wider
sample the loss of the same weights on the narrower one is known too, and their difference is taken off from then on, as
the links of a chained price index join one basket of goods to the next. What was measured stands beside it.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from sightline.evaluation import EvalSet, evaluate
from sightline.runs import Evaluation, ExampleLosses
from sightline.training.evaluation_plan import EvaluationPlan, affordable_rows, widened
from sightline.training.ranks import Ranks
from sightline.training.sample import Sample
from sightline.training.spending import Spending

COSTS = 3
"""Evaluations whose median tells what the next one will cost: a single slow one must not silence the rest."""

LATE = 0.2
"""Part of the run that must be left for a wider sample: a level is of no use without evaluations to compare on it."""


class Validation:
    """Scores the validation rows and the train probe of a run; every rank evaluates at the same steps.

    Parameters
    ----------
    eval_set, probe_set : EvalSet
        All rows that could be scored.
    spending : Spending
        Gets every second that is spent here.
    """

    def __init__(self, eval_set: EvalSet, probe_set: EvalSet, spending: Spending) -> None:
        self.sample = Sample.all_of(eval_set)
        self.probe = Sample.all_of(probe_set)
        self.spending = spending
        self.planner: Callable[[nn.Module], EvaluationPlan] | None = None
        """Asked before the base model is scored how many rows to score, on every rank."""
        self.share: float | None = None
        """Part of the run's time within which a sample may be widened; None where rows are never spared."""
        self.best: Evaluation | None = None
        """The best evaluation so far, for what the sample can tell from it."""
        self.blindness: str | None = None
        """What the rows scored cannot show, where no more rows fit into the time."""
        self._ranks: Ranks | None = None
        self._next_rows: int | None = None
        self._beyond = 0.0
        self._token_s: deque[float] = deque(maxlen=COSTS)
        self._probe_s: deque[float] = deque(maxlen=COSTS)

    def score_only(self, plan: EvaluationPlan) -> None:
        """Score these many rows at every evaluation from now on."""
        if plan.eval_rows < len(self.sample.whole):
            self.sample = Sample.drawn(self.sample.whole, plan.eval_rows)
        if plan.probe_rows < len(self.probe.whole):
            self.probe = Sample.drawn(self.probe.whole, plan.probe_rows)

    def evaluate(self, model: nn.Module, step: int) -> Evaluation:
        """Score the rows.

        Parameters
        ----------
        model : torch.nn.Module
            Its weights are those of the step.
        step : int
            ``global_step``.

        Returns
        -------
        Evaluation
            Of the widened sample where it was to be widened and all its losses are finite.
        """
        began = time.monotonic()
        try:
            if self.planner is not None and step == 0:
                self.score_only(self.planner(model))
                self.planner = None
            return self._evaluate(model, step)
        finally:
            self.spending.spend(time.monotonic() - began, step=step)

    def look_ahead(self, evaluation: Evaluation) -> None:
        """Decide how many rows the next evaluation has, once the loss has stopped falling; rank 0 for all.

        Parameters
        ----------
        evaluation : Evaluation
            The one just made. Only how unlike its rows have changed since the best one counts, never which way.
        """
        if self.sample.is_part and self.share is not None and self.share < 1:
            if self._ranks is None:
                self._ranks = Ranks()
            rows = self._ranks.told_by_first(self._width(evaluation))
            if rows > len(self.sample):
                self._next_rows = rows
                self._expect_cost()
        if np.isfinite(evaluation.eval_loss) and (self.best is None or evaluation.eval_loss < self.best.eval_loss):
            self.best = evaluation

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this."""
        return {
            "eval_rows": len(self.sample) if self.sample.is_drawn else None,
            "probe_rows": len(self.probe) if self.probe.is_drawn else None,
            "next_rows": self._next_rows,
            "beyond": self._beyond,
            "token_s": list(self._token_s),
            "probe_s": list(self._probe_s),
            "spending": self.spending.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the rows and the level of a checkpoint."""
        if state["eval_rows"] is not None:
            self.sample = Sample.drawn(self.sample.whole, int(state["eval_rows"]))
        if state["probe_rows"] is not None:
            self.probe = Sample.drawn(self.probe.whole, int(state["probe_rows"]))
        self._next_rows = state["next_rows"]
        self._beyond = float(state["beyond"])
        self._token_s.extend(state["token_s"])
        self._probe_s.extend(state["probe_s"])
        self.spending.restore(state["spending"])
        self.planner = None

    def _evaluate(self, model: nn.Module, step: int) -> Evaluation:
        sample = self.sample if self._next_rows is None else self.sample.of_size(self._next_rows)
        began = time.monotonic()
        losses = evaluate(model, sample.rows)
        between = time.monotonic()
        probe = evaluate(model, self.probe.rows)
        ended = time.monotonic()
        self._token_s.append((between - began) / tokens(sample.rows))
        self._probe_s.append(ended - between)
        losses = self._linked(sample, losses)
        self._expect_cost()
        measured = losses.loss
        return Evaluation(
            step=step,
            eval_loss=measured - self._beyond,
            losses=losses,
            probe=probe,
            runtime_s=ended - began,
            measured_loss=measured if self._beyond else None,
        )

    def _linked(self, sample: Sample, losses: ExampleLosses) -> ExampleLosses:
        """Take up a wider sample, whose first rows are those scored so far; not where its loss is no number."""
        narrow = losses.first(len(self.sample))
        if len(sample) == len(self.sample) or not np.isfinite(losses.loss):
            return narrow
        self._beyond += losses.loss - narrow.loss
        self.sample, self._next_rows = sample, None
        return losses

    def _expect_cost(self) -> None:
        """Tell the account what the next evaluation and the check of the best weights will cost."""
        self.spending.closing_s = self._row_s * (self._next_rows or len(self.sample))
        self.spending.next_s = self.spending.closing_s + statistics.median(self._probe_s)

    def _width(self, now: Evaluation) -> int:
        """Return the rows that the next evaluation needs and can have; note what they cannot show."""
        best, rows = self.best, len(self.sample)
        if best is None or best.losses is None or now.losses is None or not now.eval_loss >= best.eval_loss:
            return rows  # it falls: a change of 1 % is not what is looked for
        assert self.share is not None
        left = 1.0 - now.step / self.spending.total_steps
        if left < LATE:
            return rows
        affordable = affordable_rows(
            self.spending.left_s(self.share, now.step),
            left=left,
            row_s=self._row_s,
            probe_s=statistics.median(self._probe_s),
        )
        wider = widened(rows, self.sample.needed(best.losses, now.losses), affordable, len(self.sample.whole))
        self.blindness = self.sample.blind_to(best.losses, now.losses) if wider == rows else None
        return wider

    @property
    def _row_s(self) -> float:
        """Seconds of a row of the sample, as of the last evaluations."""
        return statistics.median(self._token_s) * tokens(self.sample.rows) / len(self.sample)


def tokens(rows: EvalSet) -> int:
    """Return how many tokens a model is given to score a set of rows, at least 1."""
    return max(1, sum(len(ids) for ids in rows.ids))
