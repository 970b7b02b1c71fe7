"""The loss of every row, against float64 and against the ways a number must not depend on."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

from sightline.evaluation import EvalSet, Row, evaluate, ways
from tests.evaluation.tiny import CAUSAL, NO_GROUPS, SHAPE, VOCABULARY, assert_exact, build, reference, rows_of

ROWS = rows_of()


def way_of(model: Any) -> str:
    """Return the way that was chosen for a causal model."""
    return ways._chosen[ways.base_model(model)][1]


@pytest.mark.parametrize("family", CAUSAL)
def test_loss_is_the_float64_token_mean(family: str) -> None:
    """Every family comes out at the float64 loss, by the cheap way."""
    model = build(CAUSAL[family])
    assert_exact(model, ROWS)
    assert way_of(model) == "tiles"


@pytest.mark.parametrize("width", [None, 20])
def test_a_model_that_looks_ahead_sees_the_whole_row(width: int | None) -> None:
    """Tokens after the last label count for it, padding does not: also where the two rows of the trial are equally long."""
    model = build(lambda: hf.BertLMHeadModel(hf.BertConfig(**NO_GROUPS)), loud=3.0)
    rows = []
    for ids, labels in ROWS:
        labels = labels.copy()
        labels[-len(labels) // 5 :] = -100
        if (labels[1:width] != -100).any():
            rows.append((ids[:width], labels[:width]))
    assert_exact(model, rows)
    assert way_of(model) == "gathered"


@pytest.mark.parametrize("batch_tokens", [1, 64, 200, 100_000])
def test_loss_does_not_depend_on_the_batches(batch_tokens: int) -> None:
    """Any token budget gives the same sums."""
    assert_exact(build(CAUSAL["llama"]), ROWS, batch_tokens=batch_tokens)


def test_loss_does_not_depend_on_the_order_of_rows() -> None:
    """Reordered rows give the same loss to the last digits, and each row keeps its own."""
    model = build(CAUSAL["qwen2"])
    order = np.random.default_rng(1).permutation(len(ROWS))
    plain, mixed = evaluate(model, ROWS), evaluate(model, [ROWS[i] for i in order])
    np.testing.assert_allclose(mixed.loss_sums, plain.loss_sums[order], rtol=1e-6)
    assert mixed.loss == pytest.approx(plain.loss, rel=1e-7)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_in_rows_does_not_count(side: str) -> None:
    """Rows padded on either side by a collator score as the bare rows do."""
    model = build(CAUSAL["llama"])
    padded = []
    for ids, labels in ROWS:
        fill = 60 - len(ids)
        ends = (fill, 0) if side == "left" else (0, fill)
        padded.append(
            {
                "input_ids": np.pad(ids, ends, constant_values=2),
                "labels": np.pad(labels, ends, constant_values=-100),
                "attention_mask": np.pad(np.ones_like(ids), ends),
            }
        )
    np.testing.assert_array_equal(evaluate(model, padded).loss_sums, evaluate(model, ROWS).loss_sums)


def test_rows_may_come_in_any_form() -> None:
    """Pairs, mappings and records mean the same."""
    model = build(CAUSAL["llama"])
    pairs = [(ids.tolist(), labels.tolist()) for ids, labels in ROWS]
    forms = (pairs, [Row(*p) for p in pairs], [{"input_ids": i, "labels": t} for i, t in pairs], EvalSet(pairs))
    losses = {evaluate(model, form).loss for form in forms}
    assert len(losses) == 1


def test_identical_rows_are_scored_once_and_count_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is there three times weighs three times and costs one pass."""
    model = build(CAUSAL["llama"])
    once = evaluate(model, ROWS[:4])
    seen: list[int] = []
    model.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"].numel()), with_kwargs=True)
    evaluate(model, ROWS[:4])
    work, seen[:] = sum(seen), []
    thrice = evaluate(model, [*ROWS[:4]] * 3)
    assert sum(seen) == work
    np.testing.assert_array_equal(thrice.loss_sums, np.tile(once.loss_sums, 3))


def test_losses_past_float32_exp_are_exact() -> None:
    """Losses of hundreds of nats, where the sum of exponentials overflows, come out finite and right."""
    model = build(CAUSAL["llama"])
    with torch.no_grad():
        model.lm_head.weight.mul_(40.0)
    assert evaluate(model, ROWS).loss > 100
    assert_exact(model, ROWS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(dtype: torch.dtype) -> None:
    """A half-precision model is scored with float32 sums: nearer to the float64 loss than its own logits are."""
    model = build(CAUSAL["llama"], loud=8.0).to(dtype)
    sums, counts = reference(model, ROWS)
    exact = sums.sum() / counts.sum()
    found = evaluate(model, ROWS).loss
    assert found == pytest.approx(exact, rel=5e-3)
    assert way_of(model) == "tiles"


def test_autocast_around_the_forward_counts() -> None:
    """A forward wrapped in autocast, as mixed-precision training leaves it, is scored in that precision."""
    model = build(CAUSAL["llama"], loud=8.0)
    plain = evaluate(model, ROWS).loss
    forward = model.forward
    model._original_forward = forward
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(forward)
    model.eval()
    sums, tokens = 0.0, 0
    for ids, labels in ROWS:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids[None])).logits[0].float()
        target = torch.tensor(labels)[1:]
        sums += torch.nn.functional.cross_entropy(logits[:-1], target, ignore_index=-100, reduction="sum").item()
        tokens += int((target != -100).sum())
    found = evaluate(model, ROWS).loss
    assert found != plain
    assert found == pytest.approx(sums / tokens, rel=3e-3)


