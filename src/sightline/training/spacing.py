"""Spacing: at which step the next evaluation is due. No torch, no clock.

Evaluations are there to see a turn wherever it comes, so what they may still cost is spread over what is left of the
run, and that anew whenever it is asked. With n steps left since the last evaluation and m evaluations that can still be
afforded, the next one is due n / m steps after the last. Whatever the estimates were at first, cold caches that make the
first steps slow or a machine that slows down later, an error changes how dense the evaluations are from there on and
never bunches them: seconds that turn up later are spread over the steps that are left then, not spent on the spot.

Two bounds hold whatever the time allows. Two evaluations are never closer than the interval that was planned, the one of
the last step included. And no run has fewer than four: one that is seen at its ends only cannot be stopped and says
nothing of its shape, so no hole is wider than about a quarter of the steps. A run too small for four goes beyond its share.
"""

from __future__ import annotations

FEWEST = 4
"""Evaluations after the base model's that every run with as many steps has, evenly spread."""


def fewest_left(step: int, total_steps: int) -> int:
    """Return how many of the fewest evaluations belong to the steps after one of them, at least 1: the last step's."""
    return max(1, round(FEWEST * (total_steps - step) / total_steps))


def next_evaluation(step: int, last_step: int, total_steps: int, *, interval: int, affordable: int) -> int:
    """Return the step at which the next evaluation is due.

    Parameters
    ----------
    step : int
        The step of now, at which there may be one.
    last_step : int
        Step of the last evaluation, below ``total_steps``.
    total_steps : int
        Optimizer steps of the whole run; the last one is always evaluated.
    interval : int
        Fewest steps between two evaluations.
    affordable : int
        Evaluations there is time for in the steps that are left, that of the last step among them.

    Returns
    -------
    int
        At least ``step``, at most ``total_steps``.
    """
    left = total_steps - last_step
    evaluations = max(affordable, fewest_left(last_step, total_steps))
    gap = max(interval, round(left / evaluations))
    due = max(step, last_step + gap)  # time that has turned up late comes too late where the end is near
    return due if due + max(interval, gap // 2) <= total_steps else total_steps
