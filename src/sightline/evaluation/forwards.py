"""One forward pass of a batch: hidden states at the labelled positions, or the model's own logits there."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sightline.errors import ModelError
from sightline.evaluation.batches import Batch
from sightline.evaluation.models import base_model, inner_model, output_embeddings

FEW_LABELS = 0.9
"""Share of positions below which taking the labelled ones out and putting them back costs less than it saves."""


@dataclass(frozen=True, eq=False, slots=True)
class DeviceBatch:
    """A batch as tensors on the model's device."""

    input_ids: torch.Tensor
    """Shape (b, t), padded on the right."""
    lengths: torch.Tensor
    """Tokens of each row, shape (b,)."""
    labels: torch.Tensor
    """Shape (b, u), -100 where nothing is scored."""
    positions: torch.Tensor
    """Where labels are predicted: indices into the flattened (b * t), or (b * u); shape (n,)."""
    targets: torch.Tensor
    """The labels there, shape (n,)."""

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> DeviceBatch:
        """Copy a batch to a device."""
        arrays = (batch.input_ids, batch.lengths, batch.labels, batch.positions, batch.targets)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    @property
    def width(self) -> int:
        """Tokens of a row, padding included."""
        return self.input_ids.shape[1]

    @property
    def attention_mask(self) -> torch.Tensor:
        """1 on tokens, 0 on padding; shape (b, t)."""
        return (torch.arange(self.width, device=self.input_ids.device) < self.lengths[:, None]).long()

    def masked_inputs(self) -> dict[str, torch.Tensor]:
        """Return what any model takes."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


class HeadInputs(NamedTuple):
    """What a head is given at the labelled positions."""

    hidden: torch.Tensor
    """Shape (n, h)."""
    dtype: torch.dtype | None
    """What autocast would round it and the head's weights to, None outside autocast."""


class UnusualHead(Exception):
    """The head is not called once, with the hidden states of every position."""


