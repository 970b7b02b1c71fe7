"""record(): the recorder for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.journal.lifetime import how_it_ended
from sightline.journal.recorder import Recorder
from sightline.journal.values import Refused, metric_value
from sightline.runs import Checkpoint, Evaluation, ExampleLosses, Run, Status
from sightline.runs.names import canonical


def record(
    output_dir: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    from_step: int | None = None,
    max_steps: int | None = None,
) -> PlainRun:
    """Record a training loop of your own.

    Parameters
    ----------
    output_dir : str or Path
        Folder of the run; the record stands in ``sightline/`` in it.
    config : mapping, optional
        What describes the run; nested, secrets are masked.
    name : str, optional
        Short name for people, the folder's name unless given.
    resume : bool
        Go on with the run that the folder holds, if any.
    overwrite : bool
        Replace the record that the folder holds, if any.
    from_step : int, optional
        Step a resume goes on from; points recorded above it are superseded. Unless given, from the last one.
    max_steps : int, optional
        Steps planned.

    Returns
    -------
    PlainRun
        A context manager; leaving it ends the run, with the error if one was raised.

    Raises
    ------
    RunFolderExists
        If the folder holds a run, and neither ``resume`` nor ``overwrite`` was asked.
    RunFolderInUse
        If a living process records into the folder.

    Examples
    --------
    >>> with record("outputs/a", config={"lr": 3e-4}) as run:  # doctest: +SKIP
    ...     for step in range(1, 1001):
    ...         loss = train_step()
    ...         run.log(step=step, loss=loss)
    ...         if step % 100 == 0:
    ...             run.evaluation(step=step, eval_loss=validate())
    """
    recorder = Recorder.open(
        Path(output_dir),
        config=config,
        name=name,
        resume=resume,
        overwrite=overwrite,
        from_step=from_step if resume else 0,
        max_steps=max_steps,
    )
    return PlainRun(recorder)


class PlainRun:
    """A run being recorded by its own training loop; nothing it does raises into the loop."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    @property
    def problem(self) -> str | None:
        """What cannot be written at the moment and why; None while all is well."""
        return self.recorder.problem

    def log(self, step: int, metrics: Mapping[str, Any] | None = None, **named: Any) -> None:
        """Record metrics at a step.

        Parameters
        ----------
        step : int
            Optimizer steps done.
        metrics : mapping of str to number, optional
            By name, for names that are no Python words.
        **named : number
            By name: ``loss``, ``lr`` … Known aliases become canonical names (``sightline.runs.names``). Tensors and
            arrays of one element are taken.
        """
        given = {**(metrics or {}), **named}
        self.recorder.log(step, {canonical(str(name)): value for name, value in given.items()})

    def evaluation(
        self,
        step: int,
        eval_loss: Any = None,
        *,
        loss_sums: ArrayLike | None = None,
        token_counts: ArrayLike | None = None,
        probe_loss_sums: ArrayLike | None = None,
        probe_token_counts: ArrayLike | None = None,
        runtime_s: float | None = None,
        **metrics: Any,
    ) -> None:
        """Record an evaluation on the validation rows.

        Parameters
        ----------
        step : int
            Optimizer steps done; 0 is the model before training.
        eval_loss : number, optional
            Mean loss in nats per token; unless given, it is that of ``loss_sums`` and ``token_counts``.
        loss_sums : array_like of float, shape (n,), optional
            Sum of the token losses of each validation row, in nats, rows in the same order each time. They let two
            evaluations be compared row by row, which tells much smaller changes from noise.
        token_counts : array_like of int, shape (n,), optional
            Labelled tokens of each row; 1 each unless given.
        probe_loss_sums, probe_token_counts : array_like, shape (m,), optional
            The same for a fixed sample of training rows, scored in evaluation mode.
        runtime_s : float, optional
            Seconds the evaluation took.
        **metrics : number
            Further metrics of this evaluation, recorded as by ``log``.
        """
        problem = None
        try:
            losses, probe = _rows(loss_sums, token_counts), _rows(probe_loss_sums, probe_token_counts)
        except (ValueError, TypeError) as error:
            losses = probe = None
            problem = str(error)
        try:
            loss = metric_value(eval_loss)
        except Refused as error:
            loss, problem = None, str(error)
        if loss is None and losses is not None:
            loss = losses.loss
        if loss is not None:
            self.recorder.evaluation(Evaluation(step, loss, losses, probe, runtime_s=runtime_s))
        if problem is not None or loss is None:
            self.recorder.refuse("evaluation", step, f"of an evaluation at step {step}: {problem or 'no eval_loss'}")
        if metrics:
            self.log(step, metrics)

    def checkpoint(self, step: int, path: str | Path, size_bytes: int | None = None) -> None:
        """Record that the weights of a step were saved to a folder or file."""
        self.recorder.checkpoint(Checkpoint(step, Path(path), size_bytes), "saved")

    def end(self, status: Status | str = Status.FINISHED, reason: str | None = None) -> None:
        """Record how the run ended and close it; what comes later is not recorded.

        Parameters
        ----------
        status : Status or str
            ``finished``, ``stopped`` or ``failed``.
        reason : str, optional
            Why, in words.
        """
        self.recorder.end(Status(status), reason)
        self.recorder.close()

    def run(self) -> Run:
        """Return the run as recorded so far."""
        return self.recorder.run()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.end(*how_it_ended(error))
        elif not self.recorder.has_ended:
            self.end()


def _rows(loss_sums: ArrayLike | None, token_counts: ArrayLike | None) -> ExampleLosses | None:
    """Return losses by row from arrays or tensors."""
    if loss_sums is None:
        return None
    sums = _vector(loss_sums).astype(np.float64)
    counts = np.ones(sums.shape) if token_counts is None else _vector(token_counts)
    if sums.shape != counts.shape:
        raise ValueError(f"loss_sums of {sums.size} rows, token_counts of {counts.size}")
    return ExampleLosses(sums, counts.astype(np.int64))


def _vector(values: Any) -> NDArray[Any]:
    """Return a vector from a list, an array, or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values).reshape(-1)
