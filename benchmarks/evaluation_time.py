"""What share of a real fine-tune its evaluations take, at 15 an epoch and the default bound of a tenth.

`sightline train` on the embedded base model and the demo's rows, six epochs of 1,200 rows. Three runs: the demo's 213
validation rows; 1,100 of them, which are dear; and these with three busy processes beside the run from its 10th to its 25th
second. Evaluations and their seconds are read from the journal, by which they are divided by the time of its last evaluation;
the account that the run itself gives has the timing of rows and the check of the best weights in it as well.

    python benchmarks/evaluation_time.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TRAINED, FEW, MANY = 1200, 213, 1100
EPOCHS = 6
BUSY, BUSY_FROM_S, BUSY_FOR_S = 3, 10.0, 15.0


def write_rows(folder: Path, validation: int) -> None:
    """Write training and validation rows; many validation rows are training rows that are not trained on."""
    from sightline.demo import demo_rows

    rows = demo_rows(seed=0)
    held_out = (list(rows.validation) + list(rows.train[TRAINED:]))[:validation]
    for name, part in (("train", rows.train[:TRAINED]), ("validation", held_out)):
        lines = [json.dumps({"prompt": r["prompt"], "completion": r["completion"]}) for r in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def keep_busy() -> None:
    """Take the processor's time from somebody else for a while."""
    time.sleep(BUSY_FROM_S)
    spin = f"import time; end = time.time() + {BUSY_FOR_S}\nwhile time.time() < end: pass"
    for busy in [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(BUSY)]:
        busy.wait()


def measure(validation: int, *, busy: bool) -> dict[str, Any]:
    """Train once and read the journal."""
    from sightline.demo import base_model_path

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, validation)
        command = [
            sys.executable, "-m", "sightline", "train", "--model_name_or_path", str(base_model_path()), "--dataset",
            str(folder / "train.jsonl"), "--eval_dataset", str(folder / "validation.jsonl"), "--output_dir",
            str(folder / "run"), "--num_train_epochs", str(EPOCHS), "--max_length", "128", "--early_stopping", "false",
            "--use_cpu", "true", "--force",
        ]  # fmt: skip
        if busy:
            threading.Thread(target=keep_busy, daemon=True).start()
        subprocess.run(command, check=True, capture_output=True)
        lines = [json.loads(line) for line in (folder / "run" / "sightline" / "journal.jsonl").open()]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    told = [line["config"]["evaluation_time"] for line in lines if "evaluation_time" in line.get("config", {})]
    spent_s, passed_s = sum(line["runtime_s"] for line in evaluations), evaluations[-1]["t"]
    return {
        "validation_rows": validation,
        "busy": busy,
        "evaluations_after_base": len(evaluations) - 1,
        "rows_first": evaluations[0]["losses"]["rows"],
        "rows_last": evaluations[-1]["losses"]["rows"],
        "evaluations_s": spent_s,
        "run_s": passed_s,
        "share": spent_s / passed_s,
        "share_told": told[-1],
    }


def main() -> int:
    """Measure the three runs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file")
    options = parser.parse_args()
    found = [measure(FEW, busy=False), measure(MANY, busy=False), measure(MANY, busy=True)]
    print(f"{'validation rows':28}{'evaluations':>12}{'rows scored':>14}{'run s':>8}{'share':>8}{'told':>8}")
    for one in found:
        what = f"{one['validation_rows']:,}{', machine busy' if one['busy'] else ''}"
        rows = f"{one['rows_first']} to {one['rows_last']}"
        print(
            f"{what:28}{one['evaluations_after_base']:>12}{rows:>14}{one['run_s']:>8.1f}{one['share']:>8.1%}"
            f"{one['share_told']:>8.1%}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
