"""What is recognised, followed, lifted from older formats; how a run without an end is judged."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sightline.errors import MalformedLog, SourceError
from sightline.journal import NAME, JournalFollower, Recorder, lines, read, read_lines, recognises
from sightline.journal.framing import decode, encode
from sightline.journal.lines import AlertLine, DecisionLine, EndLine, LogLine, RunLine, SegmentLine
from sightline.runs import Action, Best, Decision, Diagnosis, Evaluation, Finding, Onset, Phase, Severity, Status

from .comparing import plain


def journal(output_dir: Path) -> Path:
    return output_dir / "sightline" / "journal.jsonl"


@pytest.fixture
def output_dir(tmp_path) -> Path:
    """Return the folder of a finished run of three steps."""
    folder = tmp_path / "outputs"
    recorder = Recorder.open(folder, config={"lr": 0.1}, name="three steps", max_steps=3)
    for step in (1, 2, 3):
        recorder.log(step, {"loss": 1.0 / step})
    recorder.end(Status.FINISHED, "all steps done")
    recorder.close()
    return folder


def rewritten(path: Path, change) -> None:
    """Rewrite a journal with each record changed and its CRC made right again."""
    records = [decode(line) for line in path.read_bytes().splitlines()]
    out = b""
    for record in records:
        del record["crc"]
        changed = change(record)
        out += encode(changed) if changed is not None else b""
    path.write_bytes(out)


def test_folder_subfolder_file_and_any_name_read_the_same(output_dir, tmp_path):
    """Content counts, not names."""
    whole = read(output_dir)
    assert whole.name == "three steps" and whole.format == NAME == "journal" and whole.max_steps == 3
    assert whole.end_reason == "all steps done" and whole.path == output_dir
    elsewhere = tmp_path / "unknown"
    shutil.copy(journal(output_dir), elsewhere)
    for path in (output_dir / "sightline", journal(output_dir), elsewhere):
        assert recognises(path)
        run = read(path)
        assert run.path == path and plain(replace(run, path=whole.path)) == plain(whole)


@pytest.mark.parametrize("content", [b"", b'{"step": 1, "loss": 2}\n', b"kind,seq\nrun,0\n", b"\0" * 99, None])
def test_what_is_no_journal_is_not_recognised(tmp_path, content):
    """Nor is an empty folder, a missing path, a pipe."""
    path = tmp_path / "x.jsonl"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert not recognises(path) and not recognises(tmp_path) and not recognises(tmp_path / "nowhere")


def test_a_journal_damaged_at_its_beginning_is_recognised(output_dir):
    """By any of its first lines."""
    content = journal(output_dir).read_bytes()
    journal(output_dir).write_bytes(b"\0" * 300 + content[300:])
    assert recognises(output_dir)


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "pipe"])
def test_a_path_without_a_journal_is_a_source_error(tmp_path, kind):
    """With the path in its one line."""
    path = tmp_path / "x"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(SourceError, match=str(path)):
        read(path)


def test_lines_come_typed_and_in_order(tmp_path):
    """Decisions and alerts are there for whoever shows them, superseded lines included."""
    finding = Finding("overfitting", Severity.WARNING, "it turned", 5, 9, 0.9, {"rise": 0.1, "n": 3, "x": None})
    diagnosis = Diagnosis(Phase.OVERFITTING, 0.98, (finding,), Onset(5, 4, 6), Best(5, 1.5, (4, 5)), 0.4)
    decision = Decision(Action.STOP, 5, "checkpoint-5", "enough")
    recorder = Recorder.open(tmp_path)
    recorder.log(9, {"loss": float("inf")})
    recorder.decision(9, diagnosis, decision)
    recorder.alert(None, finding)
    recorder.segment(2)
    recorder.end(Status.STOPPED, "enough")
    recorder.close()
    got = list(read_lines(tmp_path))
    assert [type(line) for line in got] == [
        RunLine,
        SegmentLine,
        LogLine,
        DecisionLine,
        AlertLine,
        SegmentLine,
        EndLine,
    ]
    assert [line.seq for line in got] == list(range(7))
    assert got[2].metrics == {"loss": float("inf")} and got[3].decision == decision and got[3].diagnosis == diagnosis
    assert got[4].finding == finding and got[4].step is None
    assert (got[6].status, got[6].reason) == (Status.STOPPED, "enough")
    assert read(tmp_path).last_step is None


def test_following_reads_each_line_once(output_dir):
    """Whatever pieces the file grows by, the follower ends with the run that read() sees."""
    content = journal(output_dir).read_bytes()
    whole = read(output_dir)
    journal(output_dir).write_bytes(b"")
    follower, seen = JournalFollower(output_dir), []
    for at in range(0, len(content), 97):
        with journal(output_dir).open("ab") as file:
            file.write(content[at : at + 97])
        seen += follower.poll()
    assert follower.poll() == []
    assert [line.seq for line in seen] == list(range(len(content.splitlines())))
    assert plain(follower.run()) == plain(whole)


def test_following_notices_that_the_run_was_overwritten(output_dir):
    """Even if the new journal is longer than the old one was."""
    follower = JournalFollower(output_dir)
    assert len(follower.poll()) == 6
    recorder = Recorder.open(output_dir, overwrite=True)
    for step in range(50):
        recorder.log(step, {"loss": 7.0})
    assert len(follower.poll()) == 52
    assert follower.run().curves["loss"].values.tolist() == [7.0] * 50
    recorder.close()


def test_following_goes_on_after_the_file_is_gone_and_back(output_dir):
    """A poll in between says what is wrong; the next one reads on."""
    follower = JournalFollower(output_dir)
    follower.poll()
    content = journal(output_dir).read_bytes()
    journal(output_dir).unlink()
    with pytest.raises(SourceError, match=r"journal\.jsonl"):
        follower.poll()
    journal(output_dir).write_bytes(content)
    assert follower.poll() == []


def test_an_older_format_is_lifted_line_by_line(output_dir, monkeypatch):
    """A version is a number in the run line and a function for the next one."""

    def zero_to_one(record):
        if record["kind"] == "log":
            record["metrics"] = record.pop("values")
        return record

    def as_zero(record):
        if "format" in record:
            record["format"] = 0
        if record["kind"] == "log":
            record["values"] = record.pop("metrics")
        return record

    today = plain(read(output_dir))
    rewritten(journal(output_dir), as_zero)
    monkeypatch.setitem(lines.UPGRADES, 0, zero_to_one)
    assert plain(read(output_dir)) == today


def test_a_newer_format_is_refused_with_what_to_do(output_dir):
    """Reading half of what one does not understand would be worse."""
    rewritten(journal(output_dir), lambda record: record | {"format": 2} if "format" in record else record)
    with pytest.raises(MalformedLog, match=r"format 2.*update"):
        read(output_dir)
    with pytest.raises(MalformedLog, match=r"format 2.*update"):
        Recorder.open(output_dir, resume=True)


def test_kinds_and_keys_nobody_knows_are_skipped(output_dir):
    """A later Sightline may add some without a new format."""
    before = plain(read(output_dir))
    rewritten(journal(output_dir), lambda record: record | {"mood": "good"})
    assert plain(read(output_dir)) == before
    content = journal(output_dir).read_bytes()
    journal(output_dir).write_bytes(content + encode({"kind": "poem", "seq": 6, "t": 0.0, "verse": 1}))
    assert plain(read(output_dir)) == before


@pytest.mark.parametrize(
    ("age_s", "process", "status"),
    [
        (0, {}, Status.RUNNING),
        (0, {"start_ticks": 1}, Status.FAILED),
        (0, {"pid": 2**22 - 1}, Status.FAILED),
        (9999, {}, Status.RUNNING),
        (5, {"boot_id": "another", "host": "another"}, Status.RUNNING),
        (-20, {"boot_id": "another"}, Status.RUNNING),
        (9999, {"boot_id": "another", "host": "another"}, Status.FAILED),
        (9999, {"pid_namespace": "pid:[1]"}, Status.FAILED),
        (-9999, {"boot_id": "another"}, Status.FAILED),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_run_without_an_end_runs_or_has_died(output_dir, age_s, process, status):
    """Here the process is looked at; on another machine or in a container the age of the file counts."""
    rewritten(
        journal(output_dir),
        lambda record: (
            None
            if record["kind"] == "end"
            else record | ({"process": record["process"] | process} if "process" in record else {})
        ),
    )
    then = time.time() - age_s
    os.utime(journal(output_dir), (then, then))
    run = read(output_dir)
    assert run.status is status
    assert run.end_reason == (
        None if status is Status.RUNNING else "the process died without an end line, at or after step 3"
    )


def test_every_line_is_json_for_other_tools(output_dir):
    """No NaN, no infinity, nothing a strict parser refuses."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    recorder = Recorder.open(output_dir, resume=True, from_step=3)
    recorder.log(4, {"loss": float("nan"), "grad_norm": float("-inf"), "x": float("inf")})
    recorder.close()
    records = [json.loads(line, parse_constant=refuse) for line in journal(output_dir).read_text().splitlines()]
    logged = next(record for record in records if record.get("step") == 4)
    assert logged["metrics"] == {"loss": "NaN", "grad_norm": "-Infinity", "x": "Infinity"}
    assert all(next(iter(record)) == "kind" and list(record)[-1] == "crc" for record in records)


