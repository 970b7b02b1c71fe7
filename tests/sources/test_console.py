"""Captured terminals: the Trainer's dictionaries in every state of disorder, and what other programs print."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sightline.errors import UnknownLogFormat
from sightline.runs import Run, Status
from sightline.sources import read, read_runs
from sightline.sources.console.lines import Plans
from sightline.sources.console.parser import Parser


def trainer_text(
    steps: int = 200,
    *,
    every: int = 10,
    evaluate: int = 50,
    per_epoch: float = 80.0,
    strings: bool = False,
    bars: bool = False,
) -> str:
    """Return what the Trainer prints, 4.x style or with numbers in quotes as 5.x does, with its bars or without."""

    def bar(step: int) -> str:
        return f"\r {100 * step // steps:3d}%|█████     | {step}/{steps} [00:01<00:02,  9.99it/s]"

    def entry(values: dict[str, float]) -> str:
        shown = {name: f"{value:.4g}" for name, value in values.items()} if strings else values
        return ("\r" + " " * 40 + "\r" if bars else "") + str(shown) + "\n"

    parts = []
    for step in range(1, steps + 1):
        parts.append(bar(step) if bars else "")
        epoch = step / per_epoch if strings else round(step / per_epoch, 2)
        if step % every == 0:
            parts.append(entry({"loss": round(3 / step**0.5, 4), "learning_rate": 1e-4, "epoch": epoch}))
            parts.append(bar(step) if bars else "")
        if step % evaluate == 0:
            parts.append(entry({"eval_loss": 2.0 + step / 1e4, "eval_runtime": 1.0, "epoch": epoch}))
            parts.append(bar(step) if bars else "")
    summary = {"train_runtime": 100.0, "train_steps_per_second": steps / 100, "train_loss": 1.0}
    return "".join(parts) + entry({**summary, "epoch": steps / per_epoch if strings else round(steps / per_epoch, 2)})


def read_text(tmp_path: Path, text: str | bytes, name: str = "train.log") -> Run:
    """Read a text as a log."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def check_trainer(run: Run, steps: int = 200, every: int = 10, evaluate: int = 50) -> None:
    """Check the curves of ``trainer_text``."""
    assert run.curves["loss"].steps.tolist() == list(range(every, steps + 1, every))
    assert run.curves["eval_loss"].steps.tolist() == list(range(evaluate, steps + 1, evaluate))
    np.testing.assert_allclose(run.curves["loss"].values, 3 / run.curves["loss"].steps ** 0.5, rtol=2e-3)
    assert run.step_unit == "step" and run.status is Status.FINISHED


@pytest.mark.parametrize("strings", [False, True], ids=["4.x", "5.x"])
@pytest.mark.parametrize("bars", [False, True], ids=["plain", "bars"])
def test_steps_are_found(tmp_path: Path, strings: bool, bars: bool) -> None:
    """Neither version prints steps: bars, or epochs with the closing summary, tell them."""
    run = read_text(tmp_path, trainer_text(strings=strings, bars=bars))
    check_trainer(run)
    assert run.significant_digits == (4 if strings else None)


def test_output_that_came_in_blocks(tmp_path: Path) -> None:
    """Bars first and all dictionaries at the end, as a redirected run writes them: the bars do not mislead."""
    text = trainer_text(bars=True)
    entries = "".join(re.findall(r"\{.*\}\n", text))
    check_trainer(read_text(tmp_path, re.sub(r"\{.*\}\n", "", text) + "\n" + entries))


def test_banner_tells_the_steps_of_an_unfinished_run(tmp_path: Path) -> None:
    """Without a summary the banner's totals turn epochs into steps; an evaluation's own banner does not interfere."""
    banner = (
        "***** Running training *****\n  Num examples = 640\n  Num Epochs = 5\n"
        "  Total train batch size (w. parallel, distributed & accumulation) = 8\n  Total optimization steps = 400\n"
    )
    lines = trainer_text().splitlines(keepends=True)[:-1]
    lines[6:6] = ["***** Running Evaluation *****\n  Num examples = 99\n  Batch size = 8\n"]
    run = read_text(tmp_path, banner + "".join(lines))
    assert run.curves["loss"].steps.tolist() == list(range(10, 201, 10))
    assert run.max_steps == 400 and run.status is Status.UNKNOWN


