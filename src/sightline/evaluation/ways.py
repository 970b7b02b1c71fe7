"""Ways from batches to the loss of each label, and the choice of the cheapest that agrees with the model's own forward.

``tiles``      the body once, the head in tiles at labelled positions; causal models whose head is understood
``gathered``   the model's own forward, its head given only the labelled positions; any causal model
``full``       the model's own forward and all its logits; encoder-decoders, masked models, and whatever else fails
``classifier`` one loss a row, the model's own
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sightline.evaluation import forwards
from sightline.evaluation.batches import EvalSet, ScoredRows, causal_rows, make_batches
from sightline.evaluation.forwards import DeviceBatch, HeadInputs
from sightline.evaluation.models import (
    Kind,
    base_model,
    body_weights,
    device_of,
    head_of,
    is_sharded,
    is_split,
    last_mlp,
    may_run_twice,
    pad_id,
)
from sightline.evaluation.overlap import beside
from sightline.evaluation.token_losses import Head, tile_of, token_losses

log = logging.getLogger(__name__)

LOGITS_ELEMENTS = {"cpu": 1 << 24}
"""Most logits that are made at once: 64 MiB of float32 on a CPU."""
DEVICE_LOGITS_ELEMENTS = 1 << 28
"""The same on an accelerator: 1 GiB."""
LAST_ONES = 4
"""Batches at the end whose labels are not put together, so that two threads end at about the same time."""
FEWEST_PIECES = 5
"""Into how many pieces the others come at least, where there are as many batches, for the same reason."""
TRIAL_TOKENS = (48, 31)
"""Tokens of the two rows both ways are tried on; unequal, so that padding counts."""
TRIAL_LOGIT = 100.0
"""How large the trial makes logits, past every soft cap in use, so that what is done to large logits shows."""


class Way(Protocol):
    """From batches to losses."""

    @property
    def name(self) -> str:
        """One of those above."""

    @property
    def model(self) -> nn.Module:
        """The model that is called."""

    def tokens_at_once(self, batch_tokens: int) -> int:
        """Return how many tokens of a budget one forward may have without making too many logits."""

    def losses(self, batches: Iterable[DeviceBatch]) -> Iterator[torch.Tensor]:
        """Yield losses in the order of the batches' targets, in pieces of any size."""


@dataclass(frozen=True, eq=False, slots=True)
class Tiles:
    """The body once per batch, and the head in tiles over the labelled positions of a few batches together."""

    model: nn.Module
    head: Head
    last_mlp: nn.Module | None = None
    """What need be given the labelled positions only, besides the head."""
    name: str = "tiles"

    def tokens_at_once(self, batch_tokens: int) -> int:
        """Return the whole budget."""
        return batch_tokens

    def losses(self, batches: Iterable[DeviceBatch]) -> Iterator[torch.Tensor]:
        """Score group by group, two at a time where the model's forward allows it, else body here and head beside it."""
        groups = list(_groups(list(batches)))
        twice = self._on_cpu() and may_run_twice(self.model)
        with (
            forwards.at_the_head(self.model, self.last_mlp) as inputs_of,
            beside(True, len(groups)) if twice else beside(self._head_is_half(groups)) as work,
        ):
            for group in groups:
                if twice:
                    work.put(partial(self._scored, inputs_of, group))
                else:
                    work.put(partial(self._projected, group, [inputs_of(batch) for batch in group]))
            losses = work.results()
        yield from losses

    def _scored(self, inputs_of: Callable[[DeviceBatch], HeadInputs], group: list[DeviceBatch]) -> torch.Tensor:
        """Return the losses of a group, body and head."""
        return self._projected(group, [inputs_of(batch) for batch in group])

    def _projected(self, group: list[DeviceBatch], inputs: list[HeadInputs]) -> torch.Tensor:
        """Return the losses of a group whose body has been run."""
        hidden = torch.cat([part.hidden for part in inputs])
        targets = torch.cat([batch.targets for batch in group]).to(hidden.device)  # layers may be spread over devices
        return token_losses(self.head, hidden, targets, inputs[0].dtype)

    def _on_cpu(self) -> bool:
        return all(parameter.device.type == "cpu" for parameter in self.model.parameters())

    def _head_is_half(self, groups: list[list[DeviceBatch]]) -> bool:
        """Whether the head, a plain matrix on a CPU, is at least half of the arithmetic."""
        matrix = self.head.matrix()
        if matrix is None or not self._on_cpu():
            return False
        batches = [batch for group in groups for batch in group]
        head = matrix[0].numel() * sum(len(batch.targets) for batch in batches)
        return head >= body_weights(self.model) * sum(batch.input_ids.numel() for batch in batches)


