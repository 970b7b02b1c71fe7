"""Losses from tiles of the vocabulary are those of the whole row of logits."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from sightline.evaluation import products, token_losses
from sightline.evaluation.token_losses import CPU_TILE, Head


def head_of(vocabulary: int, width: int, *, bias: bool = False, seed: int = 0, spread: float = 1.0) -> nn.Linear:
    """Return a random output projection."""
    torch.manual_seed(seed)
    module = nn.Linear(width, vocabulary, bias=bias)
    with torch.no_grad():
        module.weight.normal_(std=spread)
        if bias:
            module.bias.normal_(std=spread)
    return module


def by_definition(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return -log softmax at the targets, in float64."""
    module = head.module
    logits = functional.linear(
        hidden.double(), module.weight.double(), None if module.bias is None else module.bias.double()
    )
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return functional.cross_entropy(logits, targets, reduction="none")


@settings(max_examples=25, deadline=None)
@given(
    positions=st.integers(1, 40),
    vocabulary=st.sampled_from([2, 7, CPU_TILE[1] - 1, CPU_TILE[1], CPU_TILE[1] + 1, 3 * CPU_TILE[1] + 5]),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.0625, 3.0]),
    softcap=st.sampled_from([None, 5.0, 30.0]),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_tiles_equal_whole_rows(
    positions: int, vocabulary: int, bias: bool, scale: float, softcap: float | None, seed: int
) -> None:
    """Any vocabulary size, head and number of positions."""
    head = Head(head_of(vocabulary, 16, bias=bias, seed=seed), scale, softcap)
    hidden, targets = torch.randn(positions, 16), torch.randint(vocabulary, (positions,))
    found = token_losses.token_losses(head, hidden, targets)
    torch.testing.assert_close(found.double(), by_definition(head, hidden, targets), rtol=2e-5, atol=2e-5)


