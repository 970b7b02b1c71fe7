"""Makes the sample of trackio: ``python tests/samples/make_trackio.py`` (needs trackio)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from made_losses import points

HERE = Path(__file__).parent


def main() -> None:
    """Log two runs into one project and keep its database."""
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"TRACKIO_DIR": place, "HF_HUB_OFFLINE": "1"}
        import trackio

        folder = HERE / "trackio" / trackio.__version__
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, steps in (("short", 12), ("overfits", 24)):
            trackio.init(project="samples", name=name, config={"max_steps": 10 * steps}, auto_log_gpu=False)
            for step, metrics in points(steps):
                trackio.log({**metrics, "train/global_step": step})
            trackio.finish()
        source = sqlite3.connect(Path(place) / "samples.db")
        for (table,) in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if table not in ("metrics", "configs") and not table.startswith("sqlite"):
                source.execute(f'DROP TABLE "{table}"')  # keeps the sample small
        for (index,) in source.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"
        ).fetchall():
            source.execute(f'DROP INDEX "{index}"')
        source.commit()
        source.execute("PRAGMA journal_mode = DELETE")
        source.execute("VACUUM INTO ?", (str(folder / "samples.db"),))


if __name__ == "__main__":
    main()