def _groups(batches: Sequence[DeviceBatch]) -> Iterator[list[DeviceBatch]]:
    """Yield consecutive batches whose labelled positions together fill most of a tile of the head, the last ones singly."""
    group: list[DeviceBatch] = []
    most = len(batches) // FEWEST_PIECES
    for left, batch in zip(range(len(batches), 0, -1), batches, strict=True):
        group.append(batch)
        if (
            left <= LAST_ONES
            or len(group) >= most
            or 4 * sum(len(one.targets) for one in group) >= 3 * tile_of(batch.targets.device)[0]
        ):
            yield group
            group = []
    if group:
        yield group


@dataclass(frozen=True, eq=False, slots=True)
class Gathered:
    """The model's own forward, its head given only the labelled positions."""

    model: nn.Module
    vocabulary: int
    name: str = "gathered"

    def tokens_at_once(self, batch_tokens: int) -> int:
        """Return the budget, or less where every token may be labelled."""
        return min(batch_tokens, most_positions(self.model, self.vocabulary))

    def losses(self, batches: Iterable[DeviceBatch]) -> Iterator[torch.Tensor]:
        """Score batch by batch."""
        for batch in batches:
            yield losses_from_logits(forwards.own_logits_at_positions(self.model, batch), batch.targets)


@dataclass(frozen=True, eq=False, slots=True)
class Full:
    """The model's own forward and all its logits."""

    model: nn.Module
    vocabulary: int
    with_labels: bool = False
    """Encoder-decoders make the decoder's inputs from the labels."""
    name: str = "full"

    def tokens_at_once(self, batch_tokens: int) -> int:
        """Return how many tokens' logits fit."""
        return min(batch_tokens, most_positions(self.model, self.vocabulary))

    def losses(self, batches: Iterable[DeviceBatch]) -> Iterator[torch.Tensor]:
        """Score batch by batch."""
        for batch in batches:
            inputs = {"labels": batch.labels} if self.with_labels else {}
            yield losses_from_logits(forwards.own_logits(self.model, batch, **inputs), batch.targets)


@dataclass(eq=False, slots=True)
class Classifier:
    """The model's own loss of each row: from batched logits where that gives the same, else row by row."""

    model: nn.Module
    can_pad: bool
    """Whether rows of unequal length may share a batch."""
    batched: bool | None = None
    """Whether batched logits give the model's own loss; not yet known."""
    name: str = "classifier"

    def tokens_at_once(self, batch_tokens: int) -> int:
        """Return the budget, or one row at a time for a model that knows no padding."""
        return batch_tokens if self.can_pad else 1

    def losses(self, batches: Iterable[DeviceBatch]) -> Iterator[torch.Tensor]:
        """Score batch by batch; a row of several labels has its loss shared out among them."""
        for batch in batches:
            one_class = not batch.labels.is_floating_point() and batch.labels.shape[1] == 1
            labels = batch.labels[:, 0] if one_class else batch.labels
            if self.batched is None:
                self.batched = self._agrees(batch, labels)
            of_rows = self._batched(batch, labels) if self.batched else self._one_by_one(batch, labels)
            yield (of_rows / batch.labels.shape[1]).repeat_interleave(batch.labels.shape[1])

    def _agrees(self, batch: DeviceBatch, labels: torch.Tensor) -> bool:
        own = forwards.call(self.model, **batch.masked_inputs(), labels=labels).loss.float()
        return bool(torch.isclose(self._batched(batch, labels).mean().float(), own, rtol=1e-3, equal_nan=True))

    def _batched(self, batch: DeviceBatch, labels: torch.Tensor) -> torch.Tensor:
        return losses_of_classes(forwards.call(self.model, **batch.masked_inputs()).logits.float(), labels)

    def _one_by_one(self, batch: DeviceBatch, labels: torch.Tensor) -> torch.Tensor:
        inputs = batch.masked_inputs()
        rows = ({name: value[i : i + 1] for name, value in inputs.items()} for i in range(len(labels)))
        return torch.stack(
            [forwards.call(self.model, **row, labels=labels[i : i + 1]).loss.float() for i, row in enumerate(rows)]
        )


