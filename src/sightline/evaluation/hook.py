"""LossHook: the exact loss of every row, taken from a Trainer's own evaluation pass.

The Trainer averages batch means and, under several processes, counts the rows that fill up the last batch. The sums it
forms on the way are exact, and a forward hook sees them. TRL's SFTTrainer leaves the log-probability of every token in
the output; elsewhere the sum over a batch is ``output.loss * num_items_in_batch``, and the rows' shares come from the
logits that are there anyway.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from sightline.errors import ModelError
from sightline.evaluation.batches import IGNORED
from sightline.evaluation.models import Kind, base_model, kind_of
from sightline.evaluation.ways import losses_from_logits, losses_of_classes
from sightline.runs import ExampleLosses

LOGITS_AT_ONCE = {"cpu": 1 << 20}
"""Logits that are read at once: 4 MiB of float32 on a CPU, which stay in its cache."""
DEVICE_LOGITS_AT_ONCE = 1 << 26
"""The same on an accelerator: 256 MiB."""
SAME_LOSS = 0.02
"""Relative difference up to which the sum from the logits counts as that of the model's own loss."""


@dataclass(frozen=True, eq=False, slots=True)
class HookedLosses:
    """What a Trainer's pass over its evaluation rows adds up to."""

    loss_sum: float
    """Sum of all token losses in nats."""
    tokens: int
    """Labelled tokens."""
    rows: ExampleLosses | None
    """The share of each row, in the order of the data set; None where the pass does not tell rows apart."""

    @property
    def loss(self) -> float:
        """Token-weighted mean loss in nats per token."""
        return self.loss_sum / self.tokens if self.tokens else float("nan")


@dataclass(frozen=True, eq=False, slots=True)
class _Forward:
    """A forward with labels in eval mode."""

    kwargs: Mapping[str, Any]
    output: Any
    loss: torch.Tensor | None
    """The model's own, as it left the forward."""


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """One batch on this rank."""

    size: int
    """Rows of the batch, those that fill it up included."""
    rows: int
    """Rows of the data set's own."""
    sums: NDArray[np.float64] | None
    """Of each row, None where only the whole is known."""
    counts: NDArray[np.int64]
    whole: float


