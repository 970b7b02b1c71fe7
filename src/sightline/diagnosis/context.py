"""Context: a run as the tests of its settings and training curve see it, taken apart once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sightline.diagnosis.series import EvalSeries, Floats
from sightline.runs import Best, Curve, Finding, Run, Severity

EMPTY = Curve.of([], [])
FEWEST = 4  # points of both losses that a comparison needs


@dataclass(frozen=True, eq=False)
class Context:
    """A run, its evaluations, and what was set."""

    run: Run
    series: EvalSeries
    best: Best | None = None

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Training arguments by their names, from whatever part of the configuration has them."""
        config = self.run.config
        arguments = config.get("arguments")
        return {**config, **arguments} if isinstance(arguments, Mapping) else config

    def number(self, name: str) -> float | None:
        """Return a setting that is a finite number, None otherwise."""
        value = self.settings.get(name)
        usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if usable and value is not None else None

    @cached_property
    def train(self) -> Curve:
        """The finite training losses."""
        curve = self.run.train_loss
        return EMPTY if curve is None else curve.finite()

    @cached_property
    def memorising(self) -> Curve:
        """The curve that tells how well the training rows are known: the probe in eval mode where there is one."""
        probe = self.run.curves.get("probe_loss")
        return probe.finite() if probe is not None and len(probe) >= 2 else self.train

    @cached_property
    def later_levels(self) -> tuple[Floats, Floats] | None:
        """Both losses at the later half of the evaluations; the training loss is the mean of the log lines around."""
        series, train = self.series, self.train
        if len(series) < FEWEST or len(train) < FEWEST or not series.judgeable or float(train.values.min()) <= 0.0:
            return None
        half = len(series) // 2
        at = np.searchsorted(train.steps, series.steps[half:], side="right")
        around = max(1, len(train) // 50)
        first, last = np.maximum(at - around, 0), np.minimum(at + around, len(train))
        sums = np.concatenate(([0.0], np.cumsum(train.values[first[0] :])))
        return (sums[last - first[0]] - sums[first - first[0]]) / (last - first), series.losses[half:]

    @cached_property
    def steps_per_epoch(self) -> float | None:
        """Optimizer steps in one pass over the training rows."""
        if self.run.step_unit == "epoch":
            return 1.0
        epochs = self.run.curves.get("epoch")
        if epochs is not None and len(epochs := epochs.finite()) >= 2:
            passed = float(epochs.values[-1] - epochs.values[0])
            if passed > 0.0:
                return float(epochs.steps[-1] - epochs.steps[0]) / passed
        planned, passes = self.run.max_steps, self.number("num_train_epochs")
        return planned / passes if planned and passes and passes > 0.0 else None


def note(
    kind: str,
    severity: Severity,
    message: str,
    span: tuple[int | None, int | None] = (None, None),
    *,
    strength: float | None = None,
    **evidence: float | int | str | None,
) -> Finding:
    """Make a finding; ``span`` is the first and the last step it concerns."""
    return Finding(kind, severity, message, span[0], span[1], strength, evidence)


def in_units_of(run: Run, text: str) -> str:
    """Say "epoch 3" instead of "step 3" of a run whose log counts epochs, "entry 3" where it counts nothing.

    Where epochs are counted, "more steps" are more epochs; settings (``eval_steps``, ``--max-steps``) keep their names.

    Examples
    --------
    >>> from pathlib import Path
    >>> in_units_of(Run(Path("log.csv"), "csv", "log", step_unit="epoch"), "risen since step 3; keep step 3")
    'risen since epoch 3; keep epoch 3'
    >>> in_units_of(Run(Path("log.csv"), "csv", "log", step_unit="epoch"), "more steps than eval_steps")
    'more epochs than eval_steps'
    """
    if run.step_unit == "step":
        return text
    if run.step_unit == "epoch":
        return re.sub(r"(?<![\w'-])step(?=s?\b)", "epoch", text)
    return re.sub(r"\bstep (?=\d)", "entry ", text)


def number_word(value: float) -> str:
    """Return a number that is none as it is usually written: NaN, inf, -inf."""
    return "NaN" if math.isnan(value) else f"{value:.4g}"


def times(count: int) -> str:
    """Return how often: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 evaluation, 2 evaluations."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def portion(share: float) -> str:
    """Return a probability or a part of a whole in percent; never 0 % or 100 % for what is neither.

    Examples
    --------
    >>> [portion(x) for x in (0.0, 0.001, 0.984, 0.9999, 1.0)]
    ['0 %', 'under 1 %', '98 %', 'over 99 %', '100 %']
    """
    if 0.0 < share < 0.005:
        return "under 1 %"
    if 0.995 <= share < 1.0:
        return "over 99 %"
    return f"{100.0 * share:.0f} %"


MANY_FOLD = 1e4
"""Changes so many times as large as what changed are told by their order of magnitude."""


def percent(share: float, places: int = 0) -> str:
    """Return a change in percent, of any size: 0.043 is 4 %; a small one keeps the digit that matters, 0.003 is 0.3 %.

    Examples
    --------
    >>> [percent(share) for share in (0.0, 0.0004, 0.003, 0.043, 1.6, 2e12)]
    ['0 %', 'below 0.1 %', '0.3 %', '4 %', '160 %', '2e+14 %']
    """
    if share >= MANY_FOLD:
        return f"{100.0 * share:.1g} %" if share < 1e300 else "over 1e+302 %"
    if 0.0 < abs(share) < 0.0005:
        return "below 0.1 %" if share > 0.0 else "above -0.1 %"
    if 0.0 < abs(share) < 0.0095:
        places = max(places, 1)
    return f"{100.0 * share:.{places}f} %"
