"""Rows from files: every shape and format, and every way a file can be wrong answered with file and line."""

from __future__ import annotations

import json
import os

import polars as pl
import pytest

from sightline.errors import DataError
from sightline.training.rows import Columns, load_examples
from sightline.training.rows.files import SUFFIXES, read_records
from sightline.training.rows.loading import local_files, validation_files

from .synthetic import write_rows

PAIR = {"prompt": "a>", "completion": "b"}
INSTRUCTION = "### Instruction:\nadd\n\n"
SHAPES = [
    (PAIR, "a>", "b"),
    ({"instruction": "add", "input": "1 2", "output": "3"}, INSTRUCTION + "### Input:\n1 2\n\n### Response:\n", "3"),
    ({"instruction": "add", "input": "", "output": "3"}, INSTRUCTION + "### Response:\n", "3"),
    ({"instruction": "add", "output": 3}, INSTRUCTION + "### Response:\n", "3"),
    ({"question": "why?", "answer": "so"}, "Question: why?\nAnswer:\n", "so"),
    ({"text": "all of it"}, "all of it", "all of it"),
    ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}, "user: hi", "ho"),
    ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, "user: hi", "ho"),
    ({"prompt": [{"role": "user", "content": "hi"}], "completion": "ho"}, "user: hi", "ho"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "prompt", "target"), SHAPES)
def test_every_shape(tmp_path, record, prompt, target):
    path = write_rows(tmp_path / "rows.jsonl", [record, record])
    first, second = load_examples([str(path)])
    assert (first.prompt_text, first.target_text) == (prompt, target)
    assert (first.where, second.where) == (f"{path}, line 1", f"{path}, line 2")


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_reads_alike(tmp_path, suffix):
    records = [{"prompt": f'p{i}, "quoted"\nsecond line>', "completion": f"c{i}"} for i in range(5)]
    path = tmp_path / f"rows{suffix}"
    if suffix in (".jsonl", ".ndjson"):
        write_rows(path, records)
    elif suffix == ".json":
        path.write_text(json.dumps(records, indent=2))
    elif suffix == ".parquet":
        pl.DataFrame(records).write_parquet(path)
    else:
        pl.DataFrame(records).write_csv(path, separator="\t" if suffix == ".tsv" else ",")
    assert [(e.prompt, e.completion) for e in load_examples([str(path)])] == [
        (r["prompt"], r["completion"]) for r in records
    ]


def test_csv_names_the_line_a_row_begins_on(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\n"two\nlines",b\nc,d\n')
    assert [e.where for e in load_examples([str(path)])] == [f"{path}, line 2", f"{path}, line 4"]


def test_csv_with_semicolons(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt;completion\na;b\n")
    assert load_examples([str(path)])[0].completion == "b"


def test_text_is_a_row_a_line(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("first\n\n  \nsecond\r\nthird")
    assert [e.text for e in load_examples([str(path)])] == ["first", "second", "third"]


def test_nested_rows_from_parquet_and_csv(tmp_path):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    pl.DataFrame({"messages": [messages]}).write_parquet(tmp_path / "rows.parquet")
    pl.DataFrame({"messages": [json.dumps(messages)]}).write_csv(tmp_path / "rows.csv")
    for name in ("rows.parquet", "rows.csv"):
        assert load_examples([str(tmp_path / name)])[0].target_text == "ho"


def test_content_is_trusted_before_the_name(tmp_path):
    (tmp_path / "array.jsonl").write_text(json.dumps([PAIR, PAIR]))
    write_rows(tmp_path / "lines.json", [PAIR, PAIR])
    (tmp_path / "keyed.json").write_text(json.dumps({"version": "1", "data": [PAIR, PAIR]}))
    (tmp_path / "one.json").write_text(json.dumps([PAIR]))
    assert len(load_examples([str(tmp_path / "array.jsonl")])) == 2
    assert len(load_examples([str(tmp_path / "lines.json")])) == 2
    assert len(load_examples([str(tmp_path / "keyed.json")])) == 2
    assert len(load_examples([str(tmp_path / "one.json")])) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "é>", "completion": "ü"}, ensure_ascii=False) + "\n\n\n", encoding=encoding)
    assert load_examples([str(path)])[0].prompt == "é>"
    table = tmp_path / "rows.csv"
    table.write_text("prompt,completion\né,ü\n", encoding=encoding)
    assert load_examples([str(table)])[0].completion == "ü"


def test_columns_of_another_name(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"ask": "a>", "reply": "b", "text": "unused"}])
    [example] = load_examples([str(path)], Columns(prompt="ask", completion="reply"))
    assert (example.prompt, example.completion) == ("a>", "b")
    assert load_examples([str(path)], Columns(text="ask"))[0].text == "a>"


def test_several_sources_and_a_limit(tmp_path):
    one = write_rows(tmp_path / "a.jsonl", [PAIR] * 3)
    two = write_rows(tmp_path / "b.jsonl", [{"text": "x"}] * 3)
    assert len(load_examples([str(one), str(two)])) == 6
    assert len(load_examples([str(one), str(two)], limit=4)) == 4
    assert len(load_examples([str(tmp_path / "*.jsonl")])) == 6


