"""Decoding with slots gives the tokens that ``model.generate`` gives each prompt alone."""

from __future__ import annotations

import itertools
import random

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sightline.gold.slots import decode, why_not_slots  # noqa: E402

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
ENDS = frozenset([2, 7, 11, 30, 31, 32])


CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZES),
    "mistral with a sliding window": transformers.MistralConfig(**SIZES, sliding_window=8),
    "gemma2, every other layer sliding": transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=8),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8),
    "gpt2, learned positions": transformers.GPT2Config(**GPT2),
}


def random_model(config, seed: int = 0):
    """A model of random weights, large enough for its answers to differ."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    if config.model_type == "gemma2":  # soft caps flatten its attention: without this it repeats one token
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.05)
    return model


def random_prompts(n: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    prompts = [[rng.randrange(3, 61) for _ in range(rng.randint(1, 40))] for _ in range(n)]
    return sorted(prompts, key=lambda prompt: -len(prompt))


def alone(model, prompt: list[int], limit: int, ends: frozenset[int] = ENDS) -> list[int]:
    ids = torch.tensor([prompt])
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=0,
    )
    return list(itertools.takewhile(lambda token: token not in ends, generated[0, len(prompt) :].tolist()))


def with_slots(model, prompts, limits, ends=ENDS, **options) -> dict[int, tuple[list[int], bool]]:
    answers: dict[int, tuple[list[int], bool]] = {}

    def on_answer(index: int, tokens: list[int], ended: bool) -> None:
        assert index not in answers
        answers[index] = (list(tokens), ended)

    decode(model, prompts, limits, ends, on_answer, **{"width": 8, "prefill_tokens": 100} | options)
    return answers


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_those_of_generate(name):
    """Whatever the width, for answers of all lengths, refilled slots included."""
    model = random_model(CONFIGS[name])
    assert why_not_slots(model) is None
    prompts = random_prompts(24)
    expected = [alone(model, prompt, 30) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 4
    for width in (1, 3, 8, 40):
        found = with_slots(model, prompts, [30] * 24, width=width)
        assert [found[i][0] for i in range(24)] == expected
        assert [found[i][1] for i in range(24)] == [len(answer) < 30 for answer in expected]


def test_long_answers_outgrow_the_first_buffer():
    """The cache grows where answers are longer than its spare columns."""
    model = random_model(transformers.GPT2Config(**GPT2), seed=3)
    prompts = random_prompts(6, seed=1)
    nothing: frozenset[int] = frozenset()
    found = with_slots(model, prompts, [85] * 6, nothing, width=3)
    assert {len(tokens) for tokens, _ in found.values()} == {85}
    assert [found[i][0] for i in range(6)] == [alone(model, prompt, 85, nothing) for prompt in prompts]


def test_each_answer_has_its_own_limit():
    """A limit of one token gives one token."""
    model = random_model(transformers.LlamaConfig(**SIZES))
    prompts = random_prompts(10)
    limits = [1 + i % 4 for i in range(10)]
    found = with_slots(model, prompts, limits, width=4)
    for i, prompt in enumerate(prompts):
        assert found[i][0] == alone(model, prompt, 30)[: limits[i]]


def test_an_answer_can_be_stopped():
    """Where the caller says so."""
    model = random_model(transformers.LlamaConfig(**SIZES))
    prompts = random_prompts(10)
    found = with_slots(model, prompts, [30] * 10, is_stopped=lambda tokens: len(tokens) == 2)
    assert {len(tokens) for tokens, _ in found.values()} <= {0, 1, 2}
    assert all(ended for _, ended in found.values())


def test_prompts_out_of_order_are_refused():
    """A shorter prompt before a longer one would leave the longer one no room."""
    with pytest.raises(ValueError, match="longest first"):
        with_slots(random_model(transformers.LlamaConfig(**SIZES)), [[3], [3, 4]], [2, 2])
    assert with_slots(random_model(transformers.LlamaConfig(**SIZES)), [], []) == {}


def test_models_that_cannot_be_decoded_with_slots_are_told():
    """Other caches, other positions, and settings that change greedy decoding."""
    t = transformers
    mamba = t.MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2)
    assert "past_key_values" in str(why_not_slots(random_model(mamba)))
    bloom = t.BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4)
    assert "position_ids" in str(why_not_slots(random_model(bloom)))
    penalised = random_model(t.LlamaConfig(**SIZES))
    penalised.generation_config.repetition_penalty = 1.2
    assert "repetition_penalty=1.2" in str(why_not_slots(penalised))
