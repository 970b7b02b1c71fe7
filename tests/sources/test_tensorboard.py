"""Event files: scalars of both styles, restarts, folders, and every kind of damage."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import MalformedLog
from sightline.runs import Run
from sightline.sources import read, read_runs
from sightline.sources.crc32c import masked_crc32c
from sightline.sources.tensorboard import Parser
from tests.sources.writers import event, event_file, field, framed

NAME = "events.out.tfevents.1700000000.host.1.0"


def losses(steps: range) -> list[bytes]:
    """Return a record a step."""
    return [event(step, {"train/loss": 1.0 / (step + 1)}) for step in steps]


def steps_of(run: Run, name: str = "loss") -> list[int]:
    """Return the steps of one curve."""
    return run.curves[name].steps.tolist()


def test_crc_of_the_castagnoli_check_value() -> None:
    """The CRC of "123456789" is the published check value, masked."""
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("tensor", [False, True])
def test_scalars_of_both_styles(tmp_path: Path, tensor: bool) -> None:
    """Simple values and tensors are scalars; several may stand in one record; step 0 needs no field."""
    records = [
        event(s, {"train/loss": 2.0 - s / 1000, "eval/loss": 3.0}, tensor=tensor) for s in (0, 1, 127, 128, 70000)
    ]
    run = read(event_file(tmp_path / NAME, records))
    assert steps_of(run) == [0, 1, 127, 128, 70000] == steps_of(run, "eval_loss")
    np.testing.assert_allclose(run.curves["loss"].values, [2.0, 1.999, 1.873, 1.872, -68.0], rtol=1e-6)
    assert run.damage == ()


def test_records_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    """Images, histograms, text and records larger than a scalar's are not read."""
    image = field(5, field(1, field(1, b"image") + field(4, b"x" * 200_000)))
    text = field(5, field(1, field(1, b"text") + field(8, b"\x08\x07" + field(8, b"words"))))
    double = field(5, field(1, field(1, b"vector") + field(8, b"\x08\x01" + field(5, struct.pack("<2f", 1, 2)))))
    records = losses(range(3)) + [framed(content) for content in (image, text, double)] + losses(range(3, 6))
    run = read(event_file(tmp_path / NAME, records))
    assert list(run.curves) == ["loss"] and steps_of(run) == [0, 1, 2, 3, 4, 5]
    assert run.damage == ()


def test_many_tags_of_one_length_are_told_apart(tmp_path: Path) -> None:
    """Tags that share a length share a layout, not a curve."""
    names = [f"layer/{i:03d}" for i in range(300)] + ["train/loss"]
    records = [event(step, {name: i + step / 8}) for step in range(4) for i, name in enumerate(names)]
    curves = read(event_file(tmp_path / NAME, records)).curves
    assert len(curves) == 301
    for i in (0, 150, 299):
        np.testing.assert_array_equal(curves[f"layer/{i:03d}"].values, i + np.arange(4) / 8)


@pytest.mark.parametrize("place", [0, 4, 9, 13, 20, 30, 40, -3])
def test_a_flipped_bit_costs_one_record(tmp_path: Path, place: int) -> None:
    """A bad length or a bad checksum loses its record; those before and after are read, and the damage is reported."""
    records = losses(range(40))
    broken = bytearray(records[20])
    broken[place] ^= 0x10
    records[20] = bytes(broken)
    run = read(event_file(tmp_path / NAME, records))
    assert steps_of(run) == [step for step in range(40) if step != 20]
    assert any("damaged" in sentence for sentence in run.damage)


@pytest.mark.parametrize(
    "garbage",
    [
        bytes(5000),
        b"\xff" * 5000,
        struct.pack("<Q", 2 << 30) + b"abcd",
        struct.pack("<Q", 2 << 30) + struct.pack("<I", masked_crc32c(struct.pack("<Q", 2 << 30))),
        bytes(range(256)) * 30,
    ],
    ids=["zeros", "ones", "2 GB", "2 GB with its checksum", "noise"],
)
def test_what_is_intact_around_damage_is_read(tmp_path: Path, garbage: bytes) -> None:
    """A zeroed block, noise or a length of two gigabytes hides nothing that follows it."""
    run = read(event_file(tmp_path / NAME, [*losses(range(30)), garbage, *losses(range(30, 60))]))
    assert steps_of(run) == list(range(60))
    assert run.damage


