"""train(): from a recipe to a finished run, on the embedded base model."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sightline.demo import base_model_path
from sightline.errors import DataError, ModelError, RunFolderExists, TrainingFailed
from sightline.evaluation import EvalSet, evaluate
from sightline.journal import reader
from sightline.runs import Phase, Status
from sightline.training.prepare import prepare
from sightline.training.recipe import Recipe
from sightline.training.trainer import WatchedTrainer

from .small_runs import run_of, settings, write_demo_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eighty training and twenty validation rows of the demo."""
    return write_demo_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """One run that other tests look at."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return run_of(data, folder)


def test_the_journal_has_the_base_model_and_every_evaluation(finished):
    """Validation and probe are scored by row, from step 0 to the last."""
    run = reader.read(finished.output_dir)
    assert [e.step for e in run.evaluations] == [0, 5, 10, 15, 20]
    assert all(len(e.losses.loss_sums) == 20 and e.probe is not None for e in run.evaluations)
    assert run.status is Status.FINISHED
    assert run.train_loss.steps[-1] == 20
    assert run.evaluations[-1].eval_loss < run.evaluations[0].eval_loss


def test_best_and_last_are_kept_and_no_other(finished):
    """The folder has the best checkpoint, the last one and the best weights ready for use."""
    best = finished.verdict.diagnosis.best.step
    names = {p.name for p in finished.output_dir.glob("checkpoint-*")}
    assert names == {f"checkpoint-{best}", "checkpoint-20"}
    assert (finished.output_dir / "best" / "adapter_model.safetensors").is_file()
    card = (finished.output_dir / "best" / "README.md").read_text()
    assert f"{finished.verdict.diagnosis.best.eval_loss:.4f}" in card and "80 training, 20 validation" in card


def test_the_best_folder_scores_what_the_journal_says(finished, data):
    """Loaded afresh, the best weights give the loss that was recorded at their step."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32), finished.best_dir
    )
    rows = prepare(Recipe.load(None, settings(data, finished.output_dir))).eval_rows
    assert evaluate(model, EvalSet(rows)).loss == pytest.approx(finished.verdict.diagnosis.best.eval_loss, rel=1e-5)


def test_a_second_run_into_the_folder_is_refused(finished, data):
    """Nothing of the first is touched."""
    before = (finished.output_dir / "sightline" / "journal.jsonl").read_bytes()
    with pytest.raises(RunFolderExists):
        run_of(data, finished.output_dir)
    assert (finished.output_dir / "sightline" / "journal.jsonl").read_bytes() == before


def test_a_diverging_run_is_stopped_and_called_diverged(data, tmp_path):
    """With an absurd rate the weights become NaN; the run ends early, says so, and keeps no broken best."""
    outcome = run_of(
        data,
        tmp_path / "run",
        learning_rate=1e20,
        use_peft=None,
        lora_r=None,
        lora_dropout=None,
        max_grad_norm=1e30,
        early_stopping=True,
    )
    assert outcome.verdict.diagnosis.phase is Phase.DIVERGED
    assert outcome.status is Status.STOPPED
    assert outcome.verdict.run.last_step < 20


def test_the_trainers_own_saving_is_obeyed(data, tmp_path):
    """Who asks for saves by step gets the Trainer's, all of them."""
    outcome = run_of(data, tmp_path / "run", save_strategy="steps", save_steps=10)
    assert {p.name for p in outcome.output_dir.glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-20"}


def test_a_full_disk_is_one_clear_line(data, tmp_path, monkeypatch):
    """The error says the step, the cause and what to do; the journal says failed; the traceback is in a file."""

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WatchedTrainer, "save_model", full)
    with pytest.raises(TrainingFailed, match=r"step 5.*No space left.*--resume"):
        run_of(data, tmp_path / "run")
    run = reader.read(tmp_path / "run")
    assert run.status is Status.FAILED and "No space left" in run.end_reason
    assert "Traceback" in (tmp_path / "run" / "sightline" / "traceback.txt").read_text()


def test_rows_that_cannot_teach_are_refused_before_the_first_step(data, tmp_path):
    """A validation set that is the training set is a wasted run, unless forced."""
    leak = {"eval_dataset": data / "train.jsonl"}
    with pytest.raises(DataError, match="--force"):
        run_of(data, tmp_path / "run", **leak)
    assert not (tmp_path / "run").exists()
    assert run_of(data, tmp_path / "forced", max_steps=5, force=True, **leak).status is Status.FINISHED


def test_a_base_model_with_broken_weights_is_refused(data, tmp_path):
    """It could learn nothing: the tensor is named, and no step is trained."""
    folder = tmp_path / "broken"
    shutil.copytree(base_model_path(), folder)
    weights = load_file(folder / "model.safetensors")
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name][0, :2] = torch.tensor([math.nan, math.inf])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=rf"2 of the [\d,]+ values of \S*{name.removeprefix('model.')} are NaN or infinite"
    ):
        run_of(data, tmp_path / "run", model_name_or_path=folder)
    assert reader.read(tmp_path / "run").last_step in (None, 0)


def spawn(data: Path, output_dir: Path, *more: str, ranks: int = 1, **changes: object) -> subprocess.Popen[str]:
    """Start `sightline train` in a process of its own."""
    words = [*settings(data, output_dir, **changes), *more]
    launch = [sys.executable, "-m"]
    if ranks > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m"]
    return subprocess.Popen(
        [*launch, "sightline", "train", *words], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for_step(output_dir: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if reader.recognises(output_dir) and (reader.read(output_dir).last_step or 0) >= step:
            return
        time.sleep(0.05)
    pytest.fail(f"step {step} was not reached: {process.communicate(timeout=5)}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_resuming_ends_where_an_unbroken_run_ends(finished, data, tmp_path, number):
    """Ctrl-C and SIGTERM end between two steps; --resume gives the very losses of the run that was left alone."""
    folder = tmp_path / "run"
    process = spawn(data, folder)
    wait_for_step(folder, 7, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "--resume" in out, (out, err)
    assert reader.read(folder).status is Status.STOPPED
    assert spawn(data, folder, "--resume").wait(timeout=90) == 0
    resumed, unbroken = reader.read(folder), reader.read(finished.output_dir)
    assert resumed.status is Status.FINISHED
    for name in ("loss", "eval_loss"):
        a, b = resumed.curves[name], unbroken.curves[name]
        assert a.steps.tolist() == b.steps.tolist()
        assert all(math.isclose(x, y, rel_tol=1e-4) for x, y in zip(a.values, b.values, strict=True))


def test_two_processes_write_one_journal(data, tmp_path):
    """Under torchrun rank 0 records, both stop at the same step, every validation row is scored once."""
    folder = tmp_path / "run"
    process = spawn(data, folder, ranks=2, per_device_train_batch_size=4)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err[-3000:]
    run = reader.read(folder)
    assert len(run.segments) == 1 and run.status is Status.FINISHED and not run.damage
    assert [e.step for e in run.evaluations] == [0, 5, 10, 15, 20]
    assert all(len(e.losses.loss_sums) == 20 for e in run.evaluations)
