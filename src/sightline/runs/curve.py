"""Curve: one metric of one run over its optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """One metric of one run, in the order it was logged."""

    steps: NDArray[np.int64]
    """Optimizer steps (``global_step``), shape (n,), strictly increasing."""
    values: NDArray[np.float64]
    """The metric at each step, shape (n,); NaN and infinities are kept as they were logged."""
    replaced: Curve | None = None
    """Other values that were logged at some of the steps before those that count; None where there are none."""

    def __post_init__(self) -> None:
        if self.steps.shape != self.values.shape or self.steps.ndim != 1:
            raise ValueError(
                f"a curve needs steps and values of one shape (n,), got {self.steps.shape} and {self.values.shape}"
            )
        if self.steps.size > 1 and not bool(np.all(self.steps[1:] > self.steps[:-1])):
            raise ValueError("the steps of a curve must increase strictly; Curve.of() sorts and removes duplicates")

    @classmethod
    def of(cls, steps: ArrayLike, values: ArrayLike) -> Curve:
        """Build a curve from points in any order; of several points at one step the last one given counts.

        Parameters
        ----------
        steps : array_like of int, shape (n,)
            Optimizer steps.
        values : array_like of float, shape (n,)
            Values of the metric.

        Returns
        -------
        Curve
            Sorted, one point a step; ``replaced`` holds the last other value of a step that was given several.
        """
        replaced = None
        step_array = np.asarray(steps, dtype=np.int64)
        value_array = np.asarray(values, dtype=np.float64)
        if step_array.size > 1 and not bool(np.all(step_array[1:] > step_array[:-1])):
            order = np.argsort(step_array, kind="stable")
            step_array, value_array = step_array[order], value_array[order]
            last_of_step = _last_of_steps(step_array)
            if not bool(last_of_step.all()):
                replaced = _replaced(step_array, value_array, last_of_step)
                step_array, value_array = step_array[last_of_step], value_array[last_of_step]
        return cls(step_array, value_array, replaced)

    def __len__(self) -> int:
        return int(self.steps.size)

    def finite(self) -> Curve:
        """Return the points whose value is finite."""
        keep = np.isfinite(self.values)
        return self if bool(keep.all()) else Curve(self.steps[keep], self.values[keep])

    def until(self, step: int) -> Curve:
        """Return the points up to and including ``step``."""
        n = int(np.searchsorted(self.steps, step, side="right"))
        if n == len(self):
            return self
        replaced = None if self.replaced is None else self.replaced.until(step)
        return Curve(self.steps[:n], self.values[:n], replaced if replaced else None)

    def since(self, step: int) -> Curve:
        """Return the points from ``step`` on, it included."""
        n = int(np.searchsorted(self.steps, step, side="left"))
        return self if n == 0 else Curve(self.steps[n:], self.values[n:])

    def at(self, step: int) -> float | None:
        """Return the value logged exactly at ``step``, or None."""
        n = int(np.searchsorted(self.steps, step))
        return float(self.values[n]) if n < len(self) and int(self.steps[n]) == step else None


def _replaced(steps: NDArray[np.int64], values: NDArray[np.float64], counts: NDArray[np.bool_]) -> Curve | None:
    """Return of sorted points those that another value at their step takes the place of, the last of each step."""
    counting = values[counts][np.searchsorted(steps[counts], steps)]
    other = (values != counting) & ~(np.isnan(values) & np.isnan(counting))
    if not bool(other.any()):
        return None
    steps, values = steps[other], values[other]
    last_of_step = _last_of_steps(steps)
    return Curve(steps[last_of_step], values[last_of_step])


def _last_of_steps(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of sorted steps are the last of equal ones."""
    return np.append(steps[1:] != steps[:-1], True)
