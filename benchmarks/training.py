"""Training steps per second: `sightline train` against a plain transformers Trainer.

Same base model (the embedded one), same rows, batch, optimizer and hardware, float32, no evaluation and no saving on
either side; Sightline's journal and callbacks are on. Rows of one length and rows of log-normal length, half of each
row masked as a prompt. Each measurement is a process of its own, the two sides alternate, medians are compared.

    python benchmarks/training.py [--repeats 3] [--steps 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = Path(__file__)
SHAPES = ("equal", "log-normal")
LENGTH = 96
BATCH = 16


def rows(shape: str, n: int) -> list[dict[str, list[int]]]:
    """Return rows of random tokens, the second half of each labelled."""
    import numpy as np

    rng = np.random.default_rng(0)
    if shape == "equal":
        lengths = np.full(n, LENGTH)
    else:
        lengths = np.clip(rng.lognormal(np.log(LENGTH * 0.6), 0.9, n), 8, 500).astype(int)
    made = []
    for length in lengths:
        ids = rng.integers(5, 1000, int(length)).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (int(length) // 2) + ids[int(length) // 2 :]})
    return made


def plain(shape: str, steps: int) -> dict[str, float]:
    """Time a plain Trainer."""
    import time

    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from sightline.demo import base_model_path

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        pad = [width - len(row["input_ids"]) for row in batch]
        return {
            "input_ids": torch.tensor([r["input_ids"] + [0] * p for r, p in zip(batch, pad, strict=True)]),
            "labels": torch.tensor([r["labels"] + [-100] * p for r, p in zip(batch, pad, strict=True)]),
            "attention_mask": torch.tensor([[1] * len(r["labels"]) + [0] * p for r, p in zip(batch, pad, strict=True)]),
        }

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=1e-3, logging_steps=5,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(), seed=1,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows(shape, BATCH * steps), data_collator=collate)
        began = time.perf_counter()
        trainer.train()
        return {"steps_per_s": steps / (time.perf_counter() - began)}


def watched(shape: str, steps: int) -> dict[str, float]:
    """Time the Trainer of `sightline train`, with its callbacks and its journal."""
    import time

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    from sightline.demo import base_model_path
    from sightline.evaluation import Row
    from sightline.training.callback import SightlineCallback
    from sightline.training.quiet import quiet_libraries
    from sightline.training.recipe.sft import GROUPING_PAYS, grouping_gain
    from sightline.training.trainer import WatchedTrainer

    quiet_libraries()
    train_rows = [Row(**row) for row in rows(shape, BATCH * steps)]
    pays = grouping_gain([len(row.input_ids) for row in train_rows], BATCH) >= GROUPING_PAYS
    with tempfile.TemporaryDirectory() as folder:
        watcher = SightlineCallback(folder)
        arguments = SFTConfig(
            folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=1e-3, logging_steps=5,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(), seed=1,
            bf16=False, activation_checkpointing=False, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="group_by_length" if pays else "random", logging_nan_inf_filter=False,
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = WatchedTrainer(
            model=AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32),
            args=arguments,
            processing_class=AutoTokenizer.from_pretrained(base_model_path()),
            callbacks=[watcher],
            watcher=watcher,
            train_rows=train_rows,
            validation=None,
        )
        began = time.perf_counter()
        trainer.train()
        return {"steps_per_s": steps / (time.perf_counter() - began)}


def measure(side: str, shape: str, steps: int) -> float:
    """Run one side in a fresh process."""
    done = subprocess.run(
        [sys.executable, str(MEASURE), "--side", side, "--shape", shape, "--steps", str(steps)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1])["steps_per_s"])


def main() -> None:
    """Measure both sides by turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=("plain", "watched"), help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"plain": plain, "watched": watched}[options.side](options.shape, options.steps)))
        return
    table = {}
    print(f"training, batch {BATCH}, {options.steps} steps, median of {options.repeats}")
    for shape in SHAPES:
        rates: dict[str, list[float]] = {"plain": [], "watched": []}
        for _ in range(options.repeats):
            for side in rates:
                rates[side].append(measure(side, shape, options.steps))
        ours, theirs = statistics.median(rates["watched"]), statistics.median(rates["plain"])
        table[shape] = {"plain_steps_per_s": theirs, "sightline_steps_per_s": ours, "ratio": ours / theirs}
        print(f"  {shape:10} rows: Trainer {theirs:6.2f} steps/s, Sightline {ours:6.2f} steps/s, {ours / theirs:.2f}x")
    if options.json:
        options.json.write_text(json.dumps({"training": table}, indent=2))


if __name__ == "__main__":
    main()
