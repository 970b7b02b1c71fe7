"""Makes the samples of Lightning's loggers: ``python tests/samples/make_lightning.py`` (lightning, tensorboard)."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Fit a line for a few epochs under both loggers and keep what they wrote."""
    import lightning
    import torch
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), 3 * batch[0] + 1)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
            self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch[0]), 3 * batch[0] + 1))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    rows = torch.utils.data.TensorDataset(torch.linspace(-1, 1, 48)[torch.randperm(48)][:, None])
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    folder = HERE / "lightning" / lightning.__version__
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        trainer = lightning.Trainer(
            max_epochs=4,
            log_every_n_steps=4,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=[CSVLogger(place, "csv"), TensorBoardLogger(place, "tensorboard")],
        )
        trainer.fit(Line(), loader, loader)
        for kind in ("csv", "tensorboard"):
            shutil.copytree(Path(place) / kind / "version_0", folder / kind / "version_0")
    for file in folder.rglob("hparams.yaml"):
        file.unlink()


if __name__ == "__main__":
    main()
