"""ExactLosses: the exact loss of each evaluation of anyone's Trainer, from its own pass or from one beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.evaluation import EvalSet, HookedLosses, LossHook, evaluate, train_probe
from sightline.evaluation.untouched import same_random_streams
from sightline.runs import Evaluation, ExampleLosses
from sightline.training.collated_rows import CollatedRows
from sightline.training.ranks import Ranks

SAME_LOSS = 0.01
"""Relative difference up to which both passes count as having scored the same."""


@dataclass(frozen=True, eq=False, slots=True)
class _Sets:
    """What an own pass scores."""

    validation: EvalSet
    probe: EvalSet | None


class ExactLosses:
    """Gives each evaluation of a Trainer its exact loss.

    Parameters
    ----------
    own_pass : bool
        Score validation rows and a train probe in a pass of its own beside the Trainer's. Without it the sums are
        taken from the Trainer's pass, where that has them.

    Notes
    -----
    Every rank calls every method at the same event; ``evaluation`` meets the other ranks whatever went wrong on one.
    """

    def __init__(self, *, own_pass: bool = False) -> None:
        self.own_pass = own_pass
        self.problem: str | None = None
        """Why there is no own pass although it was asked for."""
        self._hook = LossHook()
        self._sets: dict[tuple[Any, ...], _Sets | None] = {}
        self._steps = 0
        self._loader: Any = None

    def attach(self, model: nn.Module) -> None:
        """Begin to see a model's forwards."""
        self._hook.attach(model)

    def batch_done(self, loader: Any) -> None:
        """Take the sums of the batch whose prediction step has ended."""
        first = loader is not self._loader  # whatever is left over is of a pass that broke off
        self._loader = loader
        self._steps = 1 if first else self._steps + 1
        self._hook.batch_done(first=first)

    def forget(self) -> None:
        """Leave out what has been seen: it was no evaluation."""
        self._steps, self._loader = 0, None
        self._hook.forget()

    def evaluation(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        name: str,
        model: nn.Module,
        loader: Any,
        train_loader: Any,
        ranks: Ranks,
    ) -> Evaluation | None:
        """Return the exact evaluation that belongs to the Trainer's, None where there is none.

        Parameters
        ----------
        step : int
            ``global_step``.
        metrics : mapping
            What the Trainer has measured.
        name : str
            Prefix of its metrics, which tells data sets apart.
        model : torch.nn.Module
            The one that is trained.
        loader, train_loader : DataLoader or None
            The Trainer's.
        ranks : Ranks
            To meet the others.
        """
        hooked = self._taken(name, loader)
        own = self._own(name, model, loader, train_loader, ranks) if self.own_pass else None
        losses = None if hooked is None else hooked.rows
        loss = None if hooked is None else hooked.loss
        probe, runtime_s = None, metrics.get(f"{name}_runtime")
        if own is not None and self._agree(own[0], hooked):
            losses, probe, runtime_s = own
            loss = losses.loss
        if loss is None:
            return None
        reported = metrics.get(f"{name}_loss")
        return Evaluation(
            step=step,
            eval_loss=loss,
            losses=losses,
            probe=probe,
            reported_loss=None if reported is None else float(reported),
            runtime_s=runtime_s,
        )

    def _taken(self, name: str, loader: Any) -> HookedLosses | None:
        """Return what the Trainer's own pass adds up to."""
        steps, self._steps, self._loader = self._steps, 0, None
        dataset: Any = getattr(loader, "dataset", None)
        return self._hook.take(len(dataset) if hasattr(dataset, "__len__") else None, passes=steps, name=name)

    def _own(
        self, name: str, model: nn.Module, loader: Any, train_loader: Any, ranks: Ranks
    ) -> tuple[ExampleLosses, ExampleLosses | None, float] | None:
        """Score the rows in batches of its own; all ranks or none."""
        dataset = getattr(loader, "dataset", None)
        key = (name, getattr(dataset, "_fingerprint", id(dataset)))
        if key not in self._sets:
            try:
                made: _Sets | None = _sets_of(loader, train_loader)
            except Exception as error:  # someone else's data set and collator: whatever they raise
                made, self.problem = None, f"{type(error).__name__}: {error}"
            self._sets[key] = None if ranks.any(made is None) else made
        sets = self._sets[key]
        if sets is None:
            return None
        began = time.perf_counter()
        try:
            losses = evaluate(model, sets.validation)
            probe = None if sets.probe is None else evaluate(model, sets.probe)
        except Exception as error:  # raised on all ranks alike; the next evaluation may do better
            self.problem = f"{type(error).__name__}: {error}"
            return None
        return losses, probe, time.perf_counter() - began

    def _agree(self, own: ExampleLosses, hooked: HookedLosses | None) -> bool:
        """Whether both passes have scored the same tokens alike; the model's own forward is right where not."""
        if hooked is None or hooked.tokens != own.tokens:
            return True
        same = math.isclose(own.loss, hooked.loss, rel_tol=SAME_LOSS) or not math.isfinite(own.loss + hooked.loss)
        if not same:
            self.problem = (
                f"the pass of its own gives {own.loss:.6g} where the Trainer's forwards add up to {hooked.loss:.6g}; "
                "the latter counts"
            )
        return same


def _sets_of(loader: Any, train_loader: Any) -> _Sets:
    """Collate the validation rows and as many training rows, drawing no random number anyone else would get."""
    with same_random_streams():
        items = list(CollatedRows(loader, "validation set"))
        validation = EvalSet([row for item in items for row in item.rows()])
        probe = None
        if train_loader is not None:
            drawn = train_probe(CollatedRows(train_loader, "train probe"), items)
            rows = [row for item in drawn for row in item.rows()]
            probe = EvalSet(rows, name="train probe") if rows else None
    return _Sets(validation, probe)
