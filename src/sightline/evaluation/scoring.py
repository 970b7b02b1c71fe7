"""evaluate(): the exact loss of every row of a set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sightline.errors import DataError, ModelError
from sightline.evaluation.batches import IGNORED, Batch, EvalSet, ScoredRows, aligned_rows, causal_rows, make_batches
from sightline.evaluation.distributed import Share, share_of
from sightline.evaluation.forwards import DeviceBatch, is_out_of_memory
from sightline.evaluation.layers import quick_layers
from sightline.evaluation.lookahead import looks_ahead
from sightline.evaluation.models import (
    Kind,
    base_model,
    context_length,
    device_of,
    head_size,
    kind_of,
    pad_id,
    vocabulary_size,
)
from sightline.evaluation.products import quick_products
from sightline.evaluation.untouched import untouched
from sightline.evaluation.ways import Way, choose_way
from sightline.runs import ExampleLosses

log = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 1536
"""Tokens of a forward pass on a CPU: more do not make its matrix products quicker, only its caches colder."""
DEVICE_BATCH_TOKENS = 16384
"""Tokens of a forward pass on an accelerator, until memory says otherwise."""
KEPT_BATCH_BYTES = 256 << 20
"""Most bytes of prepared batches that stay on the device between evaluations."""


def evaluate(
    model: nn.Module,
    rows: EvalSet | Sequence[Any],
    *,
    batch_tokens: int | None = None,
    only: NDArray[np.integer[Any]] | None = None,
) -> ExampleLosses:
    """Score every row of a set.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model, adapters and parallel wrappers included. It is left as it was found: mode, gradients and
        random streams are the same afterwards.
    rows : EvalSet or sequence of rows
        What to score. An EvalSet is prepared once and can be scored again and again.
    batch_tokens : int, optional
        Most tokens of one forward pass, padding included; chosen by the device unless told, and halved when memory
        runs out. It does not change the result.
    only : array of int, optional
        Score these rows only (``RowSample``); the others count 0 tokens.

    Returns
    -------
    ExampleLosses
        Loss sum and token count of every row, in the order of the rows. Rows without a label count 0 tokens. Under
        several processes every rank scores its share, and every rank gets the whole.

    Raises
    ------
    DataError
        If there is nothing to score, or a token id is outside the model's vocabulary.
    ModelError
        If the model has no head, one row alone does not fit into memory, or another rank failed.
    """
    eval_set = rows if isinstance(rows, EvalSet) else EvalSet(rows)
    kind = kind_of(model)
    scored = _bound(eval_set, model, kind)
    share = share_of(model)
    share.agree(eval_set)
    wanted = scored.to_score if only is None else _only(scored, only)
    with share.failing_together(), untouched(model), quick_products(model), quick_layers(model):
        sums = _score_within_memory(model, kind, eval_set, scored, wanted, share, batch_tokens)
    sums = share.sum(sums, device_of(model))
    counts = (
        scored.token_counts
        if only is None
        else np.where(np.isin(np.arange(len(eval_set)), only), scored.token_counts, 0)
    )
    return ExampleLosses(np.where(counts > 0, sums[scored.same_as], 0.0), counts)


def _only(scored: ScoredRows, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the rows that must be scored for the wanted ones, the longest first."""
    needed = np.unique(scored.same_as[rows])
    return scored.to_score[np.isin(scored.to_score, needed)]


def _bound(eval_set: EvalSet, model: nn.Module, kind: Kind) -> ScoredRows:
    """Return the rows as this model scores them, looked at once per kind of model."""
    context, vocabulary = context_length(model), vocabulary_size(model)
    fit = (kind, context, vocabulary, head_size(model))
    if ("checked", *fit) not in eval_set.prepared:
        _check_rows(eval_set, kind, vocabulary, head_size(model))
        eval_set.prepared["checked", *fit] = True
    whole = kind is Kind.CAUSAL and looks_ahead(model, eval_set)
    key = ("scored", *fit, whole)
    if key not in eval_set.prepared:
        eval_set.prepared[key] = (
            causal_rows(eval_set, context, whole) if kind is Kind.CAUSAL else aligned_rows(eval_set, context)
        )
    scored: ScoredRows = eval_set.prepared[key]
    if scored.cut_rows:
        one = scored.cut_rows == 1
        _tell(
            eval_set,
            f"{eval_set.name}: {scored.cut_rows} of {len(eval_set)} rows {'is' if one else 'are'} longer than the model's "
            f"{context} tokens and {'was' if one else 'were'} cut; labelled tokens not scored: {scored.cut_labels}",
        )
    if empty := int((scored.token_counts == 0).sum()):
        have = "has no labelled token and does" if empty == 1 else "have no labelled token and do"
        _tell(eval_set, f"{eval_set.name}: {empty} of {len(eval_set)} rows {have} not count")
    return scored


