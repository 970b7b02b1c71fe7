"""Makes the sample of MLflow's folders: ``python tests/samples/make_mlflow.py`` (needs mlflow)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from made_losses import points

HERE = Path(__file__).parent


def main() -> None:
    """Log one run into folders and keep what tells its metrics."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    folder = HERE / "mlflow" / mlflow.__version__
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        mlflow.set_tracking_uri(f"file:{place}/mlruns")
        mlflow.set_experiment("samples")
        with mlflow.start_run(run_name="overfits") as run:
            mlflow.log_params({"max_steps": 240, "learning_rate": 1e-3})
            for step, metrics in points():
                mlflow.log_metrics(metrics, step=step)
        (source,) = Path(place).rglob(run.info.run_id)
        for name in ("meta.yaml", "metrics", "params"):
            target = folder / "run" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (source / name).is_dir() else shutil.copyfile)(source / name, target)
        meta = folder / "run" / "meta.yaml"
        meta.write_text(meta.read_text().replace(place, "/samples"))


if __name__ == "__main__":
    main()
