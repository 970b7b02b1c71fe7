"""Damaged journals: never a wrong value, what is damaged is named, what is intact before and after is read."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import MalformedLog
from sightline.journal import Recorder, read, read_lines
from sightline.journal.framing import decode, encode
from sightline.runs import Evaluation, ExampleLosses, Run, Status

STEPS = 60
SAMPLE = Path(__file__).parents[1] / "samples" / "sightline" / "1" / "run" / "sightline"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Return a finished run of 60 steps with an evaluation every ten."""
    output_dir = tmp_path_factory.mktemp("run")
    recorder = Recorder.open(output_dir, config={"lr": 0.1})
    draw = np.random.default_rng(0)
    counts = draw.integers(1, 50, 20)
    for step in range(1, STEPS + 1):
        recorder.log(step, {"loss": 100.0 + step, "learning_rate": 1.0 / step})
        if step % 10 == 0:
            losses = ExampleLosses(draw.gamma(2.0, 30.0, 20), counts)
            recorder.evaluation(Evaluation(step, 200.0 + step, losses, losses))
    recorder.end(Status.FINISHED)
    recorder.close()
    return output_dir


@pytest.fixture
def copy(recorded, tmp_path) -> Path:
    """Return a copy that may be damaged."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def journal_of(output_dir: Path) -> Path:
    return output_dir / "sightline" / "journal.jsonl"


def wrong_values(damaged: Run, intact: Run) -> list[str]:
    """Return every point and row of a damaged run that the intact one does not have."""
    wrong = []
    for name, curve in damaged.curves.items():
        for step, value in zip(curve.steps, curve.values, strict=True):
            if name not in intact.curves or intact.curves[name].at(int(step)) != value:
                wrong.append(f"{name} at {step}: {value}")
    truth = {e.step: e for e in intact.evaluations}
    for evaluation in damaged.evaluations:
        for name in ("losses", "probe"):
            rows, true_rows = getattr(evaluation, name), getattr(truth[evaluation.step], name)
            if rows is not None and not (
                np.array_equal(rows.loss_sums, true_rows.loss_sums)
                and np.array_equal(rows.token_counts, true_rows.token_counts)
            ):
                wrong.append(f"{name} of evaluation {evaluation.step}")
    return wrong


def points(run: Run) -> int:
    return sum(len(curve) for curve in run.curves.values())


def test_the_intact_run_has_no_damage(recorded):
    """The measure of the rest."""
    run = read(recorded)
    assert run.damage == () and run.status is Status.FINISHED and run.last_step == STEPS
    assert points(run) == STEPS * 2 + STEPS // 10 * 2 and len(run.evaluations) == STEPS // 10


@pytest.mark.parametrize("seed", range(300))
def test_a_flipped_bit_gives_no_wrong_value_and_is_named(recorded, copy, seed, trials):
    """300 random bits of the journal: at most one record is lost, and the damage says where."""
    tally = trials("D9", "single flipped bits in a journal: no wrong value, the line named, the rest read")
    intact = read(recorded)
    content = bytearray(journal_of(copy).read_bytes())
    at, bit = random.Random(seed).randrange(len(content)), random.Random(-seed - 1).randrange(8)
    content[at] ^= 1 << bit
    journal_of(copy).write_bytes(content)
    run = read(copy)
    assert wrong_values(run, intact) == []
    assert points(intact) - points(run) <= 3  # the most that one line holds
    line = content[:at].count(b"\n") + 1
    torn_newline = content[at] ^ (1 << bit) == 0x0A
    assert run.damage or (torn_newline and line == len(content.splitlines()))
    assert all("journal.jsonl line" in sentence for sentence in run.damage)
    tally.count(True)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_in_the_rows_leaves_out_those_rows_only(recorded, copy, seed, trials):
    """The CRC of each block is in the journal; loss sums of one evaluation or, for the counts, of one set go."""
    tally = trials("D9", "single flipped bits in the rows' losses: that evaluation's rows left out and named")
    intact = read(recorded)
    rows = copy / "sightline" / "examples.f32"
    content = bytearray(rows.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1 << random.Random(-seed - 1).randrange(8)
    rows.write_bytes(content)
    run = read(copy)
    assert wrong_values(run, intact) == [] and points(run) == points(intact)
    assert len(run.damage) == 1 and "examples.f32" in run.damage[0]
    assert len(run.evaluations) == len(intact.evaluations)
    tally.count(True)


@pytest.mark.parametrize("missing", ["removed", "a directory", "cut in half", "empty"])
def test_a_run_without_its_rows_is_still_a_run(recorded, copy, missing):
    """Losses by row are extra; every curve stays whole."""
    rows = copy / "sightline" / "examples.f32"
    half = rows.read_bytes()[: rows.stat().st_size // 2]
    rows.unlink()
    if missing == "a directory":
        rows.mkdir()
    elif missing != "removed":
        rows.write_bytes(half if missing == "cut in half" else b"")
    run, intact = read(copy), read(recorded)
    assert wrong_values(run, intact) == [] and points(run) == points(intact)
    assert run.damage and all("examples.f32" in sentence for sentence in run.damage)
    assert run.curves["probe_loss"].values.tolist() == intact.curves["probe_loss"].values.tolist()


def test_every_torn_end_reads_as_the_lines_before_it(copy, monkeypatch, trials):
    """Cut at every byte of the last three lines: all whole lines count, the torn one is named."""
    tally = trials("D9", "journals cut at every byte of their last three lines: all whole lines read")
    monkeypatch.setattr("sightline.journal.assembly.is_alive", lambda process: False)
    content = journal_of(copy).read_bytes()
    lines = content.splitlines(keepends=True)
    for size in range(len(content) - sum(map(len, lines[-3:])), len(content)):
        journal_of(copy).write_bytes(content[:size])
        run = read(copy)
        whole = content[:size].count(b"\n")
        complete = len(content[:size]) == sum(map(len, lines[: whole + 1])) - 1  # only the newline is missing
        got = list(read_lines(copy))
        assert len(got) == whole + complete
        torn = not complete and not content[:size].endswith(b"\n")
        assert len(run.damage) == torn
        assert run.status is (Status.FINISHED if len(got) == len(lines) else Status.FAILED)
        tally.count(True)


def test_a_resume_mends_a_torn_end(copy):
    """The torn piece ends with a newline, stays in the file and is named; new lines stand whole behind it."""
    content = journal_of(copy).read_bytes()
    journal_of(copy).write_bytes(content[:-30])
    recorder = Recorder.open(copy, resume=True, from_step=STEPS)
    recorder.log(STEPS + 1, {"loss": 1.0})
    recorder.end(Status.FINISHED)
    recorder.close()
    assert journal_of(copy).read_bytes().startswith(content[:-30] + b"\n{")
    run = read(copy)
    assert run.last_step == STEPS + 1 and len(run.damage) == 1 and "cut short" in run.damage[0]
    assert run.status is Status.FINISHED


def test_a_resume_completes_a_line_that_lacks_only_its_newline(copy):
    """Nothing was lost, nothing is damage."""
    journal_of(copy).write_bytes(journal_of(copy).read_bytes()[:-1])
    Recorder.open(copy, resume=True, from_step=STEPS).close()
    run = read(copy)
    assert run.damage == () and len(run.segments) == 2


@pytest.mark.parametrize(
    ("junk", "names"),
    [
        (b"x" * 10_000_000 + b"\n", "too long"),
        (b'{"kind":"log","seq":9' + b" " * 10_000_000 + b"\n", "cut short"),
        (b"\0" * 4096 + b"\n", "NUL bytes"),
        (b"\0" * 4096, "NUL bytes|cut short|not JSON"),
        (b"\xff\xfe\xfa garbage\n", "not UTF-8"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b'{"kind":"log","seq":7,"t":0,"step":5,"metrics":{"loss":9e9}}\n', "without a CRC"),
        (encode({"kind": "log", "seq": 12, "t": 0.0, "step": "five", "metrics": {"loss": 9e9}}), "not a line"),
        (encode({"kind": "log", "seq": 12, "t": 0.0, "step": 5, "metrics": {"loss": "many"}}), "not a line"),
        (encode({"kind": "log", "seq": 12, "t": 0.0, "step": 5, "metrics": [1]}), "not a line"),
        (encode({"kind": "eval", "seq": 12, "t": 0.0, "step": 5, "eval_loss": 1.0, "losses": 7}), "not a line"),
        (encode({"kind": "decision", "seq": 12, "t": 0.0, "step": 5, "diagnosis": {}, "decision": 3}), "not a line"),
        (encode({"kind": "segment", "seq": 12, "t": 0.0, "format": 1}), "not a line"),
    ],
)
def test_junk_between_lines_is_named_and_read_around(recorded, copy, junk, names):
    """Ten megabytes without a newline, NUL bytes, other people's text, intact lines that make no sense."""
    lines = journal_of(copy).read_bytes().splitlines(keepends=True)
    journal_of(copy).write_bytes(b"".join(lines[:12]) + junk + b"".join(lines[12:]))
    run, intact = read(copy), read(recorded)
    assert wrong_values(run, intact) == [] and points(run) == points(intact)
    assert len(run.damage) == 1 and "line 13 " in run.damage[0]
    assert any(word in run.damage[0] for word in names.split("|")), run.damage