def test_unsloths_banner(tmp_path: Path) -> None:
    """Unsloth prints its totals in a drawing."""
    banner = r"""==((====))==  Unsloth 2025.1: Fast Llama patching.
   \\   /|    Num examples = 640 | Num Epochs = 3 | Total steps = 240
O^O/ \_/ \    Batch size per device = 2 | Gradient accumulation steps = 4
"""
    run = read_text(tmp_path, banner + "".join(trainer_text().splitlines(keepends=True)[:-1]))
    assert run.curves["loss"].steps.tolist() == list(range(10, 201, 10)) and run.max_steps == 240


DISORDERS = {
    "timestamps": lambda text: re.sub(r"(?m)^\{", "2025-01-02 10:11:12,345 - INFO - trainer - {", text),
    "slurm ranks": lambda text: re.sub(r"(?m)^\{(.*)$", r"0: {\1\n1: {\1", text),
    "rank prefixes": lambda text: re.sub(r"(?m)^\{(.*)$", r"[rank0]: {\1\n[rank3]: {\1", text),
    "colours": lambda text: re.sub(r"(?m)^\{(.*)$", "\x1b[1m\x1b[32m{" + r"\1" + "\x1b[0m", text),
    "windows": lambda text: text.replace("\n", "\r\n"),
    "old mac": lambda text: text.replace("\n", "\r"),
    "padding": lambda text: text.replace("}", "}" + " " * 80),
    "NUL": lambda text: text.replace("\n{", "\n\0{"),
    "traceback": lambda text: (
        text[:1500].rsplit("\n", 1)[0] + TRACEBACK + "\n" + text[len(text[:1500].rsplit("\n", 1)[0]) + 1 :]
    ),
    "nohup": lambda text: (
        "nohup: ignoring input\n" + re.sub(r"(?m)\}$", "}\n/usr/lib/x.py:3: UserWarning: loss of rows", text)
    ),
    "numpy": lambda text: re.sub(r"'loss': ([0-9.]+)", r"'loss': np.float64(\1)", text),
    "tensors": lambda text: re.sub(r"'eval_loss': ([0-9.]+)", r"'eval_loss': tensor(\1, device='cuda:0')", text),
}
TRACEBACK = (
    '\nTraceback (most recent call last):\n  File "a.py", line 3, in <module>\n    loss = {"a": 1}\nKeyError: \'loss\''
)


@pytest.mark.parametrize("disorder", DISORDERS)
def test_disorder(tmp_path: Path, disorder: str) -> None:
    """What stands around, before and between the dictionaries does not change what they say."""
    check_trainer(read_text(tmp_path, DISORDERS[disorder](trainer_text())))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    """PowerShell redirects in UTF-16, editors leave marks."""
    check_trainer(read_text(tmp_path, trainer_text().encode(encoding)))


def test_two_dictionaries_in_a_line_and_broken_ones(tmp_path: Path) -> None:
    """Glued dictionaries are both read; one that another process wrote into is left out and counted."""
    lines = trainer_text().splitlines()
    lines[2] += lines.pop(3)
    lines[5] = lines[5][:20] + "{'lo" + lines[5][20:25]
    run = read_text(tmp_path, "\n".join(lines) + "\n")
    assert {10, 20, 30, 40} <= set(run.curves["loss"].steps.tolist())
    assert "1 broken" in run.damage[0]


def test_a_dictionary_glued_to_a_bar(tmp_path: Path) -> None:
    """A bar without a line end in front of a dictionary is still beside it."""
    text = re.sub(r"\r +\r\{", "{", trainer_text(bars=True))
    assert "it/s]{" in text
    check_trainer(read_text(tmp_path, text))


@pytest.mark.parametrize(
    "header", ['{"version": 2, "width": 80, "height": 24}', '{"version": 3, "term": {"cols": 80, "rows": 24}}']
)
def test_asciinema_recording(tmp_path: Path, header: str) -> None:
    """A recording holds the text in pieces, cut anywhere."""
    text = trainer_text(bars=True)
    pieces = [text[i : i + 37] for i in range(0, len(text), 37)]
    events = [json.dumps([i / 10, "o", piece]) for i, piece in enumerate(pieces)]
    check_trainer(read_text(tmp_path, "\n".join([header, *events]), "a.cast"))


def test_several_runs_in_one_file(tmp_path: Path) -> None:
    """Runs one after the other are told apart, the last unfinished one too."""
    path = tmp_path / "all.log"
    unfinished = "".join(trainer_text(400).splitlines(keepends=True)[:9])
    path.write_text(trainer_text() + "\nnext\n" + trainer_text(100) + unfinished)
    runs, errors = read_runs([path])
    assert not errors
    assert [len(run.curves["loss"]) for run in runs] == [20, 10, 8]
    assert [run.status for run in runs] == [Status.FINISHED, Status.FINISHED, Status.UNKNOWN]


