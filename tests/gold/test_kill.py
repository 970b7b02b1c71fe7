"""A judge that is killed goes on: what was answered is not asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from sightline.gold.answers import AnswerFile
from tests.gold import tiny
from tests.gold.test_command import judge  # noqa: F401 - a fixture

ROWS = 120
KILLED_AFTER = 25


def whole_lines(path: Path) -> list[dict]:
    """Return the answers that are wholly written."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]


def killed_judge(words: list[str], answers: Path) -> list[dict]:
    """Start a judge and SIGKILL it once some answers are on disk; return them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", "judge", *words],
        cwd=answers.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while len(whole_lines(answers)) < KILLED_AFTER:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    return whole_lines(answers)


def test_a_killed_judge_goes_on_and_asks_nothing_twice(judge, tiny_models, tmp_path, monkeypatch):  # noqa: F811
    """Killed in the middle of the base model's answers, counted by the answers on disk."""
    gold = tiny.write_rows(tmp_path / "gold.jsonl", tiny.questions(ROWS))
    answers = tmp_path / "answers.jsonl"
    words = [str(gold), "--tuned", str(tiny_models.whole), "--base", str(tiny_models.base), "--forgetting", "none"]
    words += ["--predictions", str(answers), "--batch-size", "2"]
    first = killed_judge(words, answers)
    assert KILLED_AFTER <= len(first) < ROWS, "it was to be killed in the middle"
    answered = {line["key"]: line["prediction"] for line in first}
    assert len(answered) == len(first)
    added: list[str] = []
    add = AnswerFile.add

    def counted(self, model, key, example, prediction):
        added.append(key)
        add(self, model, key, example, prediction)

    monkeypatch.setattr(AnswerFile, "add", counted)
    code, out, err = judge(*words, "--json")
    assert code == 0, err
    assert len(added) == len(set(added)) == 2 * ROWS - len(first)
    assert not set(added) & set(answered)
    finished = whole_lines(answers)
    assert len(finished) == 2 * ROWS
    kept = {line["key"]: line["prediction"] for line in finished if line["key"] in answered}
    assert kept == answered
    assert json.loads(out)["n"] == ROWS
