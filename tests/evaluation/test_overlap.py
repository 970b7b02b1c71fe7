"""Bodies and heads on two threads give what they give one after the other, and leave the threads as they were."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn

from sightline.evaluation import EvalSet, evaluate, forwards, models, token_losses, ways
from sightline.evaluation.overlap import MOST_WAITING, beside
from tests.evaluation.test_observer import llama_with_dropout, trained
from tests.evaluation.tiny import CAUSAL, SHAPE, build, rows_of

ROWS = rows_of(40)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let PyTorch use two threads, whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def threads_of_the_head(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Make pieces of the head small, and return in which threads they will have been done."""
    seen: set[str] = set()

    def watched(*args: object) -> torch.Tensor:
        seen.add(threading.current_thread().name.split("_")[0])
        assert not torch.is_grad_enabled()
        return token_losses.token_losses(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(token_losses, "CPU_TILE", (16, 64))
    monkeypatch.setattr(ways, "token_losses", watched)
    monkeypatch.setattr(ways, "body_weights", lambda model: 0)
    return seen


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("loud", [5.0, 60.0])
def test_losses_are_the_same(monkeypatch: pytest.MonkeyPatch, loud: float) -> None:
    """Row by row; with loud weights many losses are past 88 nats, for which the head itself is called."""
    model, eval_set = build(CAUSAL["llama_tied"], loud=loud), EvalSet(ROWS)
    plain = evaluate(model, eval_set, batch_tokens=64)
    seen = threads_of_the_head(monkeypatch)
    found = evaluate(model, eval_set, batch_tokens=64)
    assert "sightline-head" in seen
    np.testing.assert_allclose(found.loss_sums, plain.loss_sums, rtol=2e-6)
    assert not any(thread.name.startswith("sightline-head") for thread in threading.enumerate())


@pytest.mark.usefixtures("two_threads")
def test_a_small_head_gets_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the body is most of the work it keeps all threads."""
    model, seen = build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE))), threads_of_the_head(monkeypatch)
    monkeypatch.setattr(ways, "body_weights", lambda model: 10**9)
    evaluate(model, ROWS)
    assert seen == {"MainThread"}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2_softcap", "mixtral_aux", "cohere_scale"])
def test_two_bodies_at_once(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """Both threads run whole batches where the model keeps nothing between calls: the same losses, and the same bits."""
    model, eval_set = build(CAUSAL[family]), EvalSet(ROWS)
    plain = evaluate(model, eval_set, batch_tokens=64)
    seen = threads_of_the_head(monkeypatch)
    monkeypatch.setattr(models, "WORTH_A_THREAD", 0)
    bodies, call = set(), forwards.call
    monkeypatch.setattr(
        forwards, "call", lambda *a, **k: (bodies.add(threading.current_thread().name[:14]), call(*a, **k))[1]
    )
    one, other = (evaluate(model, eval_set, batch_tokens=64) for _ in range(2))
    assert bodies == seen == {"MainThread", "sightline-head"}
    np.testing.assert_array_equal(one.loss_sums, other.loss_sums)
    np.testing.assert_allclose(one.loss_sums, plain.loss_sums, rtol=2e-6)


def test_what_may_keep_something_is_run_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks and wrappers of others, embeddings that follow the longest row, a forward that has been replaced."""
    monkeypatch.setattr(models, "WORTH_A_THREAD", 0)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    plain, hooked, patched, foreign = (build(CAUSAL["llama"]) for _ in range(4))
    dynamic = build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, rope_parameters=rope)))
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    patched.forward = lambda *args, **kwargs: None
    foreign.model.layers[0].mlp = type("Own", (nn.Identity,), {"__module__": "somewhere"})()
    assert models.may_run_twice(plain)
    assert not any(models.may_run_twice(model) for model in (hooked, patched, foreign, dynamic))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not models.may_run_twice(plain)
    monkeypatch.setattr(models, "WORTH_A_THREAD", 10**9)
    assert not models.may_run_twice(plain)


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_the_other_thread_is_the_passes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out there halves the budget, as it does here."""
    seen = threads_of_the_head(monkeypatch)
    inner, failures = ways.token_losses, [RuntimeError("DefaultCPUAllocator: can't allocate memory")]

    def failing(*args: object) -> torch.Tensor:
        if threading.current_thread() is not threading.main_thread() and failures:
            raise failures.pop()
        return inner(*args)  # type: ignore[arg-type]

    model, eval_set = build(CAUSAL["llama"]), EvalSet(ROWS)
    plain = evaluate(model, eval_set)
    monkeypatch.setattr(ways, "token_losses", failing)
    found = evaluate(model, eval_set)
    assert not failures
    assert "sightline-head" in seen
    assert any("out of memory" in notice for notice in eval_set.notices)
    np.testing.assert_allclose(found.loss_sums, plain.loss_sums, rtol=2e-6)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Ctrl-C or an error in the body ends the pass with its threads, hooks and modes as they were."""
    threads_of_the_head(monkeypatch)
    model, calls = build(CAUSAL["llama"]), []
    evaluate(model, ROWS)

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise error

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(error):
        evaluate(model, ROWS, batch_tokens=64)
    handle.remove()
    assert torch.get_num_threads() == 2
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(thread.name.startswith("sightline-head") for thread in threading.enumerate())


@pytest.mark.usefixtures("two_threads")
def test_training_is_bit_for_bit_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With passes on two threads in between, and with none; and a pass gives the same bits every time."""
    seen, losses = threads_of_the_head(monkeypatch), []

    def watch(model: nn.Module) -> None:
        losses.append([evaluate(model, ROWS).loss for _ in range(2)])

    plain = trained(llama_with_dropout, lambda model: None)
    watched = trained(llama_with_dropout, watch)
    assert "sightline-head" in seen
    assert all(one == other for one, other in losses)
    assert watched[:2] == plain[:2]
    assert all(torch.equal(watched[2][name], weight) for name, weight in plain[2].items())


@pytest.mark.usefixtures("two_threads")
def test_a_piece_is_let_go_once_it_is_done() -> None:
    """However many pieces a pass has, few of them are in memory."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0
    with beside(True) as work:
        for _ in range(50):
            hidden = torch.zeros(100)
            alive.add(hidden)
            work.put(partial(torch.sum, hidden))
            del hidden
            most = max(most, len(alive))
        assert len(work.results()) == 50
    assert most <= MOST_WAITING + 2


def test_the_last_batches_are_single_pieces() -> None:
    """Others are put together until their labels fill most of a tile; two threads then end within one batch."""
    half = torch.zeros(token_losses.CPU_TILE[0] // 2, dtype=torch.long)
    batches = [SimpleNamespace(targets=half) for _ in range(40 + ways.LAST_ONES)]
    sizes = [len(group) for group in ways._groups(batches)]  # type: ignore[arg-type]
    assert sizes == [2] * 20 + [1] * ways.LAST_ONES


def test_few_batches_make_as_many_pieces() -> None:
    """However few labels they bear: three pieces of work would leave one of two threads idle for a third of the time."""
    few = torch.zeros(3, dtype=torch.long)
    batches = [SimpleNamespace(targets=few) for _ in range(11)]
    assert [len(group) for group in ways._groups(batches)] == [2, 2, 2, 2, 1, 1, 1]  # type: ignore[arg-type]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("wanted", [True, False])
def test_results_come_in_order(wanted: bool) -> None:
    """Whoever did the piece."""
    with beside(wanted) as work:
        for i in range(40):
            work.put(partial(torch.full, (2,), i))
        results = work.results()
    assert [r.tolist() for r in results] == [[i, i] for i in range(40)]
