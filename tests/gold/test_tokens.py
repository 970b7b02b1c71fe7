"""Prompts and answers as tokens."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from sightline.errors import DataError, ModelError
from sightline.gold.tokens import (
    Template,
    cannot_be_written,
    end_ids,
    prompt_ids,
    scored_row,
)
from sightline.runs.gold import GoldExample
from tests.gold import tiny

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def example(prompt: str = "red thing>", **kwargs) -> GoldExample:
    return GoldExample(id="1", prompt=prompt, references=("green",), target="green", **kwargs)


def test_prompt_is_read_as_it_stands():
    """Special tokens are the tokenizer's; an end token it adds at the end is left out."""
    read = tiny.tokenizer()
    assert read.decode(prompt_ids(example(), read)) == "red thing>"
    from tokenizers.processors import TemplateProcessing

    read._tokenizer.post_processor = TemplateProcessing(single=f"$A {tiny.END}", special_tokens=[(tiny.END, 0)])
    assert read("x")["input_ids"][-1] == 0
    assert prompt_ids(example(), read)[-1] != 0
    assert prompt_ids(example(f"x{tiny.END}"), read)[-1] == 0


def test_answer_is_labelled_with_its_end():
    """The prompt is context; a choice is scored without the end token, a right answer with it."""
    read = tiny.tokenizer()
    row = scored_row(example(), "green", read)
    assert read.decode([label for label in row.labels if label != -100]) == f"green{tiny.END}"
    assert read.decode(row.input_ids) == f"red thing>green{tiny.END}"
    choice = scored_row(example(), "green", read, with_end=False)
    assert read.decode([label for label in choice.labels if label != -100]) == "green"


def test_a_token_across_the_boundary_counts_as_answer():
    """Where prompt and answer merge into one token, that token is scored."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(vocab={"<e>": 0, "a": 1, "b": 2, "c": 3, "bc": 4}, merges=[("b", "c")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    read = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<e>")
    row = scored_row(example("ab"), "c", read)
    assert row.input_ids == [1, 4, 0]
    assert row.labels == [-100, 4, 0]


def test_conversations_go_through_the_chat_template():
    """With the turn of the assistant opened for asking, and written out for scoring."""
    read = tiny.tokenizer()
    chat = example(messages=({"role": "user", "content": "hi"},))
    template = Template(CHAT)
    assert read.decode(prompt_ids(chat, read, template)) == "<user>hi<assistant>"
    row = scored_row(chat, "green", read, template)
    assert read.decode([label for label in row.labels if label != -100]) == "green"
    with pytest.raises(ModelError, match="no chat template"):
        prompt_ids(chat, read)
    with pytest.raises(DataError, match="refuses this conversation"):
        prompt_ids(chat, read, Template("{{ raise_exception('no') }}"))


def test_end_tokens_of_model_and_tokenizer_count():
    """One or several, or none."""
    read = tiny.tokenizer()

    class Several:
        eos_token_id = (5, 6)

    class NoEnd:
        eos_token_id = None

    assert end_ids(read) == {0}
    assert end_ids(read, Several()) == {0, 5, 6}
    assert end_ids(NoEnd(), NoEnd()) == frozenset()


def test_answers_with_letters_the_tokenizer_drops():
    """They can never be matched."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(vocab={"<unk>": 0, "red": 1}, unk_token="<unk>"))
    read = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    assert cannot_be_written(["red", "blue"], read) == ["blue"]
    assert cannot_be_written(["blau ü"], tiny.tokenizer()) == []
