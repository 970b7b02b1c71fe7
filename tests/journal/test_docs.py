"""docs/journal.md is the contract: every field is in it, and its examples run."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sightline.journal.assembly import LINES_DROPPED, VALUE_REFUSED
from sightline.journal.lifetime import HEARTBEAT_S
from sightline.journal.lines import FORMAT, KINDS
from sightline.journal.writer import WAITING_LIMIT

PAGE = Path(__file__).parents[2] / "docs" / "journal.md"
SAMPLE = Path(__file__).parents[1] / "samples" / "sightline" / "1"
TEXT = PAGE.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_kind_is_documented(kind):
    """And no field that does not exist."""
    section = TEXT.split(f"\n### `{kind}`\n")[1].split("\n### ")[0].split("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    fields = {field.name for field in dataclasses.fields(KINDS[kind])}
    assert documented == fields - {"seq", "t"}


def test_the_numbers_on_the_page_are_those_of_the_code():
    """They are promises."""
    assert f"## The format, version {FORMAT}" in TEXT
    assert f"Written after {HEARTBEAT_S:.0f} seconds" in TEXT
    assert f"up to {WAITING_LIMIT >> 20} MiB" in TEXT
    assert f"`{VALUE_REFUSED}`" in TEXT and f"`{LINES_DROPPED}`" in TEXT


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", [code for code in _blocks("python") if "train_step()" not in code])
def test_the_python_examples_run(code, monkeypatch):
    """In the folder of the sample, whose last validation loss they must find."""
    if "duckdb" in code:
        pytest.importorskip("duckdb")
    monkeypatch.chdir(SAMPLE)
    names: dict[str, object] = {"Path": Path}
    exec(compile(code, str(PAGE), "exec"), names)
    if "polars" in code:
        assert names["loss"].rows()[:3] == [(5, 2.0), (10, 1.5), (15, 1.2)]
    elif "duckdb" in code:
        assert names["loss"][:2] == [("run/sightline/journal.jsonl", 5, 2.0), ("run/sightline/journal.jsonl", 10, 1.5)]
    elif "np.fromfile" in code:
        assert len(names["rows"]) == 6 and abs(names["rows"].sum() / 64 - 2.5078125) < 1e-6
    else:
        assert names["run"].name == "sample" and len(names["new"]) == 40


def test_the_recording_example_runs(tmp_path, monkeypatch):
    """The very text of the page."""
    import sightline

    (code,) = [code for code in _blocks("python") if "train_step()" in code]
    monkeypatch.chdir(tmp_path)
    names = {"train_step": lambda: 1.0, "schedule": lambda step: 1e-3, "sums": [2.0, 4.0], "counts": [1, 2]}
    exec(compile(code, str(PAGE), "exec"), names)
    run = sightline.read("outputs/a")
    assert run.last_step == 1000 and run.eval_loss is not None and run.eval_loss.values.tolist() == [2.0] * 10


@pytest.mark.parametrize("line", [line for line in "".join(_blocks("sh")).splitlines() if line.startswith("jq")])
def test_the_jq_examples_run(line):
    """Where jq is installed."""
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    result = subprocess.run(["bash", "-c", line], cwd=SAMPLE, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] in (
        "60\t0.42857142857142855",
        "stopped: validation loss has turned up since step 40",
    )


def test_the_sql_example_runs(tmp_path, monkeypatch):
    """Over the Parquet of two runs."""
    duckdb = pytest.importorskip("duckdb")
    from sightline.journal import rebuild

    for name in ("a", "b"):
        shutil.copytree(SAMPLE / "run", tmp_path / name)
        rebuild(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (query,) = _blocks("sql")
    assert dict(duckdb.sql(query).fetchall())["eval_loss"] == pytest.approx(2.00625)