LORA = {"r": 4, "lora_alpha": 8, "init_lora_weights": False, "task_type": TaskType.CAUSAL_LM}
ADAPTERS = {
    "lora": LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.3, **LORA),
    "lora_on_head": LoraConfig(target_modules=["q_proj", "lm_head"], **LORA),
    "head_saved": LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], **LORA),
    "embeddings_and_head_saved": LoraConfig(
        target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"], **LORA
    ),
    "dora": LoraConfig(target_modules=["q_proj"], use_dora=True, **LORA),
    "prompt_tuning": PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3),
    "prefix_tuning": PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_count(adapter: str) -> None:
    """The adapted model is scored, wherever the adapter sits."""
    base = build(CAUSAL["llama"])
    plain = evaluate(base, ROWS).loss
    torch.manual_seed(3)
    model = get_peft_model(base, copy.deepcopy(ADAPTERS[adapter]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(1.5)
    found = evaluate(model, ROWS)
    sums, counts = _reference_of_adapted(model)
    assert found.loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
    assert found.loss != pytest.approx(plain, rel=1e-4)


def _reference_of_adapted(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 sums and counts of an adapted model; virtual tokens come before the row's own."""
    exact = copy.deepcopy(model).double().eval()
    sums, counts = [], []
    for ids, labels in ROWS:
        tokens = torch.tensor(ids[None])
        with torch.no_grad():
            logits = exact(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0][-len(ids) :]
        target = torch.tensor(labels)[1:]
        sums.append(torch.nn.functional.cross_entropy(logits[:-1], target, ignore_index=-100, reduction="sum").item())
        counts.append(int((target != -100).sum()))
    return np.array(sums), np.array(counts)


class CubedLogits(hf.LlamaForCausalLM):
    """A head that no configuration tells of: what it does shows on large logits only."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits + 1e-7 * out.logits**3
        return out


class HeadCalledTwice(hf.LlamaForCausalLM):
    """A model that calls its head in a way of its own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        self.lm_head(self.lm_head.weight[:1].unsqueeze(0))
        return out


@pytest.mark.parametrize(("model_class", "way"), [(CubedLogits, "gathered"), (HeadCalledTwice, "full")])
def test_unknown_heads_fall_back(model_class: Any, way: str) -> None:
    """Where the cheap way does not agree with the model's own logits, a slower one is used and said."""
    model = build(lambda: model_class(hf.LlamaConfig(**SHAPE)))
    eval_set = EvalSet(ROWS)
    sums, counts = reference(model, ROWS)
    assert evaluate(model, eval_set, batch_tokens=150).loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
    assert way_of(model) == way
    assert len(eval_set.notices) == 1
    assert f"slower way '{way}'" in eval_set.notices[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: hf.RecurrentGemmaForCausalLM(
            hf.RecurrentGemmaConfig(
                **{**SHAPE, "num_hidden_layers": 3}, attention_window_size=64, head_dim=8, logits_soft_cap=5.0
            )
        ),
        lambda: hf.MiniCPM3ForCausalLM(
            hf.MiniCPM3Config(**NO_GROUPS, q_lora_rank=8, kv_lora_rank=8, dim_model_base=8, num_key_value_heads=4)
        ),
    ],
    ids=["logits_soft_cap", "hidden_states_are_divided"],
)
def test_heads_that_a_configuration_explains_are_tiled(make: Any) -> None:
    """A cap of another name, and a divisor that is already in what the head is given."""
    model = build(make, loud=1.0)
    sums, counts = reference(model, ROWS)
    assert evaluate(model, ROWS).loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
    assert way_of(model) == "tiles"


def test_a_head_of_zeros_is_tiled_and_tried_again() -> None:
    """A head that begins at zero gives every token ln v; what it does to large logits is found out once it has some."""
    model = build(lambda: CubedLogits(hf.LlamaConfig(**SHAPE)))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    eval_set = EvalSet(ROWS)
    assert evaluate(model, eval_set).loss == pytest.approx(math.log(SHAPE["vocab_size"]), rel=1e-6)
    assert not eval_set.notices
    with torch.no_grad():
        model.lm_head.weight.normal_()
    sums, counts = reference(model, ROWS)
    assert evaluate(model, eval_set).loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
    assert way_of(model) == "gathered"


def test_hyperclova_style_scaling_is_multiplied() -> None:
    """The one family that multiplies by ``logits_scaling`` is not divided."""
    model = build(CAUSAL["granite_scaling"])
    model.config.logits_scaling = 1e9  # the configuration no longer tells what the model does: found out by trying
    model.config.model_type = "granite"
    model.logits_scaling = 4.0
    sums, counts = reference(model, ROWS)
    assert math.isfinite(sums.sum() / counts.sum())
    assert evaluate(model, ROWS).loss == pytest.approx(reference(model, ROWS)[0].sum() / counts.sum(), rel=1e-6)


def test_encoder_decoder_scores_the_decoders_labels() -> None:
    """T5: labels of another length than the input, the model's own loss."""
    shape = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": VOCABULARY}
    model = build(lambda: hf.T5ForConditionalGeneration(hf.T5Config(**shape, decoder_start_token_id=0)), loud=2.0)
    rng = np.random.default_rng(0)
    rows = [(rng.integers(3, VOCABULARY, i + 4), rng.integers(3, VOCABULARY, (3 * i) % 7 + 1)) for i in range(9)]
    exact = copy.deepcopy(model).double().eval()
    sums = [
        exact(input_ids=torch.tensor(ids[None]), labels=torch.tensor(labels[None])).loss.item() * len(labels)
        for ids, labels in rows
    ]
    found = evaluate(model, rows, batch_tokens=40)
    np.testing.assert_allclose(found.loss_sums, sums, rtol=1e-6)
    np.testing.assert_array_equal(found.token_counts, [len(labels) for _, labels in rows])


def test_the_encoders_mask_hides_no_label_of_the_decoder() -> None:
    """Inputs and labels padded to one length: each by its own padding."""
    shape = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 1, "num_heads": 4, "vocab_size": VOCABULARY}
    model = build(lambda: hf.T5ForConditionalGeneration(hf.T5Config(**shape, decoder_start_token_id=0)), loud=2.0)
    padded = [
        {"input_ids": [5, 6, 0, 0], "attention_mask": [1, 1, 0, 0], "labels": [7, 8, 9, -100]},
        {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "labels": [7, -100, -100, -100]},
    ]
    found = evaluate(model, padded)
    assert found.token_counts.tolist() == [3, 1]
    assert found.loss_sums.tolist() == evaluate(model, [([5, 6], [7, 8, 9]), ([5, 6, 7], [7])]).loss_sums.tolist()


ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}


