"""record(): a loop of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sightline.errors import RunFolderExists
from sightline.journal import read, record
from sightline.runs import Status


def test_a_loop_is_recorded_under_the_canonical_names(tmp_path):
    """Lr and train_loss are what the Trainer calls learning_rate and loss."""
    with record(tmp_path / "a", config={"lr": 0.1}, max_steps=3) as run:
        for step in (1, 2, 3):
            run.log(step=step, train_loss=1.0 / step, lr=0.1, my_metric=step)
        run.log(4, {"val/accuracy": 0.5}, grad_norm=2)
        run.evaluation(step=3, eval_loss=0.5, eval_accuracy=0.75)
        assert run.run().status is Status.RUNNING and run.problem is None
    got = read(tmp_path / "a")
    assert sorted(got.curves) == [
        "eval_accuracy", "eval_loss", "grad_norm", "learning_rate", "loss", "my_metric", "val/accuracy"
    ]  # fmt: skip
    assert got.status is Status.FINISHED and got.end_reason is None and got.max_steps == 3
    assert got.eval_loss is not None and got.eval_loss.at(3) == 0.5


def test_losses_by_row_give_the_loss(tmp_path):
    """From lists, arrays or tensors; the token-weighted mean unless told."""
    torch = pytest.importorskip("torch")
    with record(tmp_path) as run:
        run.evaluation(step=0, loss_sums=[6.0, 9.0], token_counts=[2, 3])
        run.evaluation(
            step=1, loss_sums=torch.tensor([3.0, 5.0], requires_grad=True), token_counts=torch.tensor([2, 3])
        )
        run.evaluation(step=2, loss_sums=np.array([1.0, 2.0]), probe_loss_sums=[4.0], probe_token_counts=[2])
        run.evaluation(step=3, eval_loss=torch.tensor(7.0), loss_sums=[1.0], token_counts=[1])
    got = read(tmp_path)
    assert [evaluation.eval_loss for evaluation in got.evaluations] == [3.0, 1.6, 1.5, 7.0]
    assert got.evaluations[1].losses.token_counts.tolist() == [2, 3]
    assert got.evaluations[2].probe_loss == 2.0 and got.curves["probe_loss"].at(2) == 2.0


def test_what_does_not_fit_is_noted_and_harms_nothing(tmp_path):
    """Wrong shapes, no loss at all, text for a loss."""
    with record(tmp_path) as run:
        run.evaluation(step=1, loss_sums=[1.0, 2.0], token_counts=[1])
        run.evaluation(step=2)
        run.evaluation(step=3, eval_loss="low")
        run.evaluation(step=4, eval_loss=1.5, loss_sums=[1.0, 2.0], token_counts=[1], extra="text")
        run.evaluation(step=5, eval_loss=math.nan)
    got = read(tmp_path)
    assert [evaluation.step for evaluation in got.evaluations] == [4, 5] and got.evaluations[0].losses is None
    assert math.isnan(got.evaluations[1].eval_loss) and got.status is Status.FINISHED


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("bad\nlong story"), Status.FAILED, "ValueError: bad"),
        (MemoryError(), Status.FAILED, "MemoryError"),
        (KeyboardInterrupt(), Status.STOPPED, "interrupted by SIGINT (Ctrl-C)"),
    ],
)
def test_leaving_by_an_error_ends_the_run_with_it(tmp_path, error, status, reason):
    """The error goes on to the caller."""
    with pytest.raises(type(error)), record(tmp_path) as run:
        run.log(step=1, loss=1.0)
        raise error
    assert (read(tmp_path).status, read(tmp_path).end_reason) == (status, reason)


def test_an_end_of_ones_own_stands(tmp_path):
    """Leaving the block adds nothing to it."""
    with record(tmp_path) as run:
        run.end("stopped", "good enough")
    assert (read(tmp_path).status, read(tmp_path).end_reason) == (Status.STOPPED, "good enough")


def test_resume_goes_on_and_overwrite_begins_anew(tmp_path):
    """A folder with a run is refused otherwise."""
    with record(tmp_path) as run:
        for step in (1, 2, 3):
            run.log(step=step, loss=1.0)
    with pytest.raises(RunFolderExists):
        record(tmp_path)
    with record(tmp_path, resume=True) as run:
        run.log(step=4, loss=2.0)
    assert read(tmp_path).curves["loss"].steps.tolist() == [1, 2, 3, 4]
    with record(tmp_path, resume=True, from_step=2) as run:
        run.log(step=3, loss=3.0)
    assert read(tmp_path).curves["loss"].values.tolist() == [1.0, 1.0, 3.0]
    with record(tmp_path, overwrite=True) as run:
        run.log(step=9, loss=9.0)
    assert read(tmp_path).curves["loss"].steps.tolist() == [9]


def test_checkpoints_of_a_loop(tmp_path):
    """A file or a folder."""
    with record(tmp_path) as run:
        run.checkpoint(5, tmp_path / "model-5.pt", size_bytes=10)
    (checkpoint,) = read(tmp_path).checkpoints
    assert (checkpoint.step, checkpoint.path, checkpoint.size_bytes) == (5, tmp_path / "model-5.pt", 10)
