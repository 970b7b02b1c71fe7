"""How far the Trainer's ``eval_loss`` is from the loss it is meant to be, by batch size, ranks and order of the rows.

The embedded base model on 101 paragraphs of the running Python's documentation strings that it was not trained on:
real text of unequal length. Once every token is scored, once only the second half of each row. The same model and rows,
so every difference is the Trainer's averaging: batch means weighted by rows, and under several ranks the rows that fill
up the last batch. Ranks are real gloo processes. Beside it Sightline's, measured in the same processes.

    python benchmarks/evaluation_error.py [--ranks 1 2 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _evaluation_set import Row, exact_loss, trainer_of

N = 101
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
LONGEST, SHORTEST = 250, 8
SHUFFLES = 5


def main() -> int:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="*", default=(1, 2, 3))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        found = _measure()
        if int(os.environ.get("RANK", "0")) == 0:
            print("FOUND " + json.dumps(found), flush=True)
        return 0
    results = {str(world_size): _on_ranks(world_size) for world_size in options.ranks}
    _show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


def _on_ranks(world_size: int) -> dict[str, Any]:
    launcher = [sys.executable, "-W", "ignore"]
    if world_size > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*launcher, __file__, "--child"], env=env, stdout=subprocess.PIPE, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    result: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return result


def _rows(scored_from: float) -> list[Row]:
    """Return rows of unequal length; labels begin at a share of each."""
    from transformers import AutoTokenizer

    from sightline.demo import base_model_path
    from sightline.demo.corpus import held_out_documents

    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    paragraphs = [p.strip() for document in held_out_documents() for p in document.split("\n\n")]
    rows = []
    for ids in tokenizer([p for p in paragraphs if p])["input_ids"]:
        ids = ids[:LONGEST]
        if len(ids) >= SHORTEST:
            masked = max(1, int(len(ids) * scored_from))
            rows.append({"input_ids": ids, "labels": [-100] * masked + ids[masked:]})
    random.Random(0).shuffle(rows)
    return rows[:N]


def _measure() -> dict[str, Any]:
    """Return, by task and order, the exact loss, Sightline's, and the Trainer's at every batch size."""
    import transformers
    from transformers import AutoModelForCausalLM, PrinterCallback

    from sightline.demo import base_model_path
    from sightline.evaluation import evaluate

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    found: dict[str, Any] = {}
    model = AutoModelForCausalLM.from_pretrained(base_model_path())
    for task, scored_from in {"every token": 0.0, "second half": 0.5}.items():
        rows = _rows(scored_from)
        by_length = sorted(rows, key=lambda row: len(row["labels"]))
        orders = {"as given": rows, "by length": by_length}
        orders |= {f"shuffled {i}": random.Random(i).sample(rows, len(rows)) for i in range(1, SHUFFLES)}
        trainers: dict[str, dict[int, float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for order, ordered in orders.items():
                sizes = (8,) if order.startswith("shuffled") else BATCH_SIZES
                trainers[order] = {}
                for size in sizes:
                    trainer = trainer_of(model, ordered, size, folder)
                    trainer.remove_callback(PrinterCallback)
                    trainers[order][size] = trainer.evaluate()["eval_loss"]
            sightline = {size: evaluate(model, rows, batch_tokens=size * 64).loss for size in BATCH_SIZES}
        found[task] = {"exact": exact_loss(model, rows), "sightline": sightline, "trainer": trainers}
    return found


def _show(results: dict[str, Any]) -> None:
    first = next(iter(results.values()))
    for task, of_first in first.items():
        exact = of_first["exact"]
        print(f"\n{task} of {N} rows scored; exact loss {exact:.6f}, perplexity {math.exp(exact):.3f}")
        print("Trainer's eval_loss less the exact loss (its error of the perplexity)")
        print(f"{'ranks':>6}  {'order':10}" + "".join(f"{'batch ' + str(size):>18}" for size in BATCH_SIZES))
        for ranks, result in results.items():
            for order in ("as given", "by length"):
                errors = [result[task]["trainer"][order][str(size)] - exact for size in BATCH_SIZES]
                cells = "".join(f"{e:+10.4f} ({100 * math.expm1(e):+5.2f} %)".rjust(18) for e in errors)
                print(f"{ranks:>6}  {order:10}{cells}")
            shuffled = [
                of[str(8)] - exact for order, of in result[task]["trainer"].items() if order.startswith("shuff")
            ]
            print(f"{ranks:>6}  shuffled at batch 8: {min(shuffled):+.4f} to {max(shuffled):+.4f}")
        ours = [abs(v / exact - 1) for result in results.values() for v in result[task]["sightline"].values()]
        print(f"Sightline, any batch and number of ranks: largest relative error {max(ours):.1e}")


if __name__ == "__main__":
    sys.exit(main())
