"""Task scores beside the loss: a rising validation loss with a rising score is no reason to stop.

Cross-entropy punishes confident mistakes without bound, so it can rise while more answers get right; where the two
disagree, the score of the task decides. What it can still gain is forecast as that of the loss is, from what it lacks
of the best score there can be: errors, like losses, fall ever more slowly towards a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sightline.diagnosis.context import Context
from sightline.diagnosis.forecast import forecast
from sightline.diagnosis.horizon import look_ahead
from sightline.diagnosis.noise import rough_noise
from sightline.diagnosis.series import EvalSeries, Floats
from sightline.diagnosis.trend import follow_trend
from sightline.runs import Forecast
from sightline.runs.names import lower_is_better

PREFERRED = (
    "gold_score",
    "exact_match",
    "token_f1",
    "f1",
    "accuracy",
    "acc",
    "rouge",
    "bleu",
    "chrf",
    "meteor",
    "mrr",
    "ndcg",
)
"""Words of task scores, the one that decides first when there are several."""
NOT_TASKS = ("mean_token_accuracy", "token_accuracy")
"""Measured on the reference answer, token by token: a shadow of the loss, no task."""
FEWEST = 4


@dataclass(frozen=True, slots=True)
class ScoreCourse:
    """How a task score went after the lowest validation loss."""

    name: str
    at_best_loss: float
    best: float
    best_step: int
    last: float

    @property
    def improved(self) -> float:
        """Gain of the best score over the score at the lowest loss."""
        return self.best - self.at_best_loss


def better_score_after(context: Context, step: int) -> ScoreCourse | None:
    """Find the task score and say whether it rose, beyond its noise, after a step.

    Parameters
    ----------
    context : Context
        The run.
    step : int
        Step of the lowest validation loss.

    Returns
    -------
    ScoreCourse or None
        None where no score is logged, or it did not rise.
    """
    name = task_score(context)
    if name is None:
        return None
    curve = context.run.curves[name].finite()
    before, after = curve.until(step), curve.since(step + 1)
    if len(curve) < FEWEST or not len(before) or not len(after):
        return None
    reference = float(before.values[-1])
    at = int(np.argmax(after.values))
    noise = rough_noise(curve.values)
    spread = float(curve.values.max() - curve.values.min())
    count = len(after)
    luck = math.sqrt(2.0) * noise * math.sqrt(2.0 * math.log(count + 1.0) + 1.0)  # the best of several is lucky
    best, last = float(after.values[at]), float(after.values[-1])
    if best - max(reference, float(before.values.max())) <= max(luck, 0.02 * spread) or last <= reference:
        return None
    return ScoreCourse(name, reference, best, int(after.steps[at]), last)


def forecast_score(context: Context, name: str, worthwhile_gain: float) -> Forecast | None:
    """Say what the rest of a run can still gain in a task score.

    Parameters
    ----------
    context : Context
        The run.
    name : str
        Curve of the score; higher is better.
    worthwhile_gain : float
        Smallest improvement worth having, as a share of what the score lacks.

    Returns
    -------
    Forecast or None
        Its gains are shares of what the score lacks of the best there can be, where that is known; otherwise of the
        span it has moved in. None with too few scores to tell a trend from noise.
    """
    curve = context.run.curves[name].finite()
    errors = _errors(curve.values) if len(curve) else curve.values
    if not (errors > 0.0).any():
        return None
    series = EvalSeries(curve.steps, errors, 0, (None,) * len(curve), None)
    trend = follow_trend(series)
    if trend is None:
        return None
    return forecast(series, trend, look_ahead(context.run, int(curve.steps[-1])), worthwhile_gain)


def _errors(scores: Floats) -> Floats:
    """Return what scores lack of a full one, a fraction or a percentage; with no known bound, e to minus each in spans."""
    low, high = float(scores.min()), float(scores.max())
    if low >= 0.0 and high <= 100.0:
        return np.asarray((1.0 if high <= 1.0 else 100.0) - scores)
    return np.asarray(np.exp((low - scores) / max(high - low, 1e-300)))


def task_score(context: Context) -> str | None:
    """Name of the curve that scores the task on rows not learnt from, None if there is none."""
    names = [name for name in context.run.curves if is_task_score(name)]
    for word in PREFERRED:
        for name in sorted(names, key=lambda n: (not n.startswith("gold"), n)):
            if word in name.lower():
                return name
    return None


def is_task_score(name: str) -> bool:
    """Return whether a curve scores a task on rows not learnt from, higher being better, by its name."""
    held_out = name.startswith(("gold", "eval_", "eval/", "val", "dev", "test"))
    known = any(word in name.lower() for word in PREFERRED)
    return held_out and known and not name.endswith(NOT_TASKS) and not lower_is_better(name)
