"""The sample of format 1: it is read as it always was, and written as it always was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from sightline.journal import FORMAT, read, read_lines
from sightline.journal.lines import KINDS
from sightline.sources import read as read_anything

SAMPLE = Path(__file__).parents[1] / "samples" / "sightline" / "1"
_spec = importlib.util.spec_from_file_location("make_sightline_sample", SAMPLE / "make.py")
assert _spec is not None and _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def test_the_sample_reads_to_its_golden_run():
    """Under its own path, and by whoever asks for any log."""
    golden = json.loads((SAMPLE / "run.golden.json").read_text())
    assert json.loads(json.dumps(make.golden(read(SAMPLE / "run")))) == golden
    assert json.loads(json.dumps(make.golden(read_anything(SAMPLE / "run")))) == golden


def test_the_sample_holds_every_kind_of_line():
    """So that none can change unnoticed."""
    assert {line.kind for line in read_lines(SAMPLE / "run")} == set(KINDS)


def test_the_recorder_of_today_writes_the_sample_byte_for_byte(tmp_path):
    """Whoever changes a byte of the format gives it a new number, an upgrade and a sample."""
    assert FORMAT == 1
    make.write_sample(tmp_path)
    for name in ("journal.jsonl", "examples.f32"):
        assert (tmp_path / "sightline" / name).read_bytes() == (SAMPLE / "run" / "sightline" / name).read_bytes()