def test_masked_model_scores_its_own_positions() -> None:
    """BERT: a label belongs to the token at its position, and attention sees both sides."""
    model = build(lambda: hf.BertForMaskedLM(hf.BertConfig(**ENCODER)))
    exact = copy.deepcopy(model).double().eval()
    sums = [
        exact(input_ids=torch.tensor(ids[None]), labels=torch.tensor(labels[None])).loss.item()
        * np.count_nonzero(labels != -100)
        for ids, labels in ROWS
    ]
    np.testing.assert_allclose(evaluate(model, ROWS, batch_tokens=100).loss_sums, sums, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ([[i % 3] for i in range(9)], {"num_labels": 3}),
        ([[i * 0.5 - 1] for i in range(9)], {"num_labels": 1}),
        ([[float(i % 2), 1.0, 0.0] for i in range(9)], {"num_labels": 3, "problem_type": "multi_label_classification"}),
    ],
    ids=["one_class", "regression", "several_classes"],
)
@pytest.mark.parametrize("family", ["bert", "llama", "llama_without_padding"])
def test_classifier_gives_its_own_loss_of_each_row(labels: Any, options: Any, family: str) -> None:
    """Whatever a classifier predicts, each row's loss is the one the model itself gives."""
    if family == "bert":
        model = build(lambda: hf.BertForSequenceClassification(hf.BertConfig(**ENCODER, **options)), loud=4.0)
    else:
        pad = None if family == "llama_without_padding" else 0
        model = build(
            lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**SHAPE, **options, pad_token_id=pad)), loud=4.0
        )
    rows = [(ids, label) for (ids, _), label in zip(ROWS, labels, strict=False)]
    exact = copy.deepcopy(model).double().eval()
    losses = []
    for ids, label in rows:
        wide = torch.float64 if isinstance(label[0], float) else torch.int64
        target = torch.tensor([label], dtype=wide) if len(label) > 1 else torch.tensor(label, dtype=wide)
        losses.append(exact(input_ids=torch.tensor(ids[None]), labels=target).loss.item())
    found = evaluate(model, rows)
    np.testing.assert_allclose(found.loss_sums, losses, rtol=2e-6)
    assert found.loss == pytest.approx(np.mean(losses) / len(labels[0]), rel=1e-6)


def test_only_some_rows() -> None:
    """A sample of the rows is scored as in the whole set; the others count nothing."""
    model = build(CAUSAL["llama"])
    whole, only = evaluate(model, ROWS), np.array([7, 2, 11])
    part = evaluate(model, ROWS, only=only)
    others = np.setdiff1d(np.arange(len(ROWS)), only)
    np.testing.assert_allclose(part.loss_sums[only], whole.loss_sums[only], rtol=1e-6)
    np.testing.assert_array_equal(part.token_counts[others], 0)
    np.testing.assert_array_equal(part.loss_sums[others], 0.0)
