"""Several ranks give what one process gives; real gloo processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from sightline.errors import SightlineError
from sightline.evaluation import EvalSet, evaluate
from sightline.evaluation.distributed import dealt
from tests.evaluation.ranks import on_ranks
from tests.evaluation.tiny import CAUSAL, build, rows_of


@given(n=st.integers(0, 60), world_size=st.integers(1, 7), seed=st.integers(0, 9))
def test_rows_are_dealt_once_and_evenly(n: int, world_size: int, seed: int) -> None:
    """Each row has one rank; no two ranks differ by more than one row, nor by more than the longest in tokens."""
    shares = [dealt(n, world_size, rank) for rank in range(world_size)]
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(n))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    lengths = np.sort(np.random.default_rng(seed).integers(1, 500, n))[::-1]
    tokens = [int(lengths[share].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= (lengths[0] if n else 0)


def _scored(n: int) -> dict[str, Any]:
    """Score rows on this rank, then rows that differ between the ranks, then with one rank failing, then once more."""
    rank = dist.get_rank()
    model, rows = build(CAUSAL["llama"]), rows_of(n)
    model.register_forward_pre_hook(lambda m, a, k: passes.append(k["input_ids"].numel()), with_kwargs=True)
    passes: list[int] = []
    losses = evaluate(model, rows)
    found = {"sums": losses.loss_sums, "counts": losses.token_counts, "tokens_seen": sum(passes), "errors": []}
    others = rows_of(n, seed=rank)
    found["errors"].append(_error(lambda: evaluate(model, others)))
    wrapped = torch.nn.parallel.DistributedDataParallel(build(CAUSAL["llama"]))
    if rank == 1:
        handle = wrapped.module.model.layers[0].register_forward_pre_hook(_fail)
    found["errors"].append(_error(lambda: evaluate(wrapped, rows)))
    if rank == 1:
        handle.remove()
    found["again"] = evaluate(wrapped, EvalSet(rows)).loss_sums
    found["one_row"] = evaluate(wrapped, rows[:1]).loss
    return found


def _fail(*_: Any) -> None:
    raise SightlineError("the disk is gone")


def _error(work: Any) -> str:
    try:
        work()
    except SightlineError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_add_up_to_one_process(world_size: int) -> None:
    """Counts are equal, sums to 1e-6, on every rank; n is not divisible; an error on one reaches all; DDP too."""
    n = 13
    alone = evaluate(build(CAUSAL["llama"]), rows_of(n))
    found = on_ranks(_scored, world_size, n)
    for rank, of_rank in enumerate(found):
        np.testing.assert_array_equal(of_rank["counts"], alone.token_counts)
        np.testing.assert_allclose(of_rank["sums"], alone.loss_sums, rtol=1e-6)
        np.testing.assert_allclose(of_rank["again"], alone.loss_sums, rtol=1e-6)
        assert of_rank["one_row"] == pytest.approx(alone.loss_sums[0] / alone.token_counts[0], rel=1e-6)
        different, failed = of_rank["errors"]
        assert different.startswith("DataError: validation set: the ranks hold different rows")
        own = "SightlineError: the disk is gone"
        assert failed == (own if rank == 1 else f"ModelError: rank 1 could not evaluate: {own}")
    seen = [of_rank["tokens_seen"] for of_rank in found]
    assert max(seen) < 1.5 * min(seen), "the ranks share the work"


def _sharded(n: int) -> dict[str, Any]:
    """Score a model whose weights are sharded over the ranks, with fewer and more rows than ranks."""
    from torch.distributed.fsdp import fully_shard

    model = build(CAUSAL["llama_tied"])
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    rows = rows_of(n)
    return {"sums": evaluate(model, rows, batch_tokens=60).loss_sums, "one": evaluate(model, rows[:1]).loss_sums}


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_sharded_weights_are_scored_in_step(world_size: int) -> None:
    """Under FSDP every rank makes equally many passes, and the sums are those of the whole model."""
    n = 13
    alone = evaluate(build(CAUSAL["llama_tied"]), rows_of(n))
    for of_rank in on_ranks(_sharded, world_size, n):
        np.testing.assert_allclose(of_rank["sums"], alone.loss_sums, rtol=1e-6)
        np.testing.assert_allclose(of_rank["one"], alone.loss_sums[:1], rtol=1e-6)
