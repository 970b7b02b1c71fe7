"""Makes the samples of Weights & Biases' offline mode: ``python tests/samples/make_wandb.py`` (needs wandb)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from made_losses import points

HERE = Path(__file__).parent


def main() -> None:
    """Log one run offline, as the Trainer's callback does, and keep its file."""
    import wandb

    folder = HERE / "wandb" / wandb.__version__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"WANDB_MODE": "offline", "WANDB_CONSOLE": "off", "WANDB_DISABLE_CODE": "true"}
        quiet = {"x_disable_stats": True, "disable_git": True, "program": "make_wandb.py", "x_executable": "python"}
        settings = wandb.Settings(**quiet)
        run = wandb.init(dir=place, project="samples", name="overfits", config={"max_steps": 240}, settings=settings)
        for step, metrics in points():
            run.log({**metrics, "train/global_step": step})
        run.finish()
        (file,) = Path(place).rglob("*.wandb")
        shutil.copyfile(file, folder / "run-sample.wandb")


if __name__ == "__main__":
    main()
