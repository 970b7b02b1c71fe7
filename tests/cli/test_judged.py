"""A second look at a folder of runs: what is as it was is remembered, what changed is read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sightline.cli import judged, main
from sightline.sources import Found
from sightline.sources.cache import SETTLED_NS
from tests.cli.logs import FALLING, trainer_state


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of three runs that were written a while ago, with a cache of its own."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    for name, evals in (("a", FALLING), ("b", None), ("c", FALLING)):
        path = tmp_path / "runs" / name / "trainer_state.json"
        settled(trainer_state(path) if evals is None else trainer_state(path, evals))
    return tmp_path / "runs"


def settled(path: Path) -> None:
    """Make a file look as if it was written a while ago."""
    long_ago = time.time_ns() - 10 * SETTLED_NS
    os.utime(path, ns=(long_ago, long_ago))


@pytest.fixture
def read_places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the places that are really read."""
    places: list[str] = []
    read = Found.read

    def counted(found: Found):
        places.append(found.path.name)
        return read(found)

    monkeypatch.setattr(Found, "read", counted)
    return places


def documents(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, object]]:
    """Return the runs of `sightline read --json`."""
    main(["read", "--json", *map(str, words)])
    return json.loads(capsys.readouterr().out)["runs"]


def test_runs_as_they_were_are_not_read_again(
    folder: Path, capsys: pytest.CaptureFixture[str], read_places: list[str]
) -> None:
    """The second answer is the first one; a run that changed, or is asked for by another curve, is read."""
    first = documents(capsys, folder)
    assert read_places == ["a", "b", "c"] and [run["phase"] for run in first][1] == "overfitting"
    assert documents(capsys, folder) == first and len(read_places) == 3
    settled(trainer_state(folder / "b" / "trainer_state.json", FALLING))
    again = documents(capsys, folder)
    assert read_places[3:] == ["b"] and again[1]["phase"] != "overfitting" and again[0] == first[0]
    documents(capsys, folder, "--eval-metric", "loss")
    assert len(read_places) == 7


def test_table_and_page_are_the_same_from_memory(
    folder: Path, capsys: pytest.CaptureFixture[str], read_places: list[str]
) -> None:
    """What a person sees does not tell whether runs were read; the page of a single one has its curves."""
    assert main(["read", str(folder)]) == 1
    first = capsys.readouterr().out
    assert main(["read", str(folder)]) == 1 and capsys.readouterr().out == first and len(read_places) == 3
    only = folder.parent / "only"
    only.mkdir()
    (folder / "b").rename(only / "b")
    for _ in range(2):
        main(["read", str(only)])
        page = capsys.readouterr().out
        assert "OVERFITTING" in page and "validation loss" in page


def test_other_code_judges_anew(
    folder: Path, capsys: pytest.CaptureFixture[str], read_places: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer counts only for the code that gave it."""
    documents(capsys, folder)
    monkeypatch.setattr(judged, "_code", lambda: "another")
    documents(capsys, folder)
    assert len(read_places) == 6


def test_what_may_change_by_itself_is_not_remembered(
    folder: Path, capsys: pytest.CaptureFixture[str], read_places: list[str]
) -> None:
    """A broken log is tried again each time, and a single file never asks the cache."""
    (folder / "a" / "trainer_state.json").write_text('{"log_history": 3}')
    settled(folder / "a" / "trainer_state.json")
    documents(capsys, folder)
    documents(capsys, folder)
    assert read_places == ["a", "b", "c", "a"]
    cache = folder.parent / "cache"
    for file in cache.iterdir():
        file.unlink()
    documents(capsys, folder / "b" / "trainer_state.json")
    assert not list(cache.iterdir())