def test_resumed_run_in_one_file(tmp_path: Path) -> None:
    """A requeued job that goes on from epoch 1.5 supersedes what it repeats."""
    first = "".join(trainer_text(400).splitlines(keepends=True)[:20])
    again = [line for line in trainer_text().splitlines(keepends=True) if float(line.split("'epoch': ")[1][:-2]) > 1.5]
    run = read_text(tmp_path, first + "slurmstepd: requeued\n" + "".join(again))
    assert run.curves["loss"].steps.tolist() == list(range(10, 201, 10))
    assert len(run.segments) == 2


def test_without_any_hint_points_are_counted(tmp_path: Path) -> None:
    """Where nothing tells the steps of an epoch, losses are in their order and the run says so."""
    run = read_text(tmp_path, "".join(trainer_text().splitlines(keepends=True)[:-1]))
    assert run.step_unit == "index"
    assert run.curves["loss"].steps.tolist() == list(range(1, 21))
    assert run.curves["eval_loss"].steps.tolist() == [5, 10, 15, 20]


PRINTED = {
    "nanoGPT": (
        "step 0: train loss 4.2, val loss 4.3\niter 0: loss 4.21, time 22.1ms, mfu -100.00%\n"
        "iter 10: loss 3.9, time 20.0ms, mfu 3.2%\nstep 20: train loss 3.0, val loss 3.1\n"
        "iter 20: loss 3.0, time 2ms, mfu 3%\n",
        "step",
        [0, 10, 20],
        [0, 20],
    ),
    "modded-nanogpt": (
        "step:0/100 val_loss:10.8 train_time:0ms step_avg:nanms\nstep:1/100 train_time:30ms step_avg:30ms\n"
        "step:50/100 val_loss:5.5 train_time:9ms step_avg:9ms\nstep:100/100 val_loss:4.5 train_time:9ms step_avg:9ms\n",
        "step",
        [],
        [0, 50, 100],
    ),
    "llm.c": (
        "s:0 tel:10.9\ns:0 trl:10.96 lr:0.0 norm:15.1\ns:1 trl:10.8\ns:2 trl:10.5\ns:2 tel:10.6\n",
        "step",
        [0, 1, 2],
        [0, 2],
    ),
    "torchtune": (
        "Step 1 | loss:2.5 lr:2e-05 tokens_per_second_per_gpu:1000 \n"
        "Step 2 | loss:2.4 lr:3e-05 tokens_per_second_per_gpu:9\n",
        "step",
        [1, 2],
        [],
    ),
    "epochs": (
        "Epoch 1: Train Loss 0.942, Train Acc 75.01%, Val Loss 0.704, Val Acc 79.21%\n"
        "Epoch 2: Train Loss 0.581, Train Acc 82.67%, Val Loss 0.675, Val Acc 80.16%\n",
        "epoch",
        [1, 2],
        [1, 2],
    ),
    "headers": (
        "======== Epoch 1 / 2 ========\n  Average training loss: 0.77\nRunning Validation...\n"
        "  Validation Loss: 0.60\n======== Epoch 2 / 2 ========\n  Average training loss: 0.55\n"
        "Running Validation...\n  Validation Loss: 0.55\n",
        "epoch",
        [1, 2],
        [1, 2],
    ),
    "litgpt": (
        "Epoch 1 | iter 1 step 0 | loss train: 2.5, val: n/a | iter time: 100.0 ms\n"
        "Epoch 1 | iter 2 step 1 | loss train: 2.4, val: 2.6 | iter time: 100.0 ms\n",
        "step",
        [0, 1],
        [1],
    ),
    "megatron": (
        " iteration      100/    5000 | samples: 2 | learning rate: 1.5E-04 | lm loss: 6.4E+00 | loss scale: 1.0 |\n"
        " validation loss at iteration 100 | lm loss value: 6.5E+00 | lm loss PPL: 6.6E+02 |\n"
        " iteration      200/    5000 | samples: 4 | learning rate: 1.5E-04 | lm loss: 5.4E+00 | loss scale: 1.0 |\n",
        "step",
        [100, 200],
        [100],
    ),
    "notebook": (
        "Step\tTraining Loss\tValidation Loss\n10\t2.5\tNo log\n20\t2.1\t2.4\n30\t1.9\t2.3\nTrainOutput(...)\n",
        "step",
        [10, 20, 30],
        [20, 30],
    ),
    "fairseq": (
        '| INFO | train_inner | {"epoch": 1, "update": 1, "loss": "9.1", "num_updates": "100"}\n'
        '| INFO | train_inner | {"epoch": 1, "update": 1.5, "loss": "8.1", "num_updates": "150"}\n'
        '| INFO | valid | {"epoch": 1, "valid_loss": "8.5", "valid_num_updates": "150"}\n',
        "step",
        [100, 150],
        [150],
    ),
    "OLMo": (
        "INFO\t[step=1/100]\n    train/CrossEntropyLoss=10.98\n    train/Perplexity=93,000\n"
        "INFO\t[step=2/100]\n    train/CrossEntropyLoss=10.90\n    train/Perplexity=91,000\n",
        "step",
        [1, 2],
        [],
    ),
    "Composer": (
        "[batch=10/100]:\n\t Train time/epoch: 0\n\t Train loss/train/total: 5.5\n"
        "[batch=20/100]:\n\t Train time/epoch: 0\n\t Train loss/train/total: 5.4\n",
        "step",
        [10, 20],
        [],
    ),
    "MMEngine": (
        "- INFO - Epoch(train)  [1][  50/100]  lr: 2.4e-06  eta: 9:53:11  memory: 14000  loss: 2.6\n"
        "- INFO - Epoch(train)  [1][ 100/100]  lr: 2.4e-06  eta: 9:53:11  memory: 14000  loss: 2.5\n"
        "- INFO - Epoch(train)  [2][  50/100]  lr: 2.4e-06  eta: 9:53:11  memory: 14000  loss: 2.4\n",
        "step",
        [50, 100, 150],
        [],
    ),
    "tutorials": (
        "Epoch [1/2], Step [50/100], Loss: 1.5\nEpoch [1/2], Step [100/100], Loss: 1.4\n"
        "Epoch [2/2], Step [50/100], Loss: 1.3\nEpoch [2/2], Step [100/100], Loss: 1.2\n",
        "step",
        [50, 100, 150, 200],
        [],
    ),
    "nanochat": (
        "step 00000/05000 (0.00%) | loss: 9.01 | lrm: 1.00 | dt: 120.1ms\nStep 00000 | Validation bpb: 2.5\n"
        "step 00250/05000 (5.00%) | loss: 7.01 | lrm: 1.00 | dt: 120.1ms\nStep 00250 | Validation bpb: 2.1\n",
        "step",
        [0, 250],
        [0, 250],
    ),
    "MLX": (
        "Iter 1: Val loss 2.998, Val took 5.2s\n"
        "Iter 10: Train loss 2.9, Learning Rate 1.000e-05, It/sec 1.2, Trained Tokens 1000, Peak mem 4.2 GB\n"
        "Iter 20: Train loss 2.8, Learning Rate 1.000e-05, It/sec 1.2, Trained Tokens 2000, Peak mem 4.2 GB\n"
        "Iter 20: Val loss 2.7, Val took 5.2s\n",
        "step",
        [10, 20],
        [1, 20],
    ),
    "diffusers": (
        "".join(
            f"\rSteps:  10%|█         | {i}/99 [00:01<00:09,  1.0it/s, loss=0.{9 - i}, lr=1e-5]" for i in range(1, 4)
        ),
        "step",
        [1, 2, 3],
        [],
    ),
    "tqdm": (
        "".join(f"\rEpoch 0:  50%|█████     | {i}/4 [00:01<00:01,  2.00it/s, loss={3 - i / 10}]" for i in range(1, 5))
        + "".join(
            f"\rEpoch 1:  50%|█████     | {i}/4 [00:01<00:01, loss={2 - i / 10}, val_loss=2.5]" for i in range(1, 5)
        ),
        "step",
        [1, 2, 3, 4, 5, 6, 7, 8],
        [5],
    ),
}