def most_positions(model: nn.Module, vocabulary: int) -> int:
    """Return at how many positions all logits may be made at once."""
    return max(1, LOGITS_ELEMENTS.get(device_of(model).type, DEVICE_LOGITS_ELEMENTS) // max(vocabulary, 1))


def losses_from_logits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return float32 losses, a few positions at a time."""
    targets = targets.to(logits.device)
    pieces = zip(logits.split(256), targets.split(256), strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([functional.cross_entropy(_wide(z), t, reduction="none") for z, t in pieces])


def losses_of_classes(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row of a classifier: of its class (b,), or its classes or its numbers (b, c)."""
    if not labels.is_floating_point() and labels.dim() == 1 and logits.shape[-1] > 1:
        return functional.cross_entropy(logits, labels, reduction="none")
    labels = labels.float().view(len(logits), -1)
    if logits.shape[-1] == 1:
        return functional.mse_loss(logits, labels, reduction="none").mean(-1)
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


_chosen: weakref.WeakKeyDictionary[nn.Module, tuple[Any, str, bool]] = weakref.WeakKeyDictionary()
"""Of each model that was tried: its looks, the way that was found to agree, and whether its last MLP can be spared."""


def choose_way(model: nn.Module, kind: Kind, vocabulary: int, eval_set: EvalSet, scored: ScoredRows) -> tuple[Way, str]:
    """Return the cheapest way that agrees with the model's own forward, and why it is not a cheaper one.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, without gradients.
    kind : Kind
        What its labels mean; the choice is one for causal models only.
    vocabulary : int
        Ids the head predicts.
    eval_set, scored : EvalSet, ScoredRows
        Where the rows of the trial come from.
    """
    if kind is Kind.CLASSIFIER:
        return Classifier(model, can_pad=pad_id(model) is not None), ""
    if kind is not Kind.CAUSAL:
        return Full(model, vocabulary, with_labels=kind is Kind.ENCODER_DECODER), ""
    head = head_of(model)
    assert head is not None
    ways: dict[str, Way] = {"gathered": Gathered(model, vocabulary), "full": Full(model, vocabulary)}
    # where a model is sharded, the head's weights are whole only within its own forward; one that looks ahead needs a mask
    if not (is_sharded(model) or is_split(model) or scored.whole):
        ways = {"tiles": Tiles(model, head), **ways}
    mlp = last_mlp(model)
    looks = (tuple(ways), id(head.module), head.scale, head.softcap, id(mlp), "forward" in vars(base_model(model)))
    why, known = "", _chosen.get(base_model(model))
    if known is None or known[0] != looks:
        trial = _trial_batch(eval_set, scored, device_of(model))
        name, why, telling = _tried(ways, model, head, trial)
        known = (looks, name, name == "tiles" and mlp is not None and _is_last(mlp, model, trial))
        if telling:  # with NaN weights or a head of zeros everything agrees: try again next time
            _chosen[base_model(model)] = known
    _, name, is_last = known
    return (Tiles(model, head, mlp) if is_last else ways[name]), why


def _is_last(mlp: nn.Module, model: nn.Module, batch: DeviceBatch) -> bool:
    """Whether giving an MLP every second position leaves what the head is given there as it is."""
    half = replace(batch, positions=torch.arange(0, batch.input_ids.numel(), 2, device=batch.input_ids.device))
    try:
        expected, found = (forwards.head_inputs(model, half, given).hidden.double() for given in (None, mlp))
    except Exception:  # its output is more than a tensor, for one
        return False
    return bool(((found - expected).abs() <= 1e-3 * expected.abs().max()).all())


def _trial_batch(eval_set: EvalSet, scored: ScoredRows, device: torch.device) -> DeviceBatch:
    """Return two short rows of unequal length: the ends of two rows of the set."""
    rows = scored.to_score
    ends = []
    for row, size in zip((rows[0], rows[-1]), TRIAL_TOKENS, strict=True):
        end = int(scored.lengths[row]) + 1
        begin = max(0, end - 1 - size)
        ends.append((eval_set.ids[row][begin:end], eval_set.labels[row][begin:end]))
    trial = EvalSet(ends, name=eval_set.name)
    cut = causal_rows(trial, None)
    both = np.argsort(-cut.lengths, kind="stable")
    return DeviceBatch.of(next(make_batches(trial, cut, both, 1 << 30)), device)


def _tried(ways: dict[str, Way], model: nn.Module, head: Head, batch: DeviceBatch) -> tuple[str, str, bool]:
    """Return the first way that agrees with the full forward, why not one before it, and whether that tells anything."""
    own = forwards.own_logits(model, batch)
    expected, precision = losses_from_logits(own, batch.targets), own.dtype
    telling = bool(expected.isfinite().all()) and bool(own.any())
    del own  # 15 MB for 49,152 entries
    exact = precision.itemsize >= 4 and not _rounds(model, batch)
    why: list[str] = []
    for name, way in ways.items():
        if name == "full":
            break
        try:
            found = torch.cat(list(way.losses([batch])))
            problem = _difference(found, expected, exact)
            if not problem and telling and isinstance(way, Tiles):
                problem = _difference_at_large_logits(model, head, batch, exact)
        except (
            Exception
        ) as error:  # whatever an unusual model makes of an unusual call: the full forward is always there
            if forwards.is_out_of_memory(error):
                raise
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            return name, "; ".join(why), telling
        why.append(f"{name}: {problem}")
    return "full", "; ".join(why), telling


def _rounds(model: nn.Module, batch: DeviceBatch) -> bool:
    """Whether the model computes in half precision, its weights or autocast."""
    parameters = (p for p in model.parameters() if p.is_floating_point())
    if any(p.dtype.itemsize < 4 for p in parameters):
        return True
    try:
        return forwards.head_inputs(model, batch).dtype is not None
    except forwards.UnusualHead:
        return False


def _difference(found: torch.Tensor, expected: torch.Tensor, exact: bool) -> str:
    """Say how two sets of losses differ beyond rounding; empty where they do not."""
    found, expected = found.double(), expected.double()
    if not torch.equal(found.isfinite(), expected.isfinite()):
        return "other losses are not finite"
    apart = (found - expected).abs()[expected.isfinite()]
    largest, mean = (apart.max().item(), apart.mean().item()) if apart.numel() else (0.0, 0.0)
    size = expected[expected.isfinite()].abs().mean().item() if apart.numel() else 1.0
    bound, mean_bound = (1e-3, 1e-4) if exact else (1.0, 0.05)
    if largest > bound * max(1.0, size) or mean > mean_bound * max(1.0, size):
        return f"losses differ from the full forward's by {largest:.2g}"
    return ""


def _difference_at_large_logits(model: nn.Module, head: Head, batch: DeviceBatch, exact: bool) -> str:
    """Say how the head's logits differ from the model's own when hidden states are blown up."""
    given: list[torch.Tensor] = []
    largest = _largest(head.module(forwards.head_inputs(model, batch).hidden).float()) * abs(head.scale)
    factor = (TRIAL_LOGIT / largest).clamp(min=1.0)

    def blow_up(hidden: torch.Tensor) -> torch.Tensor:
        given.append(hidden * factor.to(hidden.dtype))
        return given[0]

    own = _wide(forwards.own_logits_at_positions(model, batch, blow_up))
    ours = head.adjusted(_wide(head.module(given[0])))
    if own.shape != ours.shape:
        return f"{ours.shape[-1]} logits where the model gives {own.shape[-1]}"
    apart = (_largest(ours.sub_(own)) / _largest(own).clamp(min=1.0)).item()
    return f"large logits differ by {apart:.2g}" if not apart <= (1e-5 if exact else 3e-2) else ""


def _largest(numbers: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude, without a copy of all of them."""
    largest: torch.Tensor = torch.linalg.vector_norm(numbers, math.inf)
    return largest


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
