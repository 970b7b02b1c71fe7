"""Logs that real producers wrote read to the runs kept beside them, whatever the files are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sightline.sources import read
from tests.samples.make_goldens import SAMPLES, golden_file, read_as_golden

SAMPLES_FOLDER = Path(__file__).parents[1] / "samples"


def _id(sample: Path) -> str:
    return "-".join(sample.parts[-3:])


@pytest.mark.parametrize("sample", SAMPLES, ids=_id)
def test_sample_reads_to_its_golden_run(sample: Path, tmp_path: Path) -> None:
    """A sample reads to the same run whatever its file is called."""
    golden = json.loads(golden_file(sample).read_text())
    assert read_as_golden(sample) == golden
    unknown = tmp_path / "unknown"
    (shutil.copytree if sample.is_dir() else shutil.copyfile)(sample, unknown)
    assert read_as_golden(unknown) == golden


def test_there_is_a_sample_of_every_kind_of_producer() -> None:
    """No producer's samples are forgotten when the folder is made anew."""
    producers = {sample.parts[-3] for sample in SAMPLES}
    assert producers == {"keras", "lightning", "mlflow", "tensorboard", "trackio", "transformers", "wandb"}


@pytest.mark.parametrize("version", sorted(path.name for path in (SAMPLES_FOLDER / "transformers").iterdir()))
def test_a_resumed_run_is_the_same_in_all_its_logs(version: str) -> None:
    """State, event files and captured terminal of one stopped and resumed run agree to the digits each keeps."""
    folder = SAMPLES_FOLDER / "transformers" / version
    state, events, console = (read(folder / name) for name in ("output", "output/runs", "console.txt"))
    for name in ("loss", "eval_loss"):
        expected = state.curves[name]
        for run, digits in ((events, 1e-6), (console, 1e-3)):
            np.testing.assert_array_equal(run.curves[name].steps, expected.steps)
            np.testing.assert_allclose(run.curves[name].values, expected.values, rtol=digits)
    assert [segment.from_step for segment in events.segments] == [0, 16]
    assert [segment.from_step for segment in console.segments] == [0, 16]


def test_event_files_below_an_output_folder_are_the_same_run() -> None:
    """An output folder with its TensorBoard logs in it is one run."""
    from sightline.sources import read_runs

    runs, errors = read_runs([SAMPLES_FOLDER / "transformers" / "5.23.0"])
    assert not errors
    assert sorted(run.format for run in runs) == ["console", "trainer_state"]


def test_event_files_agree_with_tensorboards_own_reader() -> None:
    """Every scalar that TensorBoard's reader finds is found, and no other."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = SAMPLES_FOLDER / "tensorboard" / "2.21.0" / "mixed"
    theirs = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    ours = read(folder).curves
    expected = {tag: [(e.step, e.value) for e in theirs.Scalars(tag)] for tag in theirs.Tags()["scalars"]}
    tensors = [tag for tag in theirs.Tags()["tensors"] if tag != "config/text_summary"]
    for tag in tensors:
        values = theirs.Tensors(tag)
        expected[tag] = [(e.step, e.tensor_proto.float_val[0]) for e in values if e.tensor_proto.float_val]
    assert set(ours) == {"loss", "learning_rate", "epoch", "eval_loss", "eval_accuracy"}
    names = {"train/loss": "loss", "train/learning_rate": "learning_rate", "train/epoch": "epoch"}
    for tag, points in expected.items():
        name = names.get(tag, tag.replace("/", "_"))
        assert dict(points) == pytest.approx(
            dict(zip(ours[name].steps.tolist(), ours[name].values.tolist(), strict=True))
        )