@torch.no_grad()
def test_more_positions_than_a_tile() -> None:
    """Positions past one tile come in their order."""
    head = Head(head_of(600, 8))
    hidden, targets = torch.randn(2 * CPU_TILE[0] + 3, 8), torch.randint(600, (2 * CPU_TILE[0] + 3,))
    found = token_losses.token_losses(head, hidden, targets)
    torch.testing.assert_close(found.double(), by_definition(head, hidden, targets), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_small_losses_keep_their_digits() -> None:
    """Losses down to 1e-12 nats, which log-softmax in float32 rounds to 0, keep six digits."""
    module = head_of(1000, 4)
    module.weight.copy_(torch.randint(-2, 3, (1000, 4)).float())
    module.weight[700] = 8.0
    hidden = torch.tensor([[0.25, 0.5, 0.125, 0.25], [0.5, 1.0, 0.5, 1.0], [1.0, 0.5, 1.0, 1.5]])
    targets = torch.full((3,), 700)
    exact = by_definition(Head(module), hidden, targets)
    assert exact.max() > 0.1
    assert exact.min() < 1e-7
    assert (
        functional.cross_entropy(module(hidden), targets, reduction="none").double()[-1] / exact[-1] - 1
    ).abs() > 1e-2
    found = token_losses.token_losses(Head(module), hidden, targets)
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("offset", [-500.0, -150.0, -70.0, 70.0, 150.0, 500.0])
@torch.no_grad()
def test_logits_far_from_zero(offset: float) -> None:
    """A constant added to all logits, beyond what float32 can exponentiate, changes no loss."""
    module = head_of(1500, 16, bias=True)
    module.bias += offset
    hidden, targets = torch.randn(30, 16), torch.randint(1500, (30,))
    exact = by_definition(Head(module), hidden, targets)
    torch.testing.assert_close(
        token_losses.token_losses(Head(module), hidden, targets).double(), exact, rtol=1e-5, atol=2e-4
    )


@torch.no_grad()
def test_a_sum_too_small_for_float32() -> None:
    """Where a target is not shifted and its rivals are too small for float32, they still count."""
    module = nn.Linear(1, 600)
    module.weight.zero_()
    module.bias.fill_(-100.0)
    module.bias[7] = -40.0
    module.bias[8] = -42.0
    targets = torch.tensor([7, 8, 300])
    exact = by_definition(Head(module), torch.zeros(3, 1), targets)
    torch.testing.assert_close(
        token_losses.token_losses(Head(module), torch.zeros(3, 1), targets).double(), exact, rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_losses_past_float32_exp() -> None:
    """Where a sum of exponentials overflows, the position is done again the ordinary way."""
    head = Head(head_of(1500, 16, spread=40.0))
    hidden, targets = torch.randn(30, 16), torch.randint(1500, (30,))
    exact = by_definition(head, hidden, targets)
    assert exact.max() > 200
    torch.testing.assert_close(token_losses.token_losses(head, hidden, targets).double(), exact, rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_forbidden_target_costs_infinitely_much() -> None:
    """A logit of minus infinity, as some models give to padding entries, is an infinite loss and no NaN."""
    module = head_of(20, 8, bias=True)
    module.bias[13] = -torch.inf
    found = token_losses.token_losses(Head(module), torch.randn(2, 8), torch.tensor([13, 4]))
    assert torch.isposinf(found[0])
    assert torch.isfinite(found[1])


@torch.no_grad()
def test_nan_stays_nan() -> None:
    """A NaN among the hidden states spoils its own position only."""
    hidden = torch.randn(3, 8)
    hidden[1, 2] = torch.nan
    found = token_losses.token_losses(Head(head_of(900, 8)), hidden, torch.tensor([5, 800, 3]))
    assert found.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_weights_are_multiplied_exactly(dtype: torch.dtype) -> None:
    """Products of half-precision numbers are summed in float32: as exact as float32 weights of the same values."""
    module = head_of(700, 32, bias=True).to(dtype)
    hidden, targets = torch.randn(20, 32).to(dtype), torch.randint(700, (20,))
    found = token_losses.token_losses(Head(module), hidden, targets)
    torch.testing.assert_close(found.double(), by_definition(Head(module), hidden, targets), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_head_of_float64_is_summed_in_float64() -> None:
    """A float64 head loses nothing."""
    module = head_of(700, 32).double()
    hidden, targets = torch.randn(20, 32).double(), torch.randint(700, (20,))
    found = token_losses.token_losses(Head(module), hidden, targets)
    torch.testing.assert_close(found, by_definition(Head(module), hidden, targets), rtol=1e-13, atol=1e-13)


@torch.no_grad()
def test_a_head_that_is_more_than_a_matrix_is_called() -> None:
    """A subclass of a linear layer, as adapters make them, is asked for its own logits."""

    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2.0 * super().forward(x)

    torch.manual_seed(0)
    module = Doubled(16, 300, bias=False)
    head = Head(module, scale=0.5)
    hidden, targets = torch.randn(130, 16), torch.randint(300, (130,))
    exact = functional.cross_entropy((hidden @ module.weight.T).double(), targets, reduction="none")
    torch.testing.assert_close(token_losses.token_losses(head, hidden, targets).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_both_products_give_the_same(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    """Layers give the same through either library, whatever the shape of their input, and are restored."""
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128, bias=bias), nn.ReLU(), Conv1D(80, 128), nn.Linear(80, 8))
    inputs = [torch.randn(*shape, 64) for shape in [(1,), (0,), (3, 5), (2, 3, 4), (1, 1)]]
    plain = [model(x) for x in inputs]
    monkeypatch.setattr(products, "_onednn_is_quicker", lambda threads: True)
    with products.quick_products(model):
        assert ["forward" in vars(m) for m in model] == [True, False, True, False]
        quick = [model(x) for x in inputs]
    assert not any("forward" in vars(m) for m in model)
    for a, b in itertools.zip_longest(plain, quick):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_plain_adapters_are_multiplied_with_their_layer() -> None:
    """One product takes the place of three, no weight is changed, and whatever is more than plain is left alone."""
    from peft import LoraConfig, get_peft_model

    def adapted(**options: Any) -> nn.Module:
        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=12, target_modules=["0"], init_lora_weights=False, **options)
        return get_peft_model(nn.Sequential(nn.Linear(64, 80), nn.ReLU()), config).eval()

    model, x = adapted(lora_dropout=0.5), torch.randn(3, 5, 64)
    layer, weights, plain = model.base_model.model[0], copy.deepcopy(model.state_dict()), model(x)
    with products.quick_products(model):
        assert "forward" in vars(layer)
        torch.testing.assert_close(model(x), plain, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(x).dtype == torch.bfloat16
    assert "forward" not in vars(layer)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    for other in (adapted(use_dora=True), adapted(lora_bias=True), model.to(torch.bfloat16)):
        with products.quick_products(other):
            assert "forward" not in vars(other.base_model.model[0])


def test_products_are_restored_after_an_error() -> None:
    """A layer keeps no foreign forward when the pass fails."""
    model = nn.Sequential(nn.Linear(64, 64))
    with pytest.raises(ZeroDivisionError), products.quick_products(model):
        raise ZeroDivisionError
    assert "forward" not in vars(model[0])