def test_folders(tmp_path):
    write_rows(tmp_path / "train.jsonl", [PAIR] * 3)
    write_rows(tmp_path / "val.jsonl", [PAIR])
    assert [p.name for p in local_files(str(tmp_path))] == ["train.jsonl"]
    assert [p.name for p in validation_files([str(tmp_path)])] == ["val.jsonl"]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="no file of a known type"):
        local_files(str(other))
    write_rows(other / "test.jsonl", [PAIR])
    write_rows(other / "rows.jsonl", [PAIR])
    with pytest.raises(DataError, match="which of"):
        local_files(str(other))


def test_relative_to_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    write_rows(tmp_path / "rows.jsonl", [PAIR])
    assert len(load_examples(["rows.jsonl"], base=tmp_path)) == 1


BROKEN = [
    ("a.jsonl", b"", ["is empty"]),
    ("a.jsonl", b"\n \n\n", ["only white space"]),
    ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": "a", "comp', ["line 2", "not a JSON object"]),
    ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n\n[1]\n', ["line 3", "found a list"]),
    ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n"text"\n', ["line 2", "found text"]),
    ("a.jsonl", b'{"prompt": "a"}\n', ["line 1", "prompts without completions"]),
    ("a.jsonl", b'{"inputs": "a", "targets": "b"}\n', ["inputs, targets", "prompt+completion", "prompt_column"]),
    ("a.jsonl", b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', ["preference"]),
    ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n{"text": "a"}\n', ["line 2", "looks like text", "one shape"]),
    ("a.jsonl", b'{"prompt": "a", "completion": null}\n', ["line 1", "'completion'", "null"]),
    ("a.jsonl", b'{"prompt": {"x": 1}, "completion": "b"}\n', ["'prompt'", "must be text"]),
    ("a.jsonl", b'{"messages": "hello"}\n', ["list of messages"]),
    ("a.jsonl", b'{"messages": []}\n', ["list of messages"]),
    ("a.jsonl", b'{"messages": ["hello"]}\n', ["message 1", "role and content"]),
    ("a.jsonl", b'{"messages": [{"role": "user"}]}\n', ["message 1", "role"]),
    ("a.jsonl", b'{"prompt": "gr\xfcn", "completion": "b"}\n', ["line 1", "not a JSON object"]),
    ("a.jsonl", b"{" * 5000, ["line 1"]),
    ("a.json", b'{"a": 1}', ["found a"]),
    ("a.json", b'{\n"a": {"b": 1}\n}', ["keys a"]),
    ("a.json", b"[1, 2]", ["row 1", "found a number"]),
    ("a.json", b"[]", ["expected a list of objects"]),
    ("a.json", b"[{\n\n]", ["line 3", "not valid JSON"]),
    ("a.json", b"3", ["found a number"]),
    ("a.csv", b"prompt,completion\na,b,c\n", ["line 2", "3 fields", "2 (prompt, completion)"]),
    ("a.csv", b'prompt,completion\n"a,b\n', ["not a valid CSV"]),
    ("a.csv", b"prompt,prompt\na,b\n", ["stands twice"]),
    ("a.csv", b"prompt,completion\n", ["no rows found"]),
    ("a.csv", b"prompt,completion\ngr\xfcn,b\n", ["line 2", "UTF-8"]),
    ("a.csv", b"\n\n", ["only white space"]),
    ("a.txt", b" \n", ["only white space"]),
    ("a.parquet", b"PAR1 and then nothing", ["not a readable Parquet"]),
    ("a.xlsx", b"PK", ["are not read", ".jsonl"]),
    ("a", b"x", ["(none)"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "told"), BROKEN)
def test_broken_files_are_named_with_their_line(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        load_examples([str(path)])
    assert str(path) in str(refused.value)
    assert all(part in str(refused.value) for part in told), refused.value
    assert "\n" not in str(refused.value)


def test_a_huge_row_is_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "' + b"x" * 17 * 2**20 + b'", "completion": "b"}')
    with pytest.raises(DataError, match="one row of 17 MiB"):
        load_examples([str(path)])


def test_missing_files(tmp_path):
    write_rows(tmp_path / "train.jsonl", [PAIR])
    with pytest.raises(DataError, match=r"trian\.jsonl: no such file.*train\.jsonl"):
        load_examples([str(tmp_path / "trian.jsonl")])
    with pytest.raises(DataError, match="no such file"):
        list(read_records(tmp_path / "gone.jsonl"))
    if os.geteuid() != 0:
        (tmp_path / "train.jsonl").chmod(0)
        with pytest.raises(DataError, match="cannot be read"):
            load_examples([str(tmp_path / "train.jsonl")])


def test_a_dataset_of_the_hub(monkeypatch):
    """Ids go to the datasets library; whatever it raises becomes one line."""
    import datasets

    def load(name, config, split):
        assert (name, config, split) == ("owner/set", None, "train")
        return [PAIR, PAIR]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert load_examples(["owner/set"])[1].where == "owner/set (train), row 2"

    def fail(name, config, split):
        raise ConnectionError("no network\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"^owner/set: neither a file here nor .* no network$"):
        load_examples(["owner/set"])


def test_gold_rows_need_no_completion(tmp_path):
    path = write_rows(
        tmp_path / "gold.jsonl", [{"prompt": "a>", "references": ["b", "c"]}, {"prompt": "d>", "answer": "e"}]
    )
    columns = Columns(needs_completion=False)
    assert [e.target_text for e in load_examples([str(path)], columns)] == ["b", "e"]


def test_every_suffix_is_documented():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text().lower()
    assert all(suffix.lstrip(".") in page for suffix in SUFFIXES if suffix != ".ndjson")
