"""Answers on disk: found again, never for another model, never over someone else's file."""

from __future__ import annotations

import json
import logging

import pytest

from sightline.errors import UsageError
from sightline.gold.answers import AnswerFile, answer_keys, answer_line, folder_digest
from sightline.gold.generation import Settings
from sightline.runs.gold import GoldExample, Prediction

SETTINGS = Settings(12, frozenset([0]))


def example(id: str = "1", prompt: str = "q") -> GoldExample:
    return GoldExample(id=id, prompt=prompt, references=("a",), target="a")


def test_answers_are_found_again(tmp_path):
    """By their key, also past a torn last line."""
    path = tmp_path / "new folder" / "gold.jsonl"
    file = AnswerFile(path)
    file.add("base", "k1", example(), Prediction("ä", 3, False))
    with path.open("a") as raw:
        raw.write('{"key":"k2","pre')
    file = AnswerFile(path)
    assert file.known({"1": "k1", "2": "k2"}) == {"1": Prediction("ä", 3, False)}
    file.add("base", "k3", example("3"), Prediction("c", 1))
    file.close()
    assert AnswerFile(path).known({"3": "k3"}) == {"3": Prediction("c", 1)}


def test_finished_file_holds_this_judge_only(tmp_path):
    """With scores, in order, replaced at once."""
    path = tmp_path / "gold.jsonl"
    file = AnswerFile(path)
    file.add("old", "k0", example("0"), Prediction("x"))
    file.add("base", "k1", example(), Prediction("a", 1))
    file.finish([answer_line("base", "k1", example(), Prediction("a", 1), {"exact_match": 1.0})])
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["scores"] == {"exact_match": 1.0}
    assert (line["model"], line["prompt"], line["references"], line["prediction"]) == ("base", "q", ["a"], "a")
    assert AnswerFile(path).known({"1": "k1"})


def test_a_file_of_something_else_is_never_written_over(tmp_path):
    """The gold set itself, for example."""
    path = tmp_path / "gold.jsonl"
    path.write_text('{"prompt": "q", "answer": "a"}\n')
    with pytest.raises(UsageError, match="holds no answers of an earlier judge"):
        AnswerFile(path)
    assert path.read_text().startswith('{"prompt"')


def test_a_disk_that_takes_no_answers_does_not_stop_the_judge(tmp_path, caplog):
    """It is said once."""
    (tmp_path / "folder").write_text("a file where a folder is wanted")
    file = AnswerFile(tmp_path / "folder" / "gold.jsonl")
    with caplog.at_level(logging.WARNING):
        for i in range(3):
            file.add("base", f"k{i}", example(), Prediction("a"))
        file.finish([])
    assert len(caplog.records) == 1
    assert file.known({"1": "k2"}) == {"1": Prediction("a")}


def test_text_that_is_no_text_is_kept_as_well_as_can_be(tmp_path):
    """A lone surrogate does not stop the file."""
    file = AnswerFile(tmp_path / "gold.jsonl")
    file.add("base", "k", example(), Prediction("a\ud800"))
    file.close()
    assert AnswerFile(tmp_path / "gold.jsonl").known({"1": "k"})["1"].text.startswith("a")


def test_keys_follow_from_everything_an_answer_follows_from():
    """Another model, prompt, limit, end or stop gives another key; the same gives the same."""
    key = answer_keys([example()], "m", SETTINGS, None)["1"]
    assert answer_keys([example()], "m", SETTINGS, None)["1"] == key
    others = [
        answer_keys([example()], "n", SETTINGS, None),
        answer_keys([example(prompt="r")], "m", SETTINGS, None),
        answer_keys([example()], "m", Settings(13, frozenset([0])), None),
        answer_keys([example()], "m", Settings(12, frozenset([1])), None),
        answer_keys([example()], "m", Settings(12, frozenset([0]), ("x",)), None),
    ]
    assert len({key, *(other["1"] for other in others)}) == 6


def test_folder_digest_follows_from_weights_not_from_logs(tmp_path, monkeypatch):
    """Large files are sampled."""
    for name, content in (("model.safetensors", b"w" * 5000), ("config.json", b"{}"), ("trainer_state.json", b"1")):
        (tmp_path / name).write_bytes(content)
    before = folder_digest(tmp_path)
    (tmp_path / "trainer_state.json").write_bytes(b"2")
    assert folder_digest(tmp_path) == before
    from sightline.gold import answers

    monkeypatch.setattr(answers, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(answers, "_SAMPLE_BYTES", 100)
    sampled = folder_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"w" * 4999 + b"x")
    assert folder_digest(tmp_path) != sampled
