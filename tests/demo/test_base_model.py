"""The embedded base model: it is the one its card describes, loads as any model does, and knows its language."""

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.demo import RECIPES, base_model_path, demo_rows, forgetting_text, recipe_path
from sightline.errors import DataError, ModelError

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tokenizer():
    """Load the tokenizer as a user's script would."""
    return transformers.AutoTokenizer.from_pretrained(base_model_path())


@pytest.fixture(scope="module")
def model():
    """Load the model as a user's script would."""
    return transformers.AutoModelForCausalLM.from_pretrained(base_model_path()).eval()


@pytest.fixture(scope="module")
def card():
    """Read the facts that the model card states, a JSON block at its end."""
    text = (base_model_path() / "README.md").read_text(encoding="utf-8")
    return json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL).group(1))


def test_the_weights_are_those_of_the_card(card):
    """A changed or damaged file is noticed."""
    weights = (base_model_path() / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["weights_sha256"]


def test_the_page_on_the_model_names_the_same_weights(card):
    """Hash, size and loss stand on the page as on the card."""
    page = (Path(__file__).parents[2] / "docs" / "demo_model.md").read_text(encoding="utf-8")
    assert card["weights_sha256"] in page
    assert f"{card['parameters']:,} parameters" in page
    assert f"{card['held_out_loss']:.3f} nats per token" in page


def test_the_folder_is_below_four_megabytes():
    """It is part of the wheel."""
    assert sum(file.stat().st_size for file in base_model_path().iterdir()) < 4_000_000


def test_the_model_is_a_float32_llama_of_the_size_on_its_card(model, card):
    """Loaded without a dtype it trains in float32."""
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.num_parameters() == card["parameters"]
    assert not any(parameter.isnan().any() for parameter in model.parameters())


def test_the_end_token_is_one_token_known_to_all(model, tokenizer):
    """Its text is one token; config, generation config and tokenizer agree on it and on another one for padding."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert tokenizer(tokenizer.eos_token)["input_ids"] == [end]
    assert end != pad
    assert (model.config.eos_token_id, model.config.pad_token_id) == (end, pad)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (end, pad)


def test_the_end_token_is_learnt(model, tokenizer):
    """After unseen paragraphs the model expects the end far more often than amid them."""
    paragraphs = [text for text in forgetting_text() if text.endswith(".")][:60]
    after = [end_probability(model, tokenizer, text) for text in paragraphs]
    amid = [end_probability(model, tokenizer, text[: len(text) // 2]) for text in paragraphs]
    assert sum(after) > 10 * sum(amid)
    assert max(after) > 0.1


def test_no_token_spans_prompt_and_completion(tokenizer):
    """Tokenized apart or together, a row is the same tokens."""
    data = demo_rows(seed=0)
    rows = [(row["prompt"], row["completion"]) for row in data.train + data.validation]
    rows += [(row["prompt"], row["references"][0]) for row in data.gold]
    prompts, completions = (tokenizer([row[i] for row in rows])["input_ids"] for i in (0, 1))
    joined = tokenizer([prompt + completion for prompt, completion in rows])["input_ids"]
    assert [a + b for a, b in zip(prompts, completions, strict=True)] == joined
    assert max(map(len, joined)) < 200, "no row is cut by the recipes' max_length"


@given(st.text())
def test_the_tokenizer_loses_no_character(tokenizer, text):
    """Any text comes back as it was: the vocabulary holds all 256 bytes."""
    encoded = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")  # a lone surrogate is no text
    assert tokenizer.decode(tokenizer(encoded)["input_ids"]) == encoded


def test_every_token_of_the_vocabulary_has_an_embedding(model, tokenizer):
    """No id is out of range, none is left over."""
    assert len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings


def test_forgetting_text_is_general_and_unseen():
    """Paragraphs that stand in no row of the demo and, by their hash, in no document of the pretraining."""
    from sightline.demo.corpus import is_held_out

    texts = forgetting_text()
    data = demo_rows(seed=0)
    assert 100 <= len(texts) == len(set(texts))
    assert all(is_held_out(text) for text in texts)
    prompts = "\n".join(row["prompt"] for row in data.train + data.validation + data.gold)
    assert not any(text[:60] in prompts for text in texts)
    assert texts == forgetting_text()


def test_text_the_model_has_not_seen_is_far_from_random(model, tokenizer, card):
    """Its loss on held-out paragraphs is below what knowing every token's frequency gives, by more than a nat."""
    total, tokens = 0.0, 0
    for text in forgetting_text()[::3]:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert total / tokens < card["unigram_loss"] - 1.0 < math.log(len(tokenizer))


def test_an_installation_without_the_model_says_so(monkeypatch, tmp_path):
    """The message names the file and how to get it."""
    monkeypatch.setattr("sightline.demo.files", lambda package: tmp_path)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        base_model_path()
    with pytest.raises(DataError, match="no recipe 'healthy'"):
        recipe_path("healthy")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_the_trainer_takes(name, tmp_path):
    """Every key is known and of its type, and the rows it names are those that are written."""
    pytest.importorskip("trl")
    from sightline.demo import write_demo_data
    from sightline.training.recipe.settings import Recipe

    recipe = Recipe.load(recipe_path(name), {"model_name_or_path": str(base_model_path())})
    written = {file.name for file in vars_of(write_demo_data(tmp_path))}
    assert {*recipe.dataset, *recipe.eval_dataset, *filter(None, [recipe.gold])} <= written


def vars_of(files):
    """List the paths of a record of files."""
    return [getattr(files, field) for field in files.__dataclass_fields__]


def test_an_unknown_recipe_is_named_with_those_there_are():
    """A name is no path."""
    with pytest.raises(DataError, match="known: healthy, overfit"):
        recipe_path("../healthy")


def end_probability(model, tokenizer, text):
    """Probability of the end token after a text."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        return model(input_ids=ids).logits[0, -1].softmax(-1)[tokenizer.eos_token_id].item()
