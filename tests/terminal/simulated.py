"""A simulated fine-tune told to a display; run as a script it shows itself on standard output.

usage: python -m tests.terminal.simulated [--json] [--print] [--fail] [--interrupt] [--slow SECONDS]
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from pathlib import Path

from sightline.decisions import judge_run
from sightline.runs import RunBuilder, Severity, Status
from sightline.terminal.display import Display, choose_display

STEPS = 300


def fine_tune(display: Display, words: list[str] = ()) -> None:  # type: ignore[assignment]
    """Tell a display of a fine-tune of 300 steps that turns after half of them."""
    builder = RunBuilder(Path("outputs/a"), "journal", "outputs/a", max_steps=STEPS, status=Status.RUNNING)
    pause = float(words[words.index("--slow") + 1]) if "--slow" in words else 0.0
    display.notice("12 rows are cut at \x1b[31m512 tokens", Severity.WARNING)
    display.begin(
        run_name="outputs/a", max_steps=STEPS, first_step=0, details=[("model", "tiny"), ("data", "2000 rows")]
    )
    for step in range(1, STEPS + 1):
        time.sleep(pause)
        display.stepped(step)
        if step % 5 == 0:
            metrics = {"loss": 0.4 + 2 * math.exp(-step / 60), "learning_rate": 1e-4 * (1 - step / STEPS)}
            builder.log(step, {**metrics, "num_input_tokens_seen": 900.0 * step})
            display.logged(builder.build(), step, {**metrics, "num_input_tokens_seen": 900.0 * step})
        if step % 15 == 0:
            for done in (0, 50, 100):
                display.evaluating(done, 100)
            builder.log(step, {"eval_loss": 1.5 + 1.5 * math.exp(-step / 40) + 1e-5 * max(0, step - 150) ** 2})
            display.evaluated(judge_run(builder.build()))
        if "--print" in words and step % 100 == 0:
            print(f"printed at {step}")
            print(f"complaint at {step}", file=sys.stderr)
        if "--fail" in words and step == 200:
            raise RuntimeError("the GPU is on fire")
        if "--interrupt" in words and step == 200:
            os.kill(os.getpid(), signal.SIGINT)
    builder.status = Status.FINISHED
    display.end(judge_run(builder.build()), ["best weights: outputs/a/best"])


if __name__ == "__main__":
    fine_tune(choose_display(json="--json" in sys.argv), sys.argv[1:])
