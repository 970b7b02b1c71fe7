"""Greedy decoding with slots: as soon as answers end, their places in the batch go to the next prompts.

``model.generate`` decodes a batch until its longest answer ends, finished rows included. Here every row of a batch is a
slot of the attention cache. All slots share their right edge: a row of length t fills the last t columns before it,
whenever it began, so rows of any length and age decode together, and a freed slot is filled from the right.
The tokens are those of greedy ``model.generate``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

REFILL_SHARE = 8
"""Slots are refilled once one in so many is free: prompts are read faster together."""
_SPARE_COLUMNS = 64
_LONG_PROCESSORS = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "bad_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "min_length",
    "min_new_tokens",
    "exponential_decay_length_penalty",
    "guidance_scale",
    "prefix_allowed_tokens_fn",
)
"""Settings of a generation config that change greedy decoding; slots do not know them."""

OnAnswer = Callable[[int, list[int], bool], None]
"""Told of each answer as it ends: the prompt's index, its tokens without the end token, whether it ended by itself."""
IsStopped = Callable[[list[int]], bool]
"""Whether an answer is to end here, for reasons other than an end token."""


def why_not_slots(model: nn.Module) -> str | None:
    """Say why a model cannot be decoded with slots, None if it can."""
    config: Any = model.config
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    wanted = {"input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache"}
    inner = unwrapped(model)
    if lacking := wanted - set(inspect.signature(inner.forward).parameters):
        return f"its forward takes no {', '.join(sorted(lacking))}"
    layers = DynamicCache(config=config.get_text_config(decoder=True)).layers
    if strange := {type(layer).__name__ for layer in layers} - {
        DynamicLayer.__name__,
        DynamicSlidingWindowLayer.__name__,
    }:
        return f"its cache has layers of type {', '.join(sorted(strange))}"
    neutral: dict[str, Any] = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0}
    settings: Any = getattr(model, "generation_config", None)
    for name in _LONG_PROCESSORS:
        value = getattr(settings, name, None)
        if value is not None and value != neutral.get(name):
            return f"its generation config asks for {name}={value!r}"
    return None


