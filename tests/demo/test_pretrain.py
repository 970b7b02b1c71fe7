"""The script that makes the base model, on a scale that takes seconds; and what the model was kept from."""

import json
from itertools import product

import pytest

from sightline.demo.corpus import Document, held_out_documents, is_held_out, pretraining_documents
from sightline.demo.dataset import NEAR_DUPLICATE, demo_rows, normalised, split_of, summary_of
from sightline.demo.near_duplicates import similarity
from sightline.demo.stdlib_text import stdlib_root

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "steps": 4}
SMALL |= {"num_key_value_heads": 1, "block_tokens": 32, "batch_blocks": 4, "vocab_size": 300, "warmup_steps": 1}


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """Stand in a library of one module for the whole."""
    sentences = [f"{verb} the {noun}." for verb, noun in product(("Open", "Read", "Close"), ("file", "socket", "pipe"))]
    documents = [
        Document(f"module{i % 3}.py", (f"f{i}(x): {text}", "More of it.")) for i, text in enumerate(sentences * 9)
    ]
    monkeypatch.setattr("sightline.demo.pretrain.pretraining_documents", lambda: documents)
    monkeypatch.setattr("sightline.demo.pretrain.held_out_documents", lambda: sentences * 9)
    return documents


def test_pretraining_writes_a_model_that_loads_and_the_same_one_again(small_library, tmp_path, capsys):
    """The folder is complete, and a second run gives the same weights."""
    transformers = pytest.importorskip("transformers")
    from sightline.demo.pretrain import main

    options = [word for key, value in SMALL.items() for word in (f"--{key}", str(value))]
    facts = []
    for folder in ("first", "second"):
        assert main([str(tmp_path / folder), *options]) == 0
        facts.append(json.loads(capsys.readouterr().out))
    assert facts[0]["weights_sha256"] == facts[1]["weights_sha256"]
    assert facts[0]["tokens_seen"] == 4 * 4 * 32
    assert facts[0]["corpus"]["documents"] == len(small_library)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "first")
    assert model.num_parameters() == facts[0]["parameters"]
    assert model.config.hidden_size == 32
    assert tokenizer.eos_token_id == model.config.eos_token_id


def test_training_lowers_the_loss_and_reads_every_block(small_library):
    """The loss falls well below a uniform guess; an epoch shows each block once, cut at other places than the last."""
    torch = pytest.importorskip("torch")
    from sightline.demo.pretrain import (
        Pretraining,
        _batches,
        mean_loss,
        new_model,
        tokenised_files,
        train,
        train_tokenizer,
    )

    settings = Pretraining(**SMALL | {"steps": 40, "learning_rate": 1e-2})
    tokenizer = train_tokenizer([document.text for document in small_library], 300)
    files = tokenised_files(small_library, tokenizer)
    assert sum(map(len, files)) == sum(len(tokenizer(d.text)["input_ids"]) + 1 for d in small_library)
    torch.manual_seed(0)
    model = new_model(tokenizer, settings)
    blocks = torch.cat([batch for batch, _ in zip(_batches(files, settings), range(4), strict=False)])
    assert blocks.shape[1] == settings.block_tokens + 1
    before = mean_loss(model, blocks)
    for step, _ in train(model, files, settings):
        last = step
    assert last == 40
    assert mean_loss(model, blocks) < before - 2


def test_held_out_paragraphs_are_told_by_their_words():
    """The name in front of a docstring does not count."""
    paragraphs = [
        f"{word} the {thing}." for word in ("Open", "Read", "Close", "Move") for thing in ("file", "pipe", "key")
    ]
    assert {is_held_out(paragraph) for paragraph in paragraphs} == {True, False}
    for paragraph in paragraphs:
        assert is_held_out(f"name(self, key, *rest): {paragraph}") == is_held_out(paragraph)
        assert is_held_out(f"class Name: {paragraph}") == is_held_out(paragraph)


@pytest.mark.slow
def test_the_base_model_saw_no_validation_or_gold_text():
    """No paragraph of the pretraining corpus equals, or nearly equals, a text of the demo's validation or gold set."""
    data = demo_rows(seed=0)
    held_out = [row["prompt"].split(": ", 1)[1].rsplit("\n", 1)[0] for row in (*data.validation, *data.gold)]
    assert {split_of(text) for text in held_out} == {"validation", "gold"}
    rows = {frozenset(normalised(text).split()) for text in held_out}
    documents = pretraining_documents(stdlib_root())
    paragraphs = [p for document in documents for p in document.paragraphs]
    assert len(paragraphs) > 5000
    seen = {normalised(summary_of(p.split(": ", 1)[-1])) for p in paragraphs}
    words = {frozenset(text.split()) for text in seen}
    for one in rows:
        assert not any(similarity(one, other) >= NEAR_DUPLICATE for other in words), sorted(one)


@pytest.mark.slow
def test_what_was_kept_back_stands_in_no_document():
    """Corpus and held-out text are two parts of one whole."""
    seen = {p for document in pretraining_documents() for p in document.paragraphs}
    kept_back = held_out_documents()
    assert len(kept_back) > 1000
    assert not seen.intersection(kept_back)
