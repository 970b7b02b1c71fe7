"""Cadence: when a run logs, evaluates and saves, all of it from one number, ``evals_per_epoch``.

Pure arithmetic. The step counts are those of ``transformers.Trainer.set_initial_training_values`` (5.23): batches of
the sampler, sharded over processes and padded to equal counts (accelerate's ``even_batches``), divided by the
accumulation and rounded up, because the Trainer takes a last short accumulation as a full step.

API: ``Cadence.plan(rows=…, batch_size=…, …)``, ``cadence.evaluation_steps()``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_EVALUATIONS = 10
"""Evaluations a run gets at least, where it has that many steps: fewer say little about its shape."""
MAX_LOGGING_STEPS = 10


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a run logs, evaluates and saves, in optimizer steps."""

    steps_per_epoch: int
    total_steps: int
    epochs: float
    """Passes over the training rows that ``total_steps`` make."""
    rows_per_step: int
    """Rows of one optimizer step: batch size x accumulation x processes."""
    eval_steps: int | None
    """Steps between evaluations; None when nothing is evaluated."""
    logging_steps: int
    save_steps: int | None
    """Steps between checkpoints; None when nothing is saved by step."""
    fixed_evaluation: bool = False
    """True where the user set the interval of evaluation: no cost bound moves it."""
    fixed_logging: bool = False
    fixed_saving: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def plan(
        cls,
        *,
        rows: int,
        batch_size: int,
        accumulation: int = 1,
        world_size: int = 1,
        epochs: float = 3.0,
        max_steps: int = -1,
        evals_per_epoch: float = 15.0,
        eval_steps: float | None = None,
        logging_steps: float | None = None,
        save_steps: float | None = None,
        saves_per_epoch: float | None = None,
        evaluate: bool = True,
        drop_last: bool = False,
    ) -> Cadence:
        """Plan a run.

        Parameters
        ----------
        rows : int
            Training rows, at least 1.
        batch_size : int
            Rows a process takes at once.
        accumulation : int
            Batches whose gradients make one optimizer step.
        world_size : int
            Processes that train together.
        epochs, max_steps : float, int
            ``max_steps`` above 0 wins, as in the Trainer.
        evals_per_epoch : float
            Evaluations wanted an epoch, where ``eval_steps`` is not given.
        eval_steps, logging_steps, save_steps : float or None
            Intervals the user set; below 1 a share of the whole run, as in the Trainer.
        saves_per_epoch : float or None
            Checkpoints wanted an epoch.
        evaluate : bool
            False when there are no validation rows.
        drop_last : bool
            Whether the last short batch of an epoch is left out.

        Returns
        -------
        Cadence
            With ``notes`` where what was asked cannot be had.
        """
        per_epoch = steps_per_epoch(rows, batch_size, accumulation, world_size, drop_last=drop_last)
        total = max_steps if max_steps > 0 else max(1, math.ceil(epochs * per_epoch))
        notes: list[str] = []
        interval = _eval_interval(per_epoch, total, evals_per_epoch, eval_steps) if evaluate else None
        logging = _resolve(logging_steps, total) if logging_steps else _logging_interval(interval, total)
        saving = _save_interval(per_epoch, total, interval, save_steps, saves_per_epoch)
        if evaluate and eval_steps is None and per_epoch < evals_per_epoch:
            notes.append(
                f"an epoch has only {per_epoch} steps, so it has {per_epoch} evaluations, not {evals_per_epoch:g}"
            )
        return cls(
            steps_per_epoch=per_epoch,
            total_steps=total,
            epochs=total / per_epoch,
            rows_per_step=batch_size * accumulation * world_size,
            eval_steps=interval,
            logging_steps=logging,
            save_steps=saving,
            fixed_evaluation=eval_steps is not None,
            fixed_logging=logging_steps is not None,
            fixed_saving=save_steps is not None or saves_per_epoch is not None,
            notes=tuple(notes),
        )

    def evaluation_steps(self) -> tuple[int, ...]:
        """Return steps at which the run is evaluated after step 0, its last step among them."""
        if self.eval_steps is None:
            return ()
        steps = list(range(self.eval_steps, self.total_steps + 1, self.eval_steps))
        return tuple(steps if steps and steps[-1] == self.total_steps else [*steps, self.total_steps])

    @property
    def evaluations(self) -> int:
        """Number of evaluations after step 0."""
        return len(self.evaluation_steps())


def steps_per_epoch(
    rows: int, batch_size: int, accumulation: int = 1, world_size: int = 1, *, drop_last: bool = False
) -> int:
    """Return the optimizer steps of one epoch, as the Trainer counts them.

    Parameters
    ----------
    rows, batch_size, accumulation, world_size : int
        As in :meth:`Cadence.plan`.
    drop_last : bool
        Whether the last short batch is left out.

    Returns
    -------
    int
        At least 1.
    """
    batches = rows // batch_size if drop_last else math.ceil(rows / batch_size)
    of_process = (
        batches // world_size if drop_last else math.ceil(batches / world_size)
    )  # accelerate pads to equal counts
    return max(math.ceil(of_process / accumulation), 1)


def _resolve(steps: float, total: int) -> int:
    """Return an interval given in steps, or below 1 as a share of the run (the Trainer rounds it up)."""
    return max(1, math.ceil(total * steps)) if steps < 1 else int(steps)


def _eval_interval(per_epoch: int, total: int, evals_per_epoch: float, given: float | None) -> int:
    """Return steps between evaluations."""
    if given is not None:
        return _resolve(given, total)
    wanted = min(per_epoch / evals_per_epoch, total / min(MIN_EVALUATIONS, total))
    return _round_down(max(1, int(wanted)))


def _round_down(steps: int) -> int:
    """Return a round number of steps, so that it has divisors for logging."""
    unit = 10 if steps >= 100 else 5 if steps >= 20 else 1
    return steps - steps % unit


def _logging_interval(eval_steps: int | None, total: int) -> int:
    """Return the longest divisor of the evaluation interval with at least two log lines an evaluation, 10 at most."""
    if eval_steps is None:
        return max(1, min(MAX_LOGGING_STEPS, total // 20))
    limit = min(MAX_LOGGING_STEPS, max(1, eval_steps // 2))
    return next(d for d in range(limit, 0, -1) if eval_steps % d == 0)


def _save_interval(
    per_epoch: int, total: int, eval_steps: int | None, given: float | None, saves_per_epoch: float | None
) -> int | None:
    """Return steps between checkpoints: with every evaluation, unless the user asked otherwise."""
    if given is not None:
        return _resolve(given, total)
    if saves_per_epoch is not None:
        wanted = max(1, round(per_epoch / saves_per_epoch))
        return max(1, round(wanted / eval_steps)) * eval_steps if eval_steps else wanted
    return eval_steps if eval_steps is not None else per_epoch