def test_lines_that_are_gone_are_missed(recorded, copy):
    """Whole lines cut out leave no damaged line; their numbers are missing."""
    lines = journal_of(copy).read_bytes().splitlines(keepends=True)
    journal_of(copy).write_bytes(b"".join(lines[:20] + lines[27:]))
    run = read(copy)
    assert len(run.damage) == 1 and "7 records" in run.damage[0] and "line 21 " in run.damage[0]
    assert wrong_values(run, read(recorded)) == []


def test_a_zeroed_page_costs_the_lines_on_it(recorded, copy, trials):
    """60 random pages of 512 bytes: what stands outside is read."""
    tally = trials("D9", "zeroed pages in a journal: no wrong value, what stands outside is read")
    content, intact = journal_of(copy).read_bytes(), read(recorded)
    for seed in range(60):
        at = random.Random(seed).randrange(len(content) - 512)
        journal_of(copy).write_bytes(content[:at] + bytes(512) + content[at + 512 :])
        run = read(copy)
        hit = len(content[at : at + 512].split(b"\n")) + 1
        assert wrong_values(run, intact) == [] and run.damage
        assert points(intact) - points(run) <= 3 * hit
        tally.count(True)


def test_much_damage_is_summed_up(copy):
    """A hundred sentences, then a number."""
    with journal_of(copy).open("ab") as file:
        file.write(b"junk\n" * 5_000)
    damage = read(copy).damage
    assert len(damage) == 101 and damage[-1] == "… and 4,900 more"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["step", "loss", "kind"]), inner),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_records_that_only_look_right_are_no_danger(data):
    """Any field of any kind replaced by anything, under a right CRC: read, or named, never another exception."""
    lines = (SAMPLE / "journal.jsonl").read_bytes().splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    record = decode(lines[at])
    del record["crc"]
    place, key = record, data.draw(st.sampled_from(sorted(record)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(ANYTHING)
    lines[at] = encode(record)[:-1]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(SAMPLE / "examples.f32", folder)
        Path(folder, "journal.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        try:
            run = read(Path(folder))
            assert len(list(read_lines(Path(folder)))) >= len(lines) - 1
        except MalformedLog as error:
            assert key == "format" and "update it" in str(error)
            return
    assert all(isinstance(sentence, str) for sentence in run.damage)


@pytest.mark.parametrize("content", [b"", b"junk\n" * 3, b"\0" * 100])
def test_a_journal_without_one_intact_line_is_malformed(tmp_path, content):
    """It says which file, and what is wrong with the first line."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(MalformedLog, match=r"journal\.jsonl: no intact line"):
        read(tmp_path)