def unwrapped(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT model, any other as it is."""
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


@torch.no_grad()
def decode(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    end_ids: frozenset[int],
    on_answer: OnAnswer,
    *,
    width: int,
    prefill_tokens: int,
    is_stopped: IsStopped | None = None,
) -> None:
    """Answer prompts greedily.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model in eval mode for which ``why_not_slots`` is None.
    prompts : sequence of token ids
        Longest first, so that a freed slot always has room for the next one.
    limits : sequence of int
        Most tokens of each answer, at least 1.
    end_ids : frozenset of int
        Tokens that end an answer.
    on_answer : callable
        Told of each answer.
    width : int
        Slots: rows decoded together.
    prefill_tokens : int
        Most tokens, padding included, of one pass over prompts; a longer prompt has a pass of its own.
    is_stopped : callable, optional
        Looks at the tokens of an answer after each.
    """
    if any(len(a) < len(b) for a, b in pairwise(prompts)):
        raise ValueError("prompts must come longest first")
    slots = _Slots(model, min(width, len(prompts)), max(map(len, prompts), default=0))
    waiting = 0
    while waiting < len(prompts) or slots.occupied:
        free = slots.width - slots.occupied
        if waiting < len(prompts) and (free * REFILL_SHARE >= slots.width or not slots.occupied):
            group = _prefill_group(prompts, waiting, free, prefill_tokens)
            advanced = slots.read(group, [prompts[i] for i in group])
            waiting = group.stop
        else:
            if waiting == len(prompts):
                slots.shrink()
            advanced = slots.step()
        for slot in advanced:
            index, answer, token = slots.rows[slot], slots.answers[slot], slots.next_tokens[slot]
            ended = token in end_ids
            if not ended:
                answer.append(token)
                ended = is_stopped is not None and is_stopped(answer)
            if index is not None and (ended or len(answer) >= limits[index]):
                on_answer(index, answer, ended)
                slots.free(slot)


class _Layer(DynamicLayer):  # type: ignore[misc, unused-ignore]
    """Keys and values of one layer: a buffer with a row for each slot; new columns are written, not concatenated."""

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns = columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, end = self.columns.start, self.columns.end
        self.keys[:, :, end : end + 1] = key_states
        self.values[:, :, end : end + 1] = value_states
        return self.keys[:, :, start : end + 1], self.values[:, :, start : end + 1]

    def get_seq_length(self) -> int:
        return self.columns.end - self.columns.start

    def place(self, slots: torch.Tensor, width: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copy what a pass over prompts left into the columns before the right edge."""
        _, heads, length, size = keys.shape
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self.keys = keys.new_zeros(width, heads, self.columns.capacity, size)
            self.values = values.new_zeros(width, values.shape[1], self.columns.capacity, values.shape[3])
        end = self.columns.end
        self.keys[slots, :, end - length : end] = keys
        self.values[slots, :, end - length : end] = values

    def move(self, start: int, end: int, capacity: int) -> None:
        """Move the columns in use to the left, into a larger buffer if need be."""
        for name in ("keys", "values"):
            old: torch.Tensor = getattr(self, name)
            new = old.new_zeros(*old.shape[:2], capacity, old.shape[3])
            new[:, :, : end - start] = old[:, :, start:end]
            setattr(self, name, new)

    def select(self, slots: torch.Tensor) -> None:
        """Keep some slots only."""
        self.keys, self.values = self.keys[slots], self.values[slots]


class _Columns:
    """Which columns of all buffers are in use: ``start`` up to ``end``, the right edge of every row."""

    def __init__(self, end: int) -> None:
        self.start, self.end = 0, end
        self.capacity = end + _SPARE_COLUMNS


class _Slots:
    """The batch: which prompt each slot answers, and the cache behind it."""

    def __init__(self, model: nn.Module, width: int, longest: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.width = width
        self.rows: list[int | None] = [None] * width
        """The prompt in each slot, None where it is free."""
        self.answers: list[list[int]] = [[] for _ in range(width)]
        self.next_tokens = [0] * width
        """The token each row has just got."""
        self.lengths = [0] * width
        """Columns each row has filled."""
        config: Any = model.config
        self.n_layers = len(DynamicCache(config=config.get_text_config(decoder=True)).layers)
        self.columns = _Columns(longest)
        self.layers = [_Layer(self.columns) for _ in range(self.n_layers)]
        self.cache = Cache(layers=self.layers)
        keeps = "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
        self.options: dict[str, Any] = {"use_cache": True} | ({"logits_to_keep": 1} if keeps else {})

    @property
    def occupied(self) -> int:
        """Slots that answer a prompt."""
        return sum(row is not None for row in self.rows)

    def read(self, group: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
        """Read prompts into free slots and take the first token of each answer; return those slots."""
        free = [slot for slot, row in enumerate(self.rows) if row is None][: len(group)]
        longest = max(map(len, prompts))
        if not self.occupied:  # a row in use is as long as its prompt at least, so as long as those that wait
            self.columns.start, self.columns.end = 0, longest
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        cache = Cache(layers=[DynamicLayer() for _ in range(self.n_layers)])
        tokens = self._forward(ids, mask, positions, cache)
        places = torch.tensor(free, device=self.device)
        for layer, read in zip(self.layers, cache.layers, strict=True):
            if read.is_initialized:  # a layer that shares another's keys has none
                layer.place(places, self.width, read.keys, read.values)
        for slot, index, prompt, token in zip(free, group, prompts, tokens, strict=True):
            self.rows[slot], self.lengths[slot], self.answers[slot] = index, len(prompt), []
            self.next_tokens[slot] = token
        return free

    def step(self) -> list[int]:
        """Give every row its next token; return the slots in use."""
        columns = self.columns
        columns.start = columns.end - max(self.lengths)
        if columns.end == columns.capacity:
            self._make_room()
        lengths = torch.tensor(self.lengths)
        mask = (torch.arange(columns.end - columns.start, -1, -1) <= lengths[:, None]).long()
        ids = torch.tensor(self.next_tokens)[:, None]
        self.next_tokens = self._forward(ids, mask, lengths[:, None], self.cache)
        columns.end += 1
        in_use = [slot for slot, row in enumerate(self.rows) if row is not None]
        for slot in in_use:
            self.lengths[slot] += 1
        return in_use

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self.rows[slot], self.lengths[slot], self.answers[slot] = None, 0, []

    def shrink(self) -> None:
        """Drop free slots once a quarter of them is free; there is nothing left to fill them with."""
        kept = [slot for slot, row in enumerate(self.rows) if row is not None]
        if not kept or 4 * len(kept) > 3 * self.width:
            return
        places = torch.tensor(kept, device=self.device)
        for layer in self.layers:
            if layer.is_initialized:
                layer.select(places)
        self.width = len(kept)
        for name in ("rows", "answers", "next_tokens", "lengths"):
            setattr(self, name, [getattr(self, name)[slot] for slot in kept])

    def _make_room(self) -> None:
        """Move the columns in use to the left edge; enlarge the buffers where that frees few."""
        start, end = self.columns.start, self.columns.end
        used = end - start
        self.columns.capacity = max(self.columns.capacity, used + max(_SPARE_COLUMNS, used // 2))
        for layer in self.layers:
            if layer.is_initialized:
                layer.move(start, end, self.columns.capacity)
        self.columns.start, self.columns.end = 0, used

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> list[int]:
        """Return the likeliest next token of each row."""
        output = self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            position_ids=positions.to(self.device),
            past_key_values=cache,
            **self.options,
        )
        tokens: list[int] = output.logits[:, -1].float().argmax(dim=-1).tolist()
        return tokens


def _prefill_group(prompts: Sequence[Sequence[int]], first: int, free: int, prefill_tokens: int) -> range:
    """Return the next prompts to read together: as many as fit, at least one."""
    most = max(1, prefill_tokens // max(1, len(prompts[first])))
    return range(first, min(first + free, first + most, len(prompts)))
