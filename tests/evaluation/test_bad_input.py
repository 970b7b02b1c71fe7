"""Rows, models and machines that are not as they should be: counted, told, or refused with the reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from sightline.errors import DataError, ModelError
from sightline.evaluation import EvalSet, evaluate, ways
from tests.evaluation.tiny import CAUSAL, SHAPE, VOCABULARY, assert_exact, build, reference, rows_of

ROWS = rows_of()


def test_rows_without_labels_count_nothing() -> None:
    """A row whose labels are all masked scores 0 tokens, and does not disturb the others."""
    model = build(CAUSAL["llama"])
    bare = (np.arange(3, 20), np.full(17, -100))
    first_only = (np.array([5]), np.array([5]))
    found = evaluate(model, [bare, *ROWS, first_only])
    np.testing.assert_array_equal(found.loss_sums[[0, -1]], 0.0)
    np.testing.assert_array_equal(found.token_counts[[0, -1]], 0)
    assert found.loss == evaluate(model, ROWS).loss


def test_one_row_is_enough() -> None:
    """A validation set of one row of one label."""
    assert_exact(build(CAUSAL["llama"]), [(np.array([5, 6]), np.array([-100, 6]))])


def test_rows_past_the_context_are_cut_and_counted() -> None:
    """A row longer than the model reads is scored up to there, and the notice says what is lost."""
    model = build(CAUSAL["gpt2"])
    ids = np.random.default_rng(0).integers(3, VOCABULARY, 120)
    eval_set = EvalSet([(ids, ids), *ROWS], name="validation set")
    found = evaluate(model, eval_set)
    sums, counts = reference(model, [(ids[:96], ids[:96])])
    assert found.token_counts[0] == counts[0] == 95
    assert found.loss_sums[0] == pytest.approx(sums[0], rel=1e-6)
    assert eval_set.notices == [
        "validation set: 1 of 14 rows is longer than the model's 96 tokens and was cut; labelled tokens not scored: 24"
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([([3, 4], [-100, -100])], "its only row has no label"),
        ([([3, 4], None)], "row 0: needs input_ids and labels"),
        (
            [([3, 4], [3, 4]), ([3, VOCABULARY], [3, 4])],
            f"row 1: token id {VOCABULARY} is outside the model's vocabulary",
        ),
        ([([3, 4], [3, -7])], "label -7 is outside"),
        ([([3, 4, 5], [3, 4])], "3 input_ids but 2 labels"),
        ([([0.5, 4], [3, 4])], "input_ids must be a list of whole numbers, found float64"),
        ([([3, 4], [0.5, 4])], "labels must be whole numbers"),
        ([([], [])], "input_ids must be a list of whole numbers, found none"),
        ([([[3, 4]], [3, 4])], "found int64 of shape"),
    ],
    ids=["empty", "masked", "none", "vocabulary", "label", "lengths", "floats", "float_labels", "bare", "nested"],
)
def test_bad_rows_are_refused(rows: Any, message: str) -> None:
    """What cannot be scored is named, with its row."""
    model = build(CAUSAL["llama"])
    with pytest.raises(DataError, match=message):
        evaluate(model, rows)


def test_a_model_without_a_head_is_refused() -> None:
    """A bare body cannot be scored."""
    with pytest.raises(ModelError, match="AutoModelForCausalLM"):
        evaluate(hf.LlamaModel(hf.LlamaConfig(**SHAPE)), ROWS)


def test_a_model_that_returns_no_logits_is_refused() -> None:
    """A fused loss that leaves the logits out even without labels leaves nothing to score by; the switch is named."""

    class NoLogits(hf.LlamaForCausalLM):
        def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
            return hf.modeling_outputs.CausalLMOutputWithPast(logits=None)

    with pytest.raises(ModelError, match="NoLogits returns no logits"):
        evaluate(build(lambda: NoLogits(hf.LlamaConfig(**SHAPE))), ROWS)


def test_nan_weights_are_counted() -> None:
    """NaN weights give NaN losses, counted row by row; nothing is hidden."""
    model = build(CAUSAL["llama"])
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    found = evaluate(model, ROWS)
    assert math.isnan(found.loss)
    assert found.non_finite == len(ROWS)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 0.1
    assert_exact(model, ROWS)


def test_nan_in_one_embedding_spoils_its_rows_only() -> None:
    """A token whose embedding is NaN spoils the rows that have it."""
    model = build(CAUSAL["llama"])
    ids, labels = ROWS[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[1] = math.nan
    found = evaluate(model, [(np.concatenate([[1], ids]), np.concatenate([[-100], labels])), *ROWS])
    assert found.non_finite == 1
    assert math.isnan(found.loss_sums[0])


def _memory_for(model: Any, tokens: int) -> None:
    """Have a model run out of memory on more tokens than that."""

    def refuse(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    model.register_forward_pre_hook(refuse, with_kwargs=True)


def test_out_of_memory_halves_the_budget_and_says_so() -> None:
    """The result is the same, the notice tells, and the next evaluation begins where memory was enough."""
    model = build(CAUSAL["llama"])
    whole = evaluate(model, ROWS).loss
    _memory_for(model, 130)
    eval_set = EvalSet(ROWS)
    assert evaluate(model, eval_set, batch_tokens=400).loss == pytest.approx(whole, rel=1e-7)
    assert [n.split("; ")[1] for n in eval_set.notices] == [
        "evaluating 200 tokens at a time from now on",
        "evaluating 100 tokens at a time from now on",
    ]
    assert evaluate(model, eval_set, batch_tokens=400).loss == pytest.approx(whole, rel=1e-7)
    assert len(eval_set.notices) == 2


def test_out_of_memory_on_a_single_row_is_an_error() -> None:
    """When one row alone does not fit, the error says how long it is."""
    model = build(CAUSAL["llama"])
    evaluate(model, ROWS)
    _memory_for(model, 20)
    longest = max(int(np.flatnonzero(labels != -100)[-1]) for _, labels in ROWS)
    with pytest.raises(ModelError, match=f"one row of {longest} tokens"):
        evaluate(model, ROWS)


def test_out_of_memory_before_the_first_row_is_an_error_too() -> None:
    """The trial of the ways is a forward as well: what it cannot do is no fault of its own, and no reason to go slower."""
    model = build(CAUSAL["llama"])
    _memory_for(model, 0)
    with pytest.raises(ModelError, match="out of memory on cpu with two short rows"):
        evaluate(model, ROWS)
    assert model not in ways._chosen
