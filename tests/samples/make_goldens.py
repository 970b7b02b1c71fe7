"""Writes what every sample reads to beside it: ``python tests/samples/make_goldens.py``; look at the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sightline.runs import Run
from sightline.sources import read_runs

HERE = Path(__file__).parent
SAMPLES = tuple(
    sorted(
        path
        for path in HERE.glob("*/*/*")
        if path.parts[-3] != "sightline" and not path.name.endswith(".golden.json") and not path.name.startswith("__")
    )
)


def golden_file(sample: Path) -> Path:
    """Return the file that holds what a sample reads to."""
    return sample.with_name(sample.name + ".golden.json")


def as_golden(run: Run, root: Path) -> dict[str, Any]:
    """Return what of a run is compared, numbers to nine digits."""
    return {
        "path": str(run.path.relative_to(root)) if run.path != root else ".",
        "format": run.format,
        "status": run.status.value,
        "max_steps": run.max_steps,
        "step_unit": run.step_unit,
        "significant_digits": run.significant_digits,
        "train_metric": run.train_metric,
        "eval_metric": run.eval_metric,
        "segments": [segment.from_step for segment in run.segments],
        "checkpoints": [checkpoint.step for checkpoint in run.checkpoints],
        "damage": len(run.damage),
        "curves": {
            name: [[int(step), float(f"{value:.9g}")] for step, value in zip(curve.steps, curve.values, strict=True)]
            for name, curve in sorted(run.curves.items())
        },
    }


def read_as_golden(sample: Path) -> list[dict[str, Any]]:
    """Return every run of a sample as it is compared."""
    runs, errors = read_runs([sample])
    assert not errors, errors
    return [as_golden(run, sample) for run in runs]


def main() -> None:
    """Write all of them."""
    for sample in SAMPLES:
        text = json.dumps(read_as_golden(sample), indent=1)
        golden_file(sample).write_text(
            text.replace("[\n     ", "[").replace("\n    ]", "]").replace(",\n     ", ", ") + "\n"
        )


if __name__ == "__main__":
    main()
