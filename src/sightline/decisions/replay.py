"""replay(): what would have been said and done at every evaluation of a run, with no look ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.decisions.decide import deciding_score
from sightline.decisions.policy import Policy
from sightline.decisions.verdict import Verdict, judge_run, number
from sightline.runs import Action, Curve, Phase, Run


@dataclass(frozen=True, slots=True)
class Moment:
    """The verdict at one evaluation, of the run cut off there."""

    step: int
    eval_loss: float
    phase: Phase
    confidence: float | None
    action: Action
    keep_step: int | None


@dataclass(frozen=True, eq=False, slots=True)
class Replay:
    """All verdicts of a run in order."""

    run: Run
    moments: tuple[Moment, ...]
    judged_by: str
    """Metric by which the best step and the regret are told: the validation loss, or the task score where it decides."""
    knows_best: bool = True
    """False where the evaluations do not tell a best step: of no loss, or of a model that is not the trained one."""

    @property
    def stop(self) -> Moment | None:
        """The first moment that said stop, None if none did."""
        return next((moment for moment in self.moments if moment.action is Action.STOP), None)

    @property
    def kept_step(self) -> int | None:
        """Step that would have been kept had the decisions been obeyed."""
        if not self.moments:
            return None
        return (self.stop or self.moments[-1]).keep_step

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation of the whole run."""
        steps, lacks = self._lacking
        return int(steps[lacks.argmin()]) if lacks.size else None

    @property
    def regret(self) -> float | None:
        """How much worse the kept step is than the best of the whole run, in units of ``judged_by``."""
        steps, lacks = self._lacking
        kept = lacks[steps == self.kept_step]
        return float(kept[0] - lacks.min()) if kept.size else None

    @property
    def _lacking(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return steps and values of what is judged by, the lowest value the best."""
        if not self.knows_best:
            return np.zeros(0, np.int64), np.zeros(0)
        curve = _evaluated(self.run) if self.judged_by == self.run.eval_metric else self.run.curves[self.judged_by]
        finite = curve.finite()
        return finite.steps, finite.values if self.judged_by == self.run.eval_metric else -finite.values

    @property
    def spent_fraction(self) -> float | None:
        """Share of the run's steps spent when the decisions are obeyed."""
        if not self.moments:
            return None
        return 1.0 if self.stop is None or not self.run.last_step else self.stop.step / self.run.last_step


def replay(run: Run, policy: Policy | None = None) -> Replay:
    """Judge a run at every evaluation as it stood then.

    Parameters
    ----------
    run : Run
        A finished run, or one so far.
    policy : Policy, optional
        Thresholds; those of Sightline unless given.

    Returns
    -------
    Replay
        The verdict at an evaluation never depends on what was logged after it.
    """
    moments = []
    curve = _evaluated(run)
    for step, eval_loss in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
        moments.append(_moment(step, eval_loss, judge_run(run.until(step), policy)))
    whole = judge_run(run, policy).diagnosis
    score = deciding_score(whole)
    judged_by = str(score.evidence["score"]) if score is not None else run.eval_metric
    return Replay(run, tuple(moments), judged_by, knows_best=whole.best is not None)


def replay_as_json(replayed: Replay) -> dict[str, Any]:
    """Return the JSON of `sightline replay`; unknown is None, non-finite numbers are strings."""
    stop = replayed.stop
    return {
        "sightline": 1,
        "path": str(replayed.run.path),
        "step_unit": replayed.run.step_unit,
        "evals": [
            {
                "step": moment.step,
                "eval_loss": number(moment.eval_loss),
                "phase": moment.phase.value,
                "action": moment.action.value,
                "keep_step": moment.keep_step,
            }
            for moment in replayed.moments
        ],
        "stop_step": None if stop is None else stop.step,
        "judged_by": replayed.judged_by,
        "best_step": replayed.best_step,
        "regret": number(replayed.regret),
        "spent_fraction": number(replayed.spent_fraction),
    }


def _moment(step: int, eval_loss: float, verdict: Verdict) -> Moment:
    diagnosis, decision = verdict.diagnosis, verdict.decision
    return Moment(step, eval_loss, diagnosis.phase, diagnosis.confidence, decision.action, decision.keep_step)


def _evaluated(run: Run) -> Curve:
    return run.eval_loss or Curve.of([], [])