@pytest.mark.parametrize("program", PRINTED)
def test_printed_lines(tmp_path: Path, program: str) -> None:
    """Programs that say their losses in words are read, with what counts their lines."""
    text, unit, train, evals = PRINTED[program]
    run = read_text(tmp_path, text)
    assert run.step_unit == unit
    assert (run.train_loss.steps.tolist() if run.train_loss else []) == train
    assert (run.eval_loss.steps.tolist() if run.eval_loss else []) == evals


def test_ms_swift_prints_its_steps(tmp_path: Path) -> None:
    """Plain numbers between quoted times and shares, and two counts under one name."""
    lines = (
        f"{{'loss': {3 - i / 100:.6f}, 'epoch': {i / 99}, 'global_step/max_steps': '{i}/200', 'percentage': '5.00%'}}\n"
        for i in range(10, 60, 10)
    )
    run = read_text(tmp_path, "".join(lines))
    assert run.curves["loss"].steps.tolist() == [10, 20, 30, 40, 50] and run.max_steps == 200
    assert run.significant_digits is None and "percentage" not in run.curves


@pytest.mark.parametrize(
    ("line", "planned"),
    [
        ("step:{i}/5000 val_loss:{loss:.4f}", 5000),
        ("Epoch {i}/50 - train loss: {loss:.4f} - val loss: {loss:.4f}", 50),
        ("epoch 1/3 step {i}/100 loss {loss:.4f}", None),  # of the epoch, or of the run: it does not say
        ("step {i} loss {loss:.4f} (12/2026)", None),
        ("step {i}/3 loss {loss:.4f}", None),  # it went further
    ],
)
def test_a_printed_count_tells_where_the_run_is_to_end(tmp_path: Path, line: str, planned: int | None) -> None:
    """``10/5000`` behind a step or an epoch is its plan, unless it may be that of an epoch only."""
    file = tmp_path / "train.log"
    file.write_text("".join(line.format(i=i, loss=2.0 + 1.0 / i) + "\n" for i in range(1, 13)))
    run = read(file)
    assert (run.last_step, run.max_steps) == (12, planned)