def test_thirty_damaged_places(tmp_path: Path) -> None:
    """Thirty bit flips lose at most thirty points, and no value is wrong."""
    records = losses(range(2000))
    content = bytearray(b"".join(records))
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 30).tolist():
        content[place] ^= 1 << int(rng.integers(0, 8))
    run = read(event_file(tmp_path / NAME, [bytes(content)]))
    curve = run.curves["loss"]
    assert len(curve) >= 1970
    np.testing.assert_allclose(curve.values, 1.0 / (curve.steps + 1), rtol=1e-6)


@pytest.mark.parametrize("cut", [1, 5, 11, 14, 40])
def test_torn_tail(tmp_path: Path, cut: int) -> None:
    """A file that ends inside a record is read up to it."""
    records = losses(range(20))
    records[-1] = records[-1][:-cut]
    run = read(event_file(tmp_path / NAME, records))
    assert steps_of(run) == list(range(19))
    assert any("cut short" in sentence for sentence in run.damage)


def test_pieces_of_any_size_read_the_same(tmp_path: Path) -> None:
    """How a file is cut into pieces does not matter."""
    content = event_file(tmp_path / NAME, losses(range(50))).read_bytes()
    for size in (1, 7, 50, 1000):
        parser = Parser(tmp_path / NAME)
        for begin in range(0, len(content), size):
            parser.feed(content[begin : begin + size])
        (run,) = parser.runs()
        assert steps_of(run) == list(range(50))


def test_restart_supersedes_what_it_rolls_back(tmp_path: Path) -> None:
    """A second file that goes on from step 20 replaces the first one's tail."""
    event_file(tmp_path / "events.out.tfevents.100.a", [event(s, {"train/loss": 1.0}) for s in range(0, 50, 5)])
    event_file(tmp_path / "events.out.tfevents.200.b", [event(s, {"train/loss": 2.0}) for s in range(20, 40, 5)])
    (run,), errors = read_runs([tmp_path])
    assert not errors and run.path == tmp_path
    assert steps_of(run) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert run.curves["loss"].values.tolist() == [1.0] * 4 + [2.0] * 4
    assert [segment.from_step for segment in run.segments] == [0, 15]


def test_runs_that_begin_anew_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    """Several trainings into one folder are several runs, each under its own file."""
    for i in (1, 2, 3):
        event_file(
            tmp_path / f"events.out.tfevents.{i}00.h", [event(s, {"train/loss": float(i)}) for s in range(10, 60, 10)]
        )
    runs, _ = read_runs([tmp_path])
    assert [run.curves["loss"].values[0] for run in runs] == [1.0, 2.0, 3.0]
    assert [run.path.name for run in runs] == [f"events.out.tfevents.{i}00.h" for i in (1, 2, 3)]


def test_keras_folders_are_one_run(tmp_path: Path) -> None:
    """Keras writes training and validation into two folders, counted in epochs."""
    train = [event(e, {"epoch_loss": 1.0 / (e + 1), "batch_loss": 9.0}) for e in range(5)]
    event_file(tmp_path / "train" / NAME, train)
    event_file(tmp_path / "validation" / NAME, [event(e, {"epoch_loss": 2.0 / (e + 1)}) for e in range(5)])
    (run,), errors = read_runs([tmp_path])
    assert not errors and run.step_unit == "epoch"
    assert run.train_loss is not None and run.train_loss.values[1] == 0.5
    assert run.eval_loss is not None and run.eval_loss.values.tolist() == pytest.approx([2.0, 1.0, 2 / 3, 0.5, 0.4])


def test_a_file_without_scalars_is_a_typed_error(tmp_path: Path) -> None:
    """An event file that holds no scalar says so."""
    with pytest.raises(MalformedLog, match="without scalars"):
        read(event_file(tmp_path / NAME, [framed(field(5, field(1, field(1, b"x") + field(4, b"png"))))]))


NUMBERS = st.floats(allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**31), NUMBERS, st.booleans()), min_size=1, max_size=60, unique_by=lambda p: p[0]
    )
)
def test_random_runs_are_read_back(points: list[tuple[int, float, bool]]) -> None:
    """Whatever is written as scalars at rising steps comes back, float32 exactly."""
    points = sorted(points)
    with tempfile.TemporaryDirectory() as folder:
        records = [event(step, {"train/loss": value}, tensor=tensor) for step, value, tensor in points]
        run = read(event_file(Path(folder) / NAME, records))
    np.testing.assert_array_equal(run.curves["loss"].steps, [step for step, _, _ in points])
    np.testing.assert_array_equal(run.curves["loss"].values, [value for _, value, _ in points])
