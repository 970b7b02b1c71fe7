"""Rows to tokens and to two sides: what is learnt, what is cut, and where equal prompts go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.errors import DataError, ModelError
from sightline.training.prepare import prepare
from sightline.training.recipe import Recipe
from sightline.training.rows import (
    IGNORED,
    Example,
    Tokenisation,
    TokenisedRows,
    normalised,
    prompt_hash,
    split,
    tokenise,
    validation_rows,
)
from sightline.training.rows.chat import chat_template
from sightline.training.rows.packing import packed_blocks

from .synthetic import CHATML, CPU, byte_tokenizer, model_folder, prepared, rows, shared, word_tokenizer, write_rows

LONG = Tokenisation(max_length=200)


def learnt(rows_: TokenisedRows, tokenizer, index: int = 0) -> str:
    row = rows_[index]
    return tokenizer.decode(row.input_ids[row.labels != IGNORED])


def test_only_the_completion_is_learnt_and_the_end_token_closes_it():
    tokenizer = byte_tokenizer()
    ready = tokenise([Example("What is 2?\n", "It is two.")], tokenizer, LONG)
    row = ready[0]
    assert tokenizer.decode(row.input_ids) == "What is 2?\nIt is two.</s>"
    assert learnt(ready, tokenizer) == "It is two.</s>"
    assert row.input_ids[-1] == row.labels[-1] == tokenizer.eos_token_id
    assert ready.label_counts[0] == (row.labels != IGNORED).sum()


def test_the_whole_row_is_learnt_when_asked():
    tokenizer = byte_tokenizer()
    how = Tokenisation(max_length=200, completion_only=False)
    assert learnt(tokenise([Example("a\n", "b")], tokenizer, how), tokenizer) == "a\nb</s>"
    assert learnt(tokenise([Example(text="all of it")], tokenizer, LONG), tokenizer) == "all of it</s>"


def test_the_end_token_is_not_added_twice():
    tokenizer = byte_tokenizer()
    ready = tokenise([Example("a\n", "b</s>"), Example(text="c</s>")], tokenizer, LONG)
    assert [list(row.input_ids).count(tokenizer.eos_token_id) for row in ready] == [1, 1]


def test_padding_with_the_end_token_still_teaches_it():
    """Labels are explicit, so a pad token that is the end token hides nothing."""
    tokenizer = byte_tokenizer(pad_token="</s>")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    ready = tokenise([Example("a\n", "b"), Example("a longer prompt\n", "b")], tokenizer, LONG)
    features = [{"input_ids": r.input_ids.tolist(), "labels": r.labels.tolist()} for r in ready]
    labels = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)(features)["labels"]
    assert (labels == tokenizer.eos_token_id).sum() == 2


@pytest.mark.parametrize("prompt", ["What is 2?\n", "Question: é £>", "", "x" * 50, "ends in blank "])
@pytest.mark.parametrize("completion", ["It is two.", " blank first", "£ é ü", "", "\n\n"])
def test_tokens_are_those_of_the_joined_text(prompt, completion):
    """Prompt and completion are one running text; the labels begin with the first token that holds the completion."""
    if not prompt + completion:
        return  # nothing but an end token, which nothing predicts
    tokenizer = byte_tokenizer()
    row = tokenise([Example(prompt, completion)], tokenizer, LONG)[0]
    joined = tokenizer(prompt + completion)["input_ids"]
    assert row.input_ids.tolist() == [*joined, tokenizer.eos_token_id]
    first = int(np.argmax(row.labels != IGNORED))
    assert len(tokenizer.decode(joined[:first])) <= len(prompt)
    assert tokenizer.decode(row.input_ids[first:-1]).endswith(completion)


def test_without_offsets_the_labels_are_the_same(monkeypatch):
    """A tokenizer that knows no offsets gives the same rows."""
    tokenizer = byte_tokenizer()
    examples = [Example(f"Question {i}?\n", f"Answer {i}.") for i in range(5)]
    fast = tokenise(examples, tokenizer, LONG)

    class Slow:
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, text, add_special_tokens):
            return tokenizer(text, add_special_tokens=add_special_tokens)

    slow = tokenise(examples, Slow(), LONG)
    assert fast.input_ids.tolist() == slow.input_ids.tolist()
    assert fast.labelled.tolist() == slow.labelled.tolist()


CONVERSATION = (
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "bye"},
)


def test_the_last_assistant_turn_is_learnt():
    tokenizer = byte_tokenizer()
    how = Tokenisation(max_length=200, template=CHATML)
    ready = tokenise([Example(messages=CONVERSATION)], tokenizer, how)
    assert learnt(ready, tokenizer) == "bye</s>"
    assert ready[0].input_ids.tolist().count(tokenizer.eos_token_id) == 4  # each turn's own, none added
    cut = tokenise([Example(messages=CONVERSATION[:3])], tokenizer, how)
    assert learnt(cut, tokenizer) == "ho</s>"  # what follows the last assistant turn is left out


def test_every_assistant_turn_when_asked():
    tokenizer = byte_tokenizer()
    how = Tokenisation(max_length=200, template=CHATML, every_turn=True)
    assert learnt(tokenise([Example(messages=CONVERSATION)], tokenizer, how), tokenizer) == "ho</s>bye</s>"
    how = Tokenisation(max_length=200, template=CHATML, completion_only=False)
    assert learnt(tokenise([Example(messages=CONVERSATION)], tokenizer, how), tokenizer).startswith("[user]hi</s>")


def test_a_template_without_an_end_token_gets_one():
    tokenizer = byte_tokenizer()
    how = Tokenisation(max_length=200, template=CHATML.replace("</s>", "\\n"))
    assert learnt(tokenise([Example(messages=CONVERSATION)], tokenizer, how), tokenizer) == "bye\n</s>"


def test_messages_without_a_template_or_an_answer():
    tokenizer = byte_tokenizer()
    with pytest.raises(DataError, match=r"f, line 1.*chat template.*chatml"):
        tokenise([Example(messages=CONVERSATION, where="f, line 1")], tokenizer, LONG)
    how = Tokenisation(max_length=200, template=CHATML)
    with pytest.raises(DataError, match=r"f, line 2: no message of the assistant.*user"):
        tokenise([Example(messages=CONVERSATION[:1], where="f, line 2")], tokenizer, how)
    refusing = Tokenisation(max_length=200, template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match=r"f, line 3.*roles must alternate"):
        tokenise([Example(messages=CONVERSATION, where="f, line 3")], tokenizer, refusing)


def test_chat_templates_by_name_and_by_file(tmp_path):
    tokenizer = byte_tokenizer()
    assert chat_template(None, tokenizer) is None
    tokenizer.chat_template = CHATML
    assert chat_template("tokenizer_default", tokenizer) == CHATML
    assert "im_start" in (chat_template("chatml", tokenizer) or "")
    (tmp_path / "t.jinja").write_text(CHATML)
    assert chat_template(str(tmp_path / "t.jinja"), tokenizer) == CHATML
    with pytest.raises(ModelError, match="no such Jinja file"):
        chat_template("nope.jinja", tokenizer)


def test_rows_are_cut_and_counted():
    tokenizer = byte_tokenizer()
    ready = tokenise([Example("ab\n", "c" * 50), Example("ab\n", "c")], tokenizer, Tokenisation(max_length=10))
    assert ready.lengths.tolist()[0] == 10
    assert ready.truncated.tolist() == [True, False]
    assert ready[0].input_ids[-1] != tokenizer.eos_token_id  # its end is not there, and none is made up


def test_rows_with_nothing_left_to_learn_are_named():
    tokenizer = byte_tokenizer()
    examples = [Example("q" * 40, "a", where="f, line 1"), Example("q\n", "a", where="f, line 2")]
    ready = tokenise(examples, tokenizer, Tokenisation(max_length=10))
    assert [e.where for e in ready.without_label] == ["f, line 1"]
    assert [e.where for e in ready.examples] == ["f, line 2"]
    with pytest.raises(DataError, match=r"max_length 10.*raise max_length"):
        tokenise(examples[:1], tokenizer, Tokenisation(max_length=10))


def test_select_and_dataset_hold_the_same_rows():
    tokenizer = byte_tokenizer()
    ready = tokenise([Example(f"{i}\n" * (i + 1), f"answer {i}") for i in range(7)], tokenizer, LONG)
    chosen = ready.select([5, 0, 3])
    assert [r.input_ids.tolist() for r in chosen] == [ready[i].input_ids.tolist() for i in (5, 0, 3)]
    assert [r.labels.tolist() for r in chosen] == [ready[i].labels.tolist() for i in (5, 0, 3)]
    assert len(ready.select(ready.lengths > 10**6)) == 0
    dataset = ready.to_dataset()
    assert dataset["input_ids"][2] == ready[2].input_ids.tolist()
    assert dataset["labels"][2] == ready[2].labels.tolist()
    assert dataset["length"] == ready.lengths.tolist()
    assert ready[-1].prompt_hash == prompt_hash("6\n" * 7)


def test_packing_counts_the_blocks_trl_makes():
    from trl.data_utils import pack_dataset

    tokenizer = byte_tokenizer()
    rng = np.random.default_rng(0)
    examples = [Example("q\n", "a " * int(n)) for n in rng.integers(1, 40, 120)]
    ready = tokenise(examples, tokenizer, Tokenisation(max_length=64))
    packed = pack_dataset(ready.to_dataset().select_columns(["input_ids", "labels"]), 64, "bfd")
    assert packed_blocks(ready.lengths, 64) == len(packed)


# -- two sides ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), min_size=2, max_size=200), st.integers(1, 100), st.integers(0, 5))
def test_equal_prompts_never_stand_on_both_sides(prompts, wanted, seed):
    if len(set(prompts)) < 2:
        return
    hashes = [prompt_hash(f"prompt {p}") for p in prompts]
    side = split(hashes, wanted, seed)
    assert not {h for h, s in zip(hashes, side, strict=True) if s} & {
        h for h, s in zip(hashes, side, strict=True) if not s
    }
    assert 0 < side.sum() < len(prompts) or wanted >= len(prompts)


def test_the_split_follows_content_not_order():
    hashes = np.array([prompt_hash(f"p{i}") for i in range(500)], dtype=np.uint64)
    side = split(hashes, 50, 1)
    order = np.random.default_rng(0).permutation(500)
    assert (split(hashes[order], 50, 1) == side[order]).all()
    assert side.sum() == 50
    assert (split(hashes, 50, 2) != side).any()


def test_rows_added_later_leave_most_rows_where_they_were():
    hashes = [prompt_hash(f"p{i}") for i in range(1100)]
    before = split(hashes[:1000], validation_rows(1000, 0.1), 1)
    after = split(hashes, validation_rows(1100, 0.1), 1)
    assert (before != after[:1000]).mean() < 0.02


@pytest.mark.parametrize(
    ("n", "size", "wanted"),
    [
        (20, None, 4),
        (100, None, 20),
        (300, None, 50),
        (2000, None, 200),
        (10**6, None, 500),
        (1000, 0.25, 250),
        (1000, 40, 40),
    ],
)
def test_how_many_rows_are_kept_for_validation(n, size, wanted):
    assert validation_rows(n, size) == wanted


def test_splits_that_cannot_be():
    assert validation_rows(10, 0) == 0
    with pytest.raises(DataError, match="1 row cannot be split"):
        validation_rows(1, None)
    with pytest.raises(DataError, match="cannot be split"):
        validation_rows(10, 10)
    with pytest.raises(DataError, match="same prompt"):
        split([prompt_hash("a")] * 5, 1, 0)


def test_rows_without_a_prompt_are_told_apart_by_what_is_learnt():
    assert Example("", "a").prompt_text != Example(" ", "b").prompt_text
    alone = tuple({"role": "assistant", "content": text} for text in "a")
    assert Example(messages=alone).prompt_text == "a"


def test_prompts_are_compared_without_case_and_blanks():
    assert prompt_hash("  What\n is  IT?") == prompt_hash("what is it?")
    assert normalised("\uff21 b") == "a b"
    assert prompt_hash("what is it") != prompt_hash("what is it?")


# -- prepare() ----------------------------------------------------------------------------------------------------


def test_prepare_makes_two_sides_and_a_plan(tmp_path):
    ready = prepared(tmp_path, rows(200) + rows(40), use_peft=True, eval_size=40)
    assert ready.eval_rows is not None
    assert len(ready.train_rows) + len(ready.eval_rows) == 240
    assert not set(ready.train_rows.prompt_hashes.tolist()) & set(ready.eval_rows.prompt_hashes.tolist())
    assert ready.max_length == 128  # the model's context
    assert ready.cadence.rows_per_step == 8
    assert ready.tokenizer.pad_token is not None


def test_prepare_takes_the_rows_given(tmp_path):
    gold = [{"prompt": "g?", "references": ["x"]}]
    ready = prepared(
        tmp_path, rows(50), eval_records=rows(20, start=100), gold_records=gold, max_train_rows=30, max_eval_rows=10
    )
    assert ready.eval_rows is not None
    assert (len(ready.train_rows), len(ready.eval_rows), len(ready.gold_rows)) == (30, 10, 1)
    none = prepared(tmp_path, rows(50), eval_size=0)
    assert none.eval_rows is None
    assert none.cadence.eval_steps is None


def test_prepare_takes_validation_files_of_a_folder(tmp_path):
    model = model_folder(tmp_path / "model")
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder / "train.jsonl", rows(30))
    write_rows(folder / "validation.jsonl", rows(10, start=50))
    ready = prepare(Recipe.load(None, {"model_name_or_path": str(model), "dataset": str(folder)}), CPU)
    assert ready.eval_rows is not None
    assert len(ready.eval_rows) == 10
    assert any("validation.jsonl" in note for note in ready.notes)


def test_prepare_plans_packed_blocks(tmp_path):
    packed = prepared(tmp_path, rows(120), packing=True)
    assert packed.cadence.steps_per_epoch < prepared(tmp_path, rows(120)).cadence.steps_per_epoch


def test_max_length_beyond_the_context_is_told(tmp_path):
    ready = prepared(tmp_path, max_length=4096)
    assert ready.max_length == 128
    assert any("4096" in note for note in ready.notes)
    assert prepared(tmp_path, max_length=64).max_length == 64


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda m: [f.unlink() for f in m.glob("tokenizer*")], "no tokenizer in this folder"),
        (lambda m: (m / "config.json").unlink(), "no config.json"),
        (lambda m: (m / "config.json").write_text("{"), "config cannot be read"),
        (lambda m: (m / "config.json").write_text('{"model_type": "zzz"}'), "config cannot be read"),
        (lambda m: (m / "config.json").write_text('{"model_type": "vit"}'), "does not write text"),
        (lambda m: (m / "model.safetensors").unlink(), "no weights"),
        (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer cannot be read"),
    ],
)
def test_model_folders_that_are_broken(tmp_path, break_it, told):
    model = model_folder(tmp_path / "model")
    break_it(model)
    with pytest.raises(ModelError, match=told) as refused:
        prepared(tmp_path, model=model)
    assert "\n" not in str(refused.value)
    assert "model" in str(refused.value)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        prepared(tmp_path, model=tmp_path / "nowhere")
    with pytest.raises(ModelError, match="is a file"):
        prepared(tmp_path, model=write_rows(tmp_path / "file", []))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter"):
        prepared(tmp_path, model=adapter)


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (rows(1), "1 row cannot be split"),
        ([{"prompt": "a"}] * 5, "prompts without completions"),
        ([{"prompt": "same", "completion": str(i)} for i in range(9)], "same prompt"),
        (
            [{"prompt": f"{i}" * 200, "completion": "a"} for i in range(9)],
            r"no row has a token left to learn, from .*jsonl, line \d+ on",
        ),
    ],
)
def test_rows_that_cannot_be_trained_on(tmp_path, records, told):
    with pytest.raises(DataError, match=told):
        prepared(tmp_path, records)


def test_a_broken_gold_set_is_called_one(tmp_path):
    with pytest.raises(DataError, match=r"^gold: .*gold\.jsonl"):
        prepared(tmp_path, gold_records=[{"nothing": 1}])


def test_an_end_token_that_does_not_exist(tmp_path):
    with pytest.raises(ModelError, match="eos_token"):
        prepared(tmp_path, eos_token="<none>")
    with pytest.raises(ModelError, match="pad_token"):
        prepared(tmp_path, pad_token="<none>")
    assert prepared(tmp_path, pad_token="</s>").tokenizer.pad_token_id == 2
    assert prepared(tmp_path, eos_token="<s>").tokenizer.eos_token_id == 1


def test_a_tokenizer_that_cannot_pad_gets_a_pad_token(tmp_path):
    tokenizer = word_tokenizer("a b c")
    tokenizer.pad_token = None
    records = [{"prompt": p, "completion": "a"} for p in ("a b", "b c", "c a", "a a", "b b", "c c")]
    ready = prepared(tmp_path, records, model=model_folder(tmp_path / "m", tokenizer))
    assert ready.tokenizer.pad_token == "<unk>"


def test_real_rows_keep_the_boundary():
    """Prompts that end in '>' keep their tokens in front of every completion, with both real base models."""
    from transformers import AutoTokenizer

    for name in ("stories260k", "tinystories-656k"):
        tokenizer = AutoTokenizer.from_pretrained(shared("models", name))
        from sightline.training.rows import load_examples

        examples = load_examples([str(shared("data", "banking77", "val.jsonl"))])
        ready = tokenise(examples, tokenizer, Tokenisation(max_length=512))
        alone = [len(tokenizer(e.prompt)["input_ids"]) for e in examples]
        assert (ready.lengths - ready.label_counts == alone).all()


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_seconds():
    import time

    tokenizer = byte_tokenizer()
    examples = [
        Example(f"Question: what comes after {i}, and why is that so?\n", f"After {i} comes {i + 1}.")
        for i in range(100_000)
    ]
    began = time.perf_counter()
    ready = tokenise(examples, tokenizer, LONG)
    assert len(ready) == 100_000
    assert time.perf_counter() - began < 60
