"""Makes the samples of PyTorch's SummaryWriter: ``python tests/samples/make_tensorboard.py`` (torch, tensorboard)."""

from __future__ import annotations

import shutil
from pathlib import Path

from made_losses import points

HERE = Path(__file__).parent


def main() -> None:
    """Write scalars of both styles between histograms, images and text, and a group of scalars in its own folders."""
    import tensorboard
    import torch
    from torch.utils.tensorboard import SummaryWriter

    folder = HERE / "tensorboard" / tensorboard.__version__
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    writer = SummaryWriter(str(folder / "mixed"))
    writer.add_text("config", "{}")
    for step, metrics in points():
        for name, value in metrics.items():
            writer.add_scalar(name, value, step, new_style="learning" in name or "eval" in name)
        if step % 80 == 0:
            writer.add_histogram("weights", torch.randn(50), step)
            writer.add_image("sample", torch.rand(1, 4, 4), step)
    writer.close()
    writer = SummaryWriter(str(folder / "grouped"))
    for step, metrics in points(12):
        kind = "train" if "train/loss" in metrics else "val"
        writer.add_scalars("loss", {kind: metrics.get("train/loss", metrics.get("eval/loss"))}, step)
    writer.close()


if __name__ == "__main__":
    main()