def _check_rows(eval_set: EvalSet, kind: Kind, vocabulary: int | None, predicted: int | None) -> None:
    """Refuse rows that do not fit the model, naming the first."""
    for index, (ids, labels) in enumerate(zip(eval_set.ids, eval_set.labels, strict=True)):
        place = eval_set.places[index] if eval_set.places else f"{eval_set.name}, row {index}"
        if kind in (Kind.CAUSAL, Kind.MASKED) and len(ids) != len(labels):
            raise DataError(f"{place}: {len(ids)} input_ids but {len(labels)} labels; they must be of one length")
        _check_ids(ids, vocabulary, f"{place}: token id")
        if kind is not Kind.CLASSIFIER:
            if not np.issubdtype(labels.dtype, np.integer):
                raise DataError(f"{place}: labels must be whole numbers, found {labels.dtype}")
            _check_ids(labels[labels != IGNORED], predicted or vocabulary, f"{place}: label")


def _check_ids(ids: NDArray[Any], size: int | None, what: str) -> None:
    bad = ids[(ids < 0) | (ids >= (size or np.inf))]
    if bad.size:
        raise DataError(
            f"{what} {bad[0]} is outside the model's vocabulary of {size} ids; were the rows made with its tokenizer?"
        )


def _score_within_memory(
    model: nn.Module,
    kind: Kind,
    eval_set: EvalSet,
    scored: ScoredRows,
    rows: NDArray[np.int64],
    share: Share,
    batch_tokens: int | None,
) -> NDArray[np.float64]:
    """Return the loss sums of this rank's share of ``rows``, 0 elsewhere; the budget is halved until a pass fits."""
    device = device_of(model)
    vocabulary = head_size(model) or vocabulary_size(model) or 1
    try:
        way, why = choose_way(model, kind, vocabulary, eval_set, scored)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"out of memory on {device} with two short rows; free some or use a smaller model") from error
    if why:
        _tell(eval_set, f"{type(base_model(model)).__name__} is scored the slower way {way.name!r} ({why})")
    remembered = ("budget", device, id(type(base_model(model))), scored.lengths.max())
    asked = batch_tokens or (CPU_BATCH_TOKENS if device.type == "cpu" else DEVICE_BATCH_TOKENS)
    budget = min(asked, eval_set.prepared.get(remembered, asked))
    while True:
        try:
            return _score(way, eval_set, scored, rows, share, budget, device)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            longest = int(scored.lengths[share.rows(rows)].max())
            if not is_out_of_memory(error) or share.in_lockstep:
                raise
            if budget <= longest:
                raise ModelError(
                    f"out of memory on {device} with one row of {longest} tokens; "
                    "use a shorter max_length or a smaller model"
                ) from error
        budget = max(budget // 2, longest)
        eval_set.prepared[remembered] = budget
        if device.type == "cuda":
            torch.cuda.empty_cache()
        _tell(eval_set, f"{eval_set.name}: out of memory on {device}; evaluating {budget} tokens at a time from now on")


def _score(
    way: Way,
    eval_set: EvalSet,
    scored: ScoredRows,
    rows: NDArray[np.int64],
    share: Share,
    budget: int,
    device: torch.device,
) -> NDArray[np.float64]:
    """Return the loss sums of this rank's share of ``rows``, 0 elsewhere."""
    batches = _prepared(way, eval_set, scored, share.rows(rows), budget, device)
    passes = batches
    if share.in_lockstep:  # with sharded weights every rank makes as many passes as the busiest
        filler = batches or _prepared(way, eval_set, scored, rows[:1], budget, device)
        wanting = share.passes(scored, rows, way.tokens_at_once(budget)) - len(batches)
        passes = batches + wanting * filler[-1:]
    if not batches and not passes:
        return np.zeros(len(eval_set))
    losses = torch.cat([part.to(device) for part in way.losses(on_device for _, on_device in passes)])
    owners = np.concatenate([batch.owners for batch, _ in batches]) if batches else np.zeros(0, np.int64)
    values = losses.cpu().double().numpy()[: len(owners)]
    return np.bincount(owners, weights=values, minlength=len(eval_set)).astype(np.float64)


def _prepared(
    way: Way, eval_set: EvalSet, scored: ScoredRows, rows: NDArray[np.int64], budget: int, device: torch.device
) -> list[tuple[Batch, DeviceBatch]]:
    """Return the batches of ``rows`` on the device, made once where they may stay there."""
    tokens = way.tokens_at_once(budget)
    key = ("batches", id(scored), tokens, str(device), rows.tobytes())
    if key in eval_set.prepared:
        kept: list[tuple[Batch, DeviceBatch]] = eval_set.prepared[key]
        return kept
    batches = list(make_batches(eval_set, scored, rows, tokens, pad_id(way.model) or 0))
    made = [(batch, DeviceBatch.of(batch, device)) for batch in batches]
    if sum(batch.input_ids.nbytes + batch.labels.nbytes for batch in batches) <= KEPT_BATCH_BYTES:
        for old in [k for k in eval_set.prepared if k[0] == "batches"]:
            del eval_set.prepared[old]
        eval_set.prepared[key] = made
    return made


def _tell(eval_set: EvalSet, sentence: str) -> None:
    """Say something once."""
    if eval_set.notice(sentence):
        log.warning(sentence)