class LossHook:
    """Takes exact sums from a Trainer's evaluation passes.

    Parameters
    ----------
    with_rows : bool
        Work out the share of each row where the pass does not have it: from the logits, at labelled positions only.
        Without it only the exact total is known there, at no cost at all.

    Notes
    -----
    A callback delegates: ``attach`` at ``on_init_end`` or later, ``batch_done`` at every ``on_prediction_step``,
    ``take`` at ``on_evaluate``, each on every rank. In training mode the hook returns at once; it draws no random
    number.
    """

    def __init__(self, *, with_rows: bool = True) -> None:
        self.with_rows = with_rows
        self._handle: Any = None
        self._model: weakref.ref[nn.Module] | None = None
        self._last: _Forward | None = None
        self._batches: list[_Seen] = []
        self._unknown = 0
        self._orders: dict[str, NDArray[np.int64]] = {}

    def attach(self, model: nn.Module) -> None:
        """Begin to see a model's forwards; a second call with the same model changes nothing."""
        base = base_model(model)
        if self._model is not None and self._model() is base:
            return
        self.detach()
        try:
            self._kind = kind_of(base)
        except ModelError:
            return
        self._model = weakref.ref(base)
        self._handle = base.register_forward_hook(self._see, with_kwargs=True)

    def detach(self) -> None:
        """See nothing more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._model = None
        self.forget()

    def batch_done(self, *, first: bool = False) -> None:
        """Take the sums of the batch whose prediction step has ended; with the first, forget those before."""
        if self._handle is None:
            return
        last = self._last
        if first:
            self.forget()
        self._last = None
        self._unknown += 1  # until it is known
        seen = None if last is None else self._sums(last)
        if seen is not None:
            self._batches.append(_without_fillers(seen))
            self._unknown -= 1

    def forget(self) -> None:
        """Leave out what has been seen so far: it belongs to no evaluation."""
        self._last, self._batches, self._unknown = None, [], 0

    def take(
        self, dataset_rows: int | None = None, *, passes: int | None = None, name: str = "eval"
    ) -> HookedLosses | None:
        """Return the sums of the pass that has ended, over all ranks, and begin anew.

        Parameters
        ----------
        dataset_rows : int, optional
            Rows of the evaluated data set. Where the pass saw another number, packed batches for one, its rows are
            not told apart.
        passes : int, optional
            Prediction steps of this rank. Where the hook saw another number it was attached in between, or an
            earlier pass broke off: there is no exact sum.
        name : str
            Of the data set, where there are several.

        Returns
        -------
        HookedLosses or None
            None when the pass does not give exact sums: labels the model never saw (label smoothing), a loss with
            more in it than the tokens' and no logits beside it, a loss that is not what the logits say.
        """
        batches = self._batches
        unknown = self._unknown or (passes is not None and passes != len(batches))
        self.forget()
        kept = sum(batch.rows for batch in batches)
        known = batches and all(batch.sums is not None for batch in batches)
        whole = np.array([sum(b.whole for b in batches), sum(int(b.counts.sum()) for b in batches)])
        world_size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        rank = dist.get_rank() if world_size > 1 else 0
        total, tokens, unknown_ranks, knowing_ranks, all_rows = _added(
            np.array([*whole, float(unknown or not batches), float(bool(known)), float(kept)]), world_size
        )
        expected = all_rows if dataset_rows is None else dataset_rows
        if unknown_ranks or all_rows > expected or (world_size > 1 and all_rows != expected):
            return None
        rows = None
        if knowing_ranks == world_size and all_rows == expected:
            rows = self._in_order(name, batches, int(all_rows), rank, world_size)
        return HookedLosses(float(total), int(tokens), rows)

    def _in_order(self, name: str, batches: list[_Seen], n: int, rank: int, world_size: int) -> ExampleLosses | None:
        """Put the rows of all ranks in the data set's order; None when it is not the order of the first pass."""
        size = batches[0].size
        sums, counts = np.zeros(n), np.zeros(n)
        for step, batch in enumerate(batches):
            begin = (step * world_size + rank) * size
            assert batch.sums is not None
            sums[begin : begin + batch.rows] = batch.sums
            counts[begin : begin + batch.rows] = batch.counts
        both = _added(np.concatenate([sums, counts]), world_size)
        found = ExampleLosses(both[:n], both[n:].astype(np.int64))
        order = self._orders.setdefault(name, found.token_counts)
        return found if np.array_equal(order, found.token_counts) else None

    def _see(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Remember the last forward with labels in eval mode."""
        if not module.training:
            self._remember(kwargs, output)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _remember(self, kwargs: dict[str, Any], output: Any) -> None:
        if kwargs.get("labels") is not None or kwargs.get("shift_labels") is not None:
            loss = getattr(output, "loss", None)  # the Trainer multiplies it in place by the number of ranks
            self._last = _Forward(kwargs, output, loss.detach().clone() if isinstance(loss, torch.Tensor) else None)

    @torch.no_grad()
    def _sums(self, last: _Forward) -> _Seen | None:
        """Return the exact sums of one batch, None where the output does not have them."""
        kwargs, output = last.kwargs, last.output
        if self._kind is Kind.CLASSIFIER:
            return _of_classes(last)
        labels = kwargs.get("shift_labels")
        if labels is None:
            labels = kwargs["labels"][:, 1:] if self._kind is Kind.CAUSAL else kwargs["labels"]
        mask = labels != IGNORED
        counts = mask.sum(-1).cpu().numpy().astype(np.int64)
        log_probs = getattr(output, "log_probs", None)
        if log_probs is not None:
            sums = -log_probs.cpu().double().masked_fill(~mask.cpu(), 0.0).sum(-1).numpy()
            return _Seen(len(sums), len(sums), sums, counts, float(sums.sum()))
        logits = getattr(output, "logits", None)
        plain = last.loss is not None and getattr(output, "aux_loss", None) is None
        items = kwargs.get("num_items_in_batch")
        divisor = float(counts.sum() if items is None else items)
        told = float(last.loss) * divisor if last.loss is not None and counts.sum() else 0.0
        fillers = _kept_of_last(len(labels)) < len(labels)
        if logits is not None and (self.with_rows or fillers or not plain):
            sums = _sums_from_logits(logits, labels, mask)
            total = float(sums.sum())
            if plain and np.isfinite(total + told) and abs(total - told) > SAME_LOSS * max(1.0, abs(told)):
                return None  # the model means something else by its labels or its loss
            return _Seen(len(sums), len(sums), sums, counts, total)
        return _Seen(len(counts), len(counts), None, counts, told) if plain and not fillers else None


def _of_classes(last: _Forward) -> _Seen | None:
    """Return the loss of each row of a classifier, None where the model's own loss is not their mean."""
    losses = losses_of_classes(last.output.logits.float(), last.kwargs["labels"])
    if last.loss is None or not torch.isclose(losses.mean(), last.loss.float(), rtol=SAME_LOSS, equal_nan=True):
        return None
    sums, counts = losses.cpu().double().numpy(), np.ones(len(losses), np.int64)
    return _Seen(len(sums), len(sums), sums, counts, float(sums.sum()))


def _kept_of_last(rows: int) -> int:
    """Return how many of a batch's rows are the data set's own: in the last batch others may fill it up."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    from accelerate.state import GradientState

    state = GradientState()
    if not state.end_of_dataloader or state.remainder <= 0:
        return rows
    return int(np.clip(state.remainder - dist.get_rank() * rows, 0, rows))


def _without_fillers(seen: _Seen) -> _Seen:
    kept = _kept_of_last(seen.rows)
    if kept == seen.rows or seen.sums is None:
        return seen
    return _Seen(seen.size, kept, seen.sums[:kept], seen.counts[:kept], float(seen.sums[:kept].sum()))


def _sums_from_logits(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float64]:
    """Return the loss sum of each row (b,) from logits (b, t or t + 1, v), reading labelled positions only."""
    rows, places = mask.nonzero(as_tuple=True)
    at_once = max(1, LOGITS_AT_ONCE.get(logits.device.type, DEVICE_LOGITS_AT_ONCE) // logits.shape[-1])
    losses = [
        losses_from_logits(logits[r, at], labels[r, at])
        for r, at in zip(rows.split(at_once), places.split(at_once), strict=True)  # type: ignore[no-untyped-call]
    ]
    values = torch.cat(losses).cpu().double().numpy() if losses else np.zeros(0)
    return np.bincount(rows.cpu().numpy(), weights=values, minlength=len(labels)).astype(np.float64)


def _added(values: NDArray[np.float64], world_size: int) -> NDArray[np.float64]:
    """Return the sum over the ranks."""
    if world_size == 1:
        return values
    on_device = "nccl" in str(dist.get_backend()) and torch.cuda.is_available()
    total = torch.from_numpy(values).to("cuda" if on_device else "cpu")
    dist.all_reduce(total)
    summed: NDArray[np.float64] = total.cpu().numpy()
    return summed