def test_steps_that_begin_anew_each_epoch_tell_the_whole_plan(tmp_path: Path) -> None:
    """The steps of an epoch by the epochs that are planned."""
    lines = [f"epoch {e}/4 step {i}/10 loss {3.0 / (10 * e + i):.4f}\n" for e in (1, 2) for i in range(1, 11)]
    file = tmp_path / "train.log"
    file.write_text("".join(lines))
    run = read(file)
    assert (run.last_step, run.max_steps) == (20, 40)


def test_values_of_printed_lines(tmp_path: Path) -> None:
    """Exponents, NaN and thousands separators come out as numbers."""
    text = "step 1,000: train loss 1.5e-3, val loss nan\nstep 2,000: train loss inf, val loss 2.0\n"
    run = read_text(tmp_path, text)
    assert run.curves["loss"].steps.tolist() == [1000, 2000]
    assert run.curves["loss"].values.tolist() == [0.0015, math.inf]
    assert math.isnan(run.curves["eval_loss"].values[0])


@pytest.mark.parametrize(
    "line",
    [
        b"weight loss 5 kg",
        b"--loss-scale 1024",
        b"Best validation loss: 0.25 at epoch 3",
        b"val_loss improved from 0.5 to 0.4",
        b"loss_fn = CrossEntropyLoss(0.1)",
        b"the net loss 5 million in 2024",
        b"loss scale: 65536.0",
        b"final train loss: 0.3",
    ],
)
def test_what_only_sounds_like_a_loss(line: bytes) -> None:
    """Prose, settings and repeated results are no points."""
    plan = Plans().of(line)
    assert plan is None or not {"loss", "eval_loss"} & set(plan.names)


@pytest.mark.parametrize(
    "text", ["", "hello\n" * 50, "the loss was 3\nand then 4\n", '{"a": 1}\n{"loss_fn": "mse"}\n', "\0" * 5000]
)
def test_other_texts_are_no_logs(tmp_path: Path, text: str) -> None:
    """A text that says no loss twice is not taken for a log."""
    with pytest.raises(UnknownLogFormat):
        read_text(tmp_path, text)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.sampled_from([1, 5, 10, 25, 50]), st.integers(20, 400), st.booleans())
@example(1, 5, 334, False)  # one point: its epoch of two places alone would allow more steps than the run had
def test_steps_of_random_runs(n: int, every: int, per_epoch: int, strings: bool) -> None:
    """Whatever the logging interval and the epoch's length, even steps come out where the epochs tell them apart."""
    steps = n * every
    text = trainer_text(steps, every=every, evaluate=10**9, per_epoch=per_epoch, strings=strings)
    parser = Parser(Path("x"))
    parser.feed(text.encode())
    (run,) = parser.runs()
    found = run.curves["loss"].steps
    assert len(found) == n
    if run.step_unit == "step":
        doubt = per_epoch * max(0.006, 0.0006 * steps / per_epoch) + 1.5
        assert float(np.abs(found - np.arange(every, steps + 1, every)).max()) <= max(doubt, 0.002 * steps + 1)


def test_pieces_of_any_size_read_the_same() -> None:
    """How a text is cut into pieces does not matter."""
    content = trainer_text(bars=True).encode()
    for size in (50, 333, 5000):
        parser = Parser(Path("x"))
        for begin in range(0, len(content), size):
            parser.feed(content[begin : begin + size])
        parser.end()
        (run,) = parser.runs()
        check_trainer(run)