def test_a_hundred_thousand_lines_are_read_in_a_moment(tmp_path):
    """Well under a second on a quiet machine; three here, for a busy one."""
    recorder = Recorder.open(tmp_path)
    metrics = {f"metric_{i}": 0.1 * i for i in range(8)}
    for step in range(100_000):
        recorder.log(step, metrics)
    recorder.end(Status.FINISHED)
    recorder.close()
    start = time.process_time()
    run = read(tmp_path)
    assert time.process_time() - start < 3.0
    assert len(run.curves) == 8 and len(run.curves["metric_3"]) == 100_000


@pytest.mark.parametrize("reported", [1.25, math.nan])
def test_the_trainers_number_of_a_pass_is_no_second_evaluation(tmp_path, reported):
    """It is logged before the exact loss of the same pass, which takes its place; another one would be kept beside it."""
    recording = Recorder.open(tmp_path)
    for step, logged in ((1, reported), (2, 9.0)):
        recording.log(step, {"eval_loss": logged})
        recording.evaluation(Evaluation(step, 1.0, reported_loss=reported))
    recording.close()
    curve = read(tmp_path).eval_loss
    assert curve.values.tolist() == [1.0, 1.0]
    assert (curve.replaced.steps.tolist(), curve.replaced.values.tolist()) == ([2], [9.0])
