"""Makes the samples of Keras: ``KERAS_BACKEND=torch python tests/samples/make_keras.py`` (needs keras and torch)."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Fit a line, appending a second fit to the first's CSV file, and keep the CSV file and the printed text."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import numpy as np

    folder = HERE / "keras" / keras.__version__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    x = np.linspace(-1, 1, 64)[:, None]
    printed = io.StringIO()
    for epochs in (3, 6):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        logger = keras.callbacks.CSVLogger(folder / "training.csv", append=True)
        with contextlib.redirect_stdout(printed):
            model.fit(x, 3 * x, epochs=epochs, validation_split=0.25, batch_size=8, callbacks=[logger])
    (folder / "console.txt").write_text(printed.getvalue())


if __name__ == "__main__":
    main()