@contextmanager
def at_the_head(model: nn.Module, last_mlp: nn.Module | None = None) -> Iterator[Callable[[DeviceBatch], HeadInputs]]:
    """Yield the function that returns the hidden states the head would project at a batch's labelled positions.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    last_mlp : torch.nn.Module, optional
        A module that nothing comes after in which one position counts for another: it is given the labelled positions
        only, and returns zeros elsewhere.

    Notes
    -----
    The model's own forward runs up to its head, so that adapters, autocast wrappers and whatever is done to the last
    hidden states count; the head itself is given nothing to project. No attention mask is passed: under causal
    attention no token sees the padding at its right, and attention without a mask is quicker. Each thread that calls
    the function sees its own batch only.
    """
    here = threading.local()

    def positions_of(hidden: torch.Tensor) -> torch.Tensor | None:
        """Return the positions a module need be given, None for all."""
        batch: DeviceBatch | None = getattr(here, "batch", None)
        if batch is None or hidden.shape[:2] != batch.input_ids.shape:
            return None
        few = len(batch.positions) < FEW_LABELS * batch.input_ids.numel()
        return batch.positions.to(hidden.device) if few else None

    def labelled_only(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, rest, kwargs = _first(args, kwargs)
        here.whole, positions = None, positions_of(hidden)
        if positions is None:
            return None
        here.whole = (hidden.shape, positions)
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions).unsqueeze(0), *rest), kwargs

    def put_back(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        if getattr(here, "whole", None) is None:
            return None
        (shape, positions), here.whole = here.whole, None
        return output.new_zeros(shape[0] * shape[1], shape[2]).index_copy_(0, positions, output[0]).view(shape)

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        batch: DeviceBatch | None = getattr(here, "batch", None)
        if batch is None:
            return None
        hidden, rest, kwargs = _first(args, kwargs)
        kind = hidden.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        here.seen.append(HeadInputs(_at_positions(hidden, batch), autocast))
        return (hidden[:, :0], *rest), kwargs

    def inputs_of(batch: DeviceBatch) -> HeadInputs:
        here.batch, here.seen = batch, []
        try:
            call(model, input_ids=batch.input_ids)
            seen: list[HeadInputs] = here.seen
        finally:
            here.batch = here.seen = None
        if len(seen) != 1:
            raise UnusualHead(f"called {len(seen)} times")
        return seen[0]

    with ExitStack() as stack:
        stack.enter_context(_hooked(model, keep))
        if last_mlp is not None:
            stack.enter_context(_removed(last_mlp.register_forward_pre_hook(labelled_only, with_kwargs=True)))
            stack.enter_context(_removed(last_mlp.register_forward_hook(put_back)))
        yield inputs_of


def head_inputs(model: nn.Module, batch: DeviceBatch, last_mlp: nn.Module | None = None) -> HeadInputs:
    """Return the hidden states that the head would project at the labelled positions of one batch."""
    with at_the_head(model, last_mlp) as inputs_of:
        return inputs_of(batch)


def own_logits_at_positions(
    model: nn.Module, batch: DeviceBatch, change: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.Tensor:
    """Return the model's own logits at the labelled positions, shape (n, v): its head is given only those.

    ``change`` may replace the hidden states (n, h) on their way into the head.
    """

    def gather(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden, rest, kwargs = _first(args, kwargs)
        chosen = _at_positions(hidden, batch)
        return ((chosen if change is None else change(chosen)).unsqueeze(0), *rest), kwargs

    with _hooked(model, gather):
        logits = call(model, **batch.masked_inputs()).logits
    if logits.dim() != 3 or logits.shape[:2] != (1, len(batch.positions)):
        raise UnusualHead(f"logits of shape {tuple(logits.shape)} for {len(batch.positions)} positions")
    gathered: torch.Tensor = logits[0]
    return gathered


def own_logits(model: nn.Module, batch: DeviceBatch, **inputs: Any) -> torch.Tensor:
    """Return the logits of a full forward with its attention mask, cut to the labelled positions; shape (n, v).

    Raises
    ------
    ModelError
        If the model returns none.
    """
    logits = getattr(call(model, **batch.masked_inputs(), **inputs), "logits", None)
    if logits is None:
        raise ModelError(
            f"{type(base_model(model)).__name__} returns no logits when it is called without labels in eval mode; an "
            "exact evaluation needs them (fused losses have a switch for it, such as Liger's skip_logits=False)"
        )
    logits = logits[:, -batch.labels.shape[1] :]  # virtual prompt tokens of an adapter come first
    chosen: torch.Tensor = logits.reshape(-1, logits.shape[-1]).index_select(0, batch.positions.to(logits.device))
    return chosen


def call(model: nn.Module, **inputs: Any) -> Any:
    """Call a model without making a cache."""
    model = inner_model(model)
    if _takes(model, "use_cache"):
        inputs["use_cache"] = False
    return model(**inputs)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory, on any device; PyTorch's CPU allocator has no class of its own."""
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


@contextmanager
def _hooked(model: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """Have a hook change the inputs of the head meanwhile."""
    head = output_embeddings(model)
    assert head is not None
    with _removed(head.register_forward_pre_hook(hook, with_kwargs=True)):
        yield


@contextmanager
def _removed(handle: RemovableHandle) -> Iterator[None]:
    """Remove a hook afterwards."""
    try:
        yield
    finally:
        handle.remove()


def _at_positions(hidden: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
    """Return the hidden states at the labelled positions, shape (n, h)."""
    if hidden.dim() != 3 or hidden.shape[0] != len(batch.lengths) or hidden.shape[1] < batch.width:
        raise UnusualHead(f"given hidden states of shape {tuple(hidden.shape)}")
    hidden = hidden[:, -batch.width :]  # virtual prompt tokens of an adapter come first
    return hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.positions.to(hidden.device))


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]:
    """Return the hidden states a head is called with, and its other arguments."""
    if args:
        return args[0], args[1:], kwargs
    name = next(iter(kwargs))
    return kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}


def _takes(model: nn.Module, name: str) -> bool:
    """Whether a model's forward accepts an argument."""
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
