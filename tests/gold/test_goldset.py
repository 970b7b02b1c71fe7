"""Reading a gold set: every shape it may have, and what is said of bad rows."""

from __future__ import annotations

import pytest

from sightline.errors import DataError
from sightline.gold.goldset import GoldSet, read_gold


def gold(*rows, **kwargs) -> GoldSet:
    """Read rows as if from lines of a file."""
    return read_gold(((row, f"gold.jsonl, line {i}") for i, row in enumerate(rows, start=1)), "gold.jsonl", **kwargs)


def kinds(gold_set: GoldSet) -> list[str]:
    return [finding.kind for finding in gold_set.findings]


@pytest.mark.parametrize(
    ("row", "references", "target"),
    [
        ({"prompt": "q", "references": ["a", "b"]}, ("a", "b"), "a"),
        ({"prompt": "q", "references": "a"}, ("a",), "a"),
        ({"prompt": "q", "references": '["a", "b"]'}, ("a", "b"), "a"),
        ({"prompt": "q", "completion": "a"}, ("a",), "a"),
        ({"prompt": "q", "completion": "2 + 2 = 4. #### 4", "answer": "4"}, ("4",), "2 + 2 = 4. #### 4"),
        ({"prompt": "q", "answer": 4}, ("4",), "4"),
        ({"prompt": "q", "output": "a"}, ("a",), "a"),
        ({"prompt": "q", "completion": "[null, 1]"}, ("[null, 1]",), "[null, 1]"),
        ({"prompt": "q", "answers": {"text": ["a", "a", "b"], "answer_start": [1, 2, 3]}}, ("a", "b"), "a"),
        ({"prompt": "q", "answers": [{"text": "a"}, {"text": "b"}]}, ("a", "b"), "a"),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            ("a",),
            "a",
        ),
    ],
)
def test_right_answers_are_found_in_any_of_their_columns(row, references, target):
    """References, one or many, and the text whose likelihood is measured."""
    (example,) = gold(row).examples
    assert example.references == references
    assert example.target == target


def test_messages_become_prompt_and_reference():
    """The last assistant message is the right answer, what stands before it the conversation."""
    (example,) = gold(
        {"messages": [{"from": "human", "value": "hi"}, {"role": "assistant", "content": "hello"}]}
    ).examples
    assert example.references == ("hello",)
    assert example.messages == ({"role": "user", "content": "hi"},)
    assert example.prompt == "user: hi"


@pytest.mark.parametrize("answer", ["red", 0, "0", "A", "a"])
def test_a_choice_may_be_named_by_itself_its_index_or_its_letter(answer):
    """All of these say that the first choice is right."""
    (example,) = gold({"prompt": "q", "choices": ["red", "blue"], "answer": answer}).examples
    assert example.references == ("red",)
    assert example.choices == ("red", "blue")


def test_id_group_and_metric_are_kept():
    """Optional columns."""
    (example,) = gold({"prompt": "q", "answer": "a", "id": 7, "group": "g", "metric": "token_f1"}).examples
    assert (example.id, example.group, example.metric) == ("7", "g", "token_f1")


def test_ids_follow_from_the_content_and_not_from_the_order():
    """A row keeps its id when the file is sorted otherwise."""
    rows = [{"prompt": f"q{i}", "answer": "a"} for i in range(5)]
    forward, backward = gold(*rows), gold(*reversed(rows))
    assert {e.prompt: e.id for e in forward.examples} == {e.prompt: e.id for e in backward.examples}
    assert forward.digest != backward.digest


def test_rows_without_a_right_answer_are_left_out_and_named():
    """Empty references are no references."""
    read = gold({"prompt": "q", "references": []}, {"prompt": "r", "answer": " "}, {"prompt": "s", "answer": "a"})
    assert [e.prompt for e in read.examples] == ["s"]
    assert kinds(read) == ["gold_no_reference"]
    assert "line 1" in read.findings[0].message
    assert read.findings[0].evidence == {"rows": 2, "kept": 1}


def test_equal_rows_count_once():
    """The same question asked twice shows nothing more."""
    read = gold({"prompt": "q", "answer": "a"}, {"prompt": "q", "answer": "a"}, {"prompt": "q", "answer": "b"})
    assert [e.references for e in read.examples] == [("a",), ("b",)]
    assert kinds(read) == ["gold_duplicate", "gold_same_prompt"]


def test_other_columns_are_made_a_prompt_by_the_caller():
    """Alpaca's and question columns have templates that training owns."""
    (example,) = gold({"question": "q", "answer": "a"}, prompt_of=lambda row, where: f"Q: {row['question']}").examples
    assert example.prompt == "Q: q"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([{"prompt": "q"}, {"prompt": "r", "references": []}], "none of its 2 rows has a right answer"),
        ([{"answer": "a"}], "line 1: no prompt"),
        ([{"prompt": "", "answer": "a"}], "line 1: prompt must be text, found empty text"),
        ([{"prompt": 5, "answer": "a"}], "line 1: prompt must be text, found int"),
        ([{"prompt": "q", "answer": {"x": 1}}], "line 1: answer must be text or a list of texts, found dict"),
        ([{"prompt": "q", "answer": True}], "found bool"),
        ([{"messages": "hi", "answer": "a"}], "messages must be a list"),
        ([{"messages": [{"role": "user"}], "answer": "a"}], "message 1 needs role and content"),
        (
            [{"prompt": "q", "answer": "a", "id": 1}, {"prompt": "r", "answer": "a", "id": 1}],
            "line 2: the id '1' stands at",
        ),
    ],
)
def test_bad_rows_are_refused_with_their_place(rows, words):
    """Each message says where and what was expected."""
    with pytest.raises(DataError, match=words):
        gold(*rows)
