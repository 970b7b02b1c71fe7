"""The textbook case: validation turns up while training falls on."""

from pathlib import Path

import numpy as np

from sightline.diagnosis import diagnose
from sightline.runs import Phase, RunBuilder


def textbook_run():
    builder = RunBuilder(Path("textbook"), "test", "textbook")
    evaluated = [2.61, 2.24, 1.98, 1.83, 1.75, 1.72, 1.74, 1.79, 1.86, 1.93, 2.01, 2.08, 2.16, 2.24, 2.31]
    for i, loss in enumerate(evaluated, start=1):
        builder.log(100 * i, {"loss": 2.6 * 0.88**i, "eval_loss": loss})
    return builder.build()


def test_textbook_overfitting_reads_right():
    """Lowest at step 600 and rising after: overfitting since about 600, keep step 600."""
    diagnosis = diagnose(textbook_run())
    assert diagnosis.phase is Phase.OVERFITTING
    assert diagnosis.best is not None and diagnosis.best.step == 600
    assert round(float(np.exp(diagnosis.best.eval_loss)), 2) == 5.58
    assert diagnosis.onset is not None and diagnosis.onset.low <= 600 <= diagnosis.onset.high
    assert diagnosis.wasted_fraction == 0.6
