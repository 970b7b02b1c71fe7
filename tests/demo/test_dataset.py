"""The demo's rows: what they look like, where they come from, and that no text stands on two sides."""

import json
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from sightline.demo import demo_rows, write_demo_data
from sightline.demo.dataset import (
    FEW_ROWS,
    MODULES,
    MOST_CHARACTERS,
    MOST_PER_MODULE,
    NEAR_DUPLICATE,
    PROMPT_END,
    labelled_texts,
    normalised,
    split_of,
    summary_of,
)
from sightline.demo.near_duplicates import similarity
from sightline.errors import DataError


@pytest.fixture(scope="module")
def data():
    """Make the demo's rows of seed 0."""
    return demo_rows(seed=0)


def words_of(row):
    """Words that say whether two rows are nearly equal."""
    summary = row["prompt"].split(": ", 1)[1].removesuffix(PROMPT_END)
    return frozenset(normalised(summary).split())


def test_rows_have_the_fields_the_trainer_and_the_gold_score_read(data):
    """Prompt and completion to train on; prompt, references and group to score."""
    for row in data.train + data.few + data.validation:
        assert set(row) == {"prompt", "completion"}
        assert row["prompt"].endswith(">")
        assert row["completion"] in MODULES
    for row in data.gold:
        assert set(row) == {"prompt", "references", "group"}
        assert row["references"] == [row["group"]]


def test_sets_are_large_enough_to_measure_with(data):
    """200 gold rows tell 5 % from 30 % many standard errors apart; 1,500 training rows do not turn in three epochs."""
    assert len(data.train) >= 1500
    assert len(data.few) == FEW_ROWS
    assert len(data.validation) >= 150
    assert len(data.gold) >= 200
    modules = Counter(row["completion"] for row in data.train)
    assert len(modules) >= 25
    assert max(modules.values()) <= MOST_PER_MODULE
    assert max(modules.values()) / len(data.train) < 0.08, "answering the largest module would score"


def test_no_prompt_stands_on_two_sides(data):
    """Training, validation and gold set share no prompt; the few are training rows."""
    sides = [{row["prompt"] for row in rows} for rows in (data.train, data.validation, data.gold)]
    assert all(not (one & other) for one, other in combinations(sides, 2))
    assert {row["prompt"] for row in data.few} <= sides[0]


def test_no_nearly_equal_text_stands_on_two_sides(data):
    """Every pair across the sides is compared, without the shortcut that made the rows."""
    sides = [[words_of(row) for row in rows] for rows in (data.train, data.validation, data.gold)]
    for one, other in combinations(sides, 2):
        for a in one:
            assert not any(similarity(a, b) >= NEAR_DUPLICATE for b in other), sorted(a)


def test_a_wording_found_in_two_modules_is_left_out():
    """It has no right answer."""
    texts = labelled_texts_here()
    wordings = Counter(normalised(text.summary) for text in texts)
    assert max(wordings.values()) == 1
    assert "return repr self" not in wordings


def test_the_seed_orders_and_samples_the_training_rows_only(data):
    """Other seeds train on other rows in another order and are measured on the same ones."""
    other = demo_rows(seed=1)
    assert demo_rows(seed=0) == data
    assert other.train != data.train
    assert sorted(row["prompt"] for row in other.train) == sorted(row["prompt"] for row in data.train)
    assert other.few != data.few
    assert (other.validation, other.gold) == (data.validation, data.gold)


def test_rows_are_the_same_in_another_process(data):
    """No set order, hash seed or locale moves a row."""
    script = "import json; from sightline.demo import demo_rows; d = demo_rows(0); print(json.dumps([d.train, d.gold]))"
    environment = {"PYTHONHASHSEED": "123", "LC_ALL": "C", "PATH": ""}
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment).stdout
    assert json.loads(output) == [data.train, data.gold]


def test_making_rows_imports_no_torch_and_none_of_the_modules_read():
    """Sources are parsed, never run."""
    script = (
        "import sys; from sightline.demo import demo_rows; demo_rows(0); "
        "names = 'torch transformers turtle tkinter imaplib wsgiref mailbox'.split(); "
        "print([name for name in names if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    assert output.strip() == "[]"


def test_written_files_hold_the_rows(data, tmp_path):
    """JSON lines of the same rows; the folder is made."""
    files = write_demo_data(tmp_path / "new" / "folder", seed=0)
    for part in ("train", "few", "validation", "gold"):
        lines = getattr(files, part).read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == getattr(data, part)


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path):
    """A file in the way is named, without a traceback."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write the demo's rows"):
        write_demo_data(tmp_path / "file" / "rows")


def test_a_python_without_sources_is_a_data_error(monkeypatch, tmp_path):
    """An embedded Python is told what to do."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="no sources of the standard library"):
        demo_rows(0)


def test_a_library_with_most_modules_missing_is_a_data_error(tmp_path):
    """Too few rows to show anything are refused."""
    (tmp_path / "enum.py").write_text('def f():\n    """Some words that say something."""\n')
    with pytest.raises(DataError, match="1 docstrings in 1 of"):
        labelled_texts(tmp_path)


def test_missing_modules_and_broken_files_are_skipped(tmp_path):
    """A module that this Python lacks costs its rows and nothing else."""
    from sightline.demo.stdlib_text import read_module, source_files

    assert source_files(tmp_path / "absent.py") == []
    (tmp_path / "latin.py").write_bytes("# é".encode("latin-1") + b"\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert [read_module(tmp_path / name) for name in ("latin.py", "broken.py", "absent.py")] == [None, None, None]


def test_a_split_depends_on_the_words_alone():
    """Case, digits and punctuation do not move a text, and the shares are as stated."""
    assert split_of("Push  item onto HEAP, 3 times.") == split_of("push item onto heap times")
    places = Counter(split_of(f"text about {i:b} {chr(97 + i % 26) * (i // 26 + 1)}") for i in range(2000))
    assert 0.07 < places["gold"] / 2000 < 0.13
    assert 0.055 < places["validation"] / 2000 < 0.105


def test_a_summary_is_the_first_paragraph_cut_at_a_word():
    """On one line, within the limit."""
    assert summary_of("First line\n  goes on.\n\nSecond paragraph.") == "First line goes on."
    long = summary_of("word " * 100)
    assert len(long) <= MOST_CHARACTERS
    assert set(long.split()) == {"word"}
    assert len(summary_of("x" * 500)) == MOST_CHARACTERS


def labelled_texts_here():
    """Texts of the running Python."""
    from sightline.demo.stdlib_text import stdlib_root

    return labelled_texts(Path(stdlib_root()))
