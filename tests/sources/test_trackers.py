"""MLflow's folders and database, trackio's database, models of the hub."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.cli import main
from sightline.errors import SourceError, UnknownLogFormat
from sightline.runs import Status
from sightline.sources import Cache, Found, find, hub, mlflow_db, read, read_runs
from tests.sources.test_trainer_state import history, write_state
from tests.sources.writers import event, event_file


def mlflow_run(folder: Path, name: str = "a", status: int = 3) -> Path:
    """Write an MLflow run's folder."""
    for metric, values in {"train_loss": [2.0, 1.0], "val/loss": [2.5, 2.0]}.items():
        file = folder / "metrics" / metric
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"170000000000{i} {value} {10 * i}\n" for i, value in enumerate(values, 1)))
    (folder / "params").mkdir()
    (folder / "params" / "lr").write_text("0.1")
    (folder / "meta.yaml").write_text(f"artifact_uri: x\nrun_name: '{name}'\nstatus: {status}\n")
    return folder


def test_mlflow_run_folder(tmp_path: Path) -> None:
    """Metrics with slashes lie in folders; name, status and parameters are kept."""
    (run,), errors = read_runs([mlflow_run(tmp_path / "mlruns" / "1" / "abc", "first").parents[1]])
    assert not errors
    assert run.curves["loss"].steps.tolist() == [10, 20] and run.curves["eval_loss"].values.tolist() == [2.5, 2.0]
    assert (run.name, run.status, dict(run.config)) == ("first", Status.FINISHED, {"lr": "0.1"})


def test_one_metric_file_stands_for_its_folder(tmp_path: Path) -> None:
    """Naming one metric of a run reads the run."""
    folder = mlflow_run(tmp_path / "abc")
    for file in (folder / "metrics" / "train_loss", folder / "metrics" / "val" / "loss"):
        assert set(read(file).curves) == {"loss", "eval_loss"}


def test_loose_metric_files_are_a_run_and_bad_lines_are_named(tmp_path: Path) -> None:
    """Metric files without MLflow's own folders are read; lines that are no points are reported."""
    (tmp_path / "train_loss").write_text("1700000000000 2.0 1\n1700000000001 1.0 2\n")
    (tmp_path / "val_loss").write_text("1700000000000 nan 1\n1700000000001 1.5 2\ngarbage\n")
    run = read(tmp_path / "train_loss")
    assert run.curves["eval_loss"].steps.tolist() == [1, 2]
    assert "val_loss" not in "".join(run.damage) or "left out" in run.damage[0]


def database(path: Path, statements: str) -> Path:
    """Write a database."""
    with sqlite3.connect(path) as connection:
        connection.executescript(statements)
    connection.close()
    return path


MLFLOW = """
CREATE TABLE experiments (experiment_id INTEGER, name VARCHAR(256));
CREATE TABLE runs (run_uuid VARCHAR(32), name VARCHAR(250), status VARCHAR(9), lifecycle_stage TEXT, start_time INT);
CREATE TABLE metrics (key VARCHAR(250), value FLOAT, timestamp BIGINT, run_uuid VARCHAR(32), step BIGINT, is_nan INT);
CREATE TABLE params (key VARCHAR(250), value VARCHAR(8000), run_uuid VARCHAR(32));
INSERT INTO runs VALUES ('r1', 'one', 'FINISHED', 'active', 1), ('r2', 'two', 'FAILED', 'active', 2);
INSERT INTO runs VALUES ('r3', 'gone', 'FINISHED', 'deleted', 3);
INSERT INTO metrics VALUES ('train_loss', 2.0, 1, 'r1', 1, 0), ('train_loss', 0.0, 2, 'r1', 2, 1);
INSERT INTO metrics VALUES ('val_loss', 2.5, 1, 'r1', 1, 0), ('train_loss', 3.0, 1, 'r2', 1, 0);
INSERT INTO metrics VALUES ('train_loss', 3.0, 1, 'r3', 1, 0);
INSERT INTO params VALUES ('lr', '0.1', 'r1');
"""


def test_mlflow_database(tmp_path: Path) -> None:
    """Every active run is read; MLflow's mark for NaN is NaN."""
    runs, errors = read_runs([database(tmp_path / "mlflow.db", MLFLOW)])
    assert not errors
    assert [(run.name, run.status) for run in runs] == [("one", Status.FINISHED), ("two", Status.FAILED)]
    assert str(runs[0].curves["loss"].values.tolist()) == "[2.0, nan]" and runs[0].config == {"lr": "0.1"}


def test_metrics_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run with more metrics than anybody looks at the first are read, and the others counted."""
    monkeypatch.setattr(mlflow_db, "MAX_METRICS", 5)
    more = "".join(f"INSERT INTO metrics VALUES ('m{i}', 1.0, 9, 'r1', 1, 0);" for i in range(9))
    (one, two), _ = read_runs([database(tmp_path / "mlflow.db", MLFLOW + more)])
    assert len(one.curves) == 5 and "6 values were left out" in one.damage[0] and two.damage == ()


def trackio_database(path: Path) -> sqlite3.Connection:
    """Begin a trackio project whose write-ahead log is in use."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT);"
        "CREATE TABLE configs (id INTEGER PRIMARY KEY, run_name TEXT, config TEXT, created_at TEXT);"
    )
    return connection


def log_to(connection: sqlite3.Connection, run: str, step: int, content: str) -> None:
    """Log one step."""
    row = ("2025-01-01", run, step, content)
    connection.execute("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", row)
    connection.commit()


def test_a_project_that_is_being_written_is_read_without_touching_it(tmp_path: Path) -> None:
    """Committed rows of the write-ahead log are read, nothing is written beside the database, no file changes."""
    connection = trackio_database(tmp_path / "p.db")
    for step in range(5):
        log_to(connection, "a", step, json.dumps({"train/loss": 1.0 / (step + 1), "eval/loss": 2.0}))
    log_to(connection, "b", 0, "{broken")
    log_to(connection, "b", 1, '{"train/loss": 3.0}')
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.iterdir()}
    runs, errors = read_runs([tmp_path / "p.db"])
    assert not errors
    assert [(run.name, len(run.curves["loss"])) for run in runs] == [("a", 5), ("b", 1)]
    assert "1 rows" in runs[0].damage[0]
    assert {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.iterdir()} == before
    connection.close()


def test_reading_a_closed_project_leaves_no_files(tmp_path: Path) -> None:
    """Opening a database in WAL mode usually makes two files; here it does not."""
    connection = trackio_database(tmp_path / "p.db")
    log_to(connection, "a", 1, '{"loss": 1.0}')
    connection.close()
    assert read(tmp_path / "p.db").curves["loss"].at(1) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["p.db"]


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE t (a); CREATE VIEW metrics AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS run_name, i AS step, '{}' AS metrics FROM n;",
        "CREATE TABLE cookies (name TEXT, value TEXT);",
    ],
    ids=["an endless view", "a browser's"],
)
def test_other_databases_are_no_logs(tmp_path: Path, statements: str) -> None:
    """A view in place of the table is never run, and other programs' databases are left alone."""
    with pytest.raises(UnknownLogFormat):
        read(database(tmp_path / "x.db", statements))


def test_damaged_database_is_a_typed_error(tmp_path: Path) -> None:
    """A database whose pages are broken raises nothing else."""
    path = database(tmp_path / "mlflow.db", MLFLOW)
    content = bytearray(path.read_bytes())
    content[5000:20000] = b"\xff" * len(content[5000:20000])
    path.write_bytes(bytes(content))
    with pytest.raises(SourceError):
        read(path)


POINTS = st.lists(st.tuples(st.integers(1, 50), st.floats(-1e300, 1e300)), min_size=2, max_size=30)


@settings(max_examples=40, deadline=None)
@given(points=POINTS, where=st.sampled_from(["mlflow", "mlflow.db", "trackio"]))
def test_random_runs_are_read_back(
    points: list[tuple[int, float]], where: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever finite values a tracker keeps come back at their steps."""
    steps = np.cumsum([gap for gap, _ in points]).tolist()
    values = [value for _, value in points]
    path = tmp_path_factory.mktemp("random") / where
    rows = list(zip(steps, values, strict=True))
    if where == "mlflow":
        (path / "metrics").mkdir(parents=True)
        (path / "meta.yaml").write_text("run_name: a\n")
        (path / "metrics" / "loss").write_text("".join(f"1700000000000 {value!r} {step}\n" for step, value in rows))
    elif where == "mlflow.db":
        database(
            path, MLFLOW.partition("INSERT")[0] + "INSERT INTO runs VALUES ('r1', 'one', 'FINISHED', 'active', 1);"
        )
        with sqlite3.connect(path) as connection:
            logged = [("loss", value, i, "r1", step, 0) for i, (step, value) in enumerate(rows)]
            connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", logged)
        connection.close()
    else:
        connection = trackio_database(path)
        logged = [(None, "2025-01-01", "a", step, json.dumps({"loss": value})) for step, value in rows]
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", logged)
        connection.commit()
        connection.close()
    curve = read(path).curves["loss"]
    assert curve.steps.tolist() == steps and curve.values.tolist() == values


def test_a_database_is_known_again(tmp_path: Path) -> None:
    """What the cache remembers of MLflow's database is not its folders' reader, which has the same name."""
    (tmp_path / "runs").mkdir()
    file = database(tmp_path / "runs" / "mlflow.db", MLFLOW)
    os.utime(file, (1e9, 1e9))
    for _ in range(2):
        with Cache(tmp_path / "cache") as cache:
            (found,) = [each for each in find([file.parent], cache=cache) if isinstance(each, Found)]
            runs, errors = found.read()
            assert len(runs) == 2 and not errors


@dataclass
class File:
    """What the hub says of a file."""

    path: str
    size: int


class FakeHub:
    """A repository on this machine."""

    def __init__(self, folder: Path, more: tuple[str, ...] = ()) -> None:
        self.folder, self.fetched, self.more = folder, list[str](), more

    def list_repo_tree(self, repo_id: str, *, recursive: bool) -> list[File]:
        """Return its files."""
        found = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return [File(str(path.relative_to(self.folder)), path.stat().st_size) for path in found] + [
            File(name, 10) for name in self.more
        ]

    def hf_hub_download(self, repo_id: str, filename: str) -> str:
        """Return the place of a file."""
        self.fetched.append(filename)
        return str(self.folder / filename)


def test_a_model_of_the_hub(tmp_path: Path) -> None:
    """Its state and event files are read and nothing else is fetched; paths are the hub's."""
    write_state(tmp_path / "checkpoint-50", history(50))
    write_state(tmp_path / "checkpoint-100", history(100))
    event_file(
        tmp_path / "other" / "events.out.tfevents.1.h", [event(s, {"train/loss": 7.0}) for s in range(10, 50, 10)]
    )
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    api = FakeHub(tmp_path, more=("../trainer_state.json", "/etc/trainer_state.json", "a/../../trainer_state.json"))
    runs = hub.read_all("hf://org/model", hub=api)
    assert [(str(run.path), run.format) for run in runs] == [
        ("hf:/org/model", "trainer_state"),
        ("hf:/org/model/other", "tensorboard"),
    ]
    assert runs[0].name == "model" and [c.step for c in runs[0].checkpoints] == [50, 100]
    assert "model.safetensors" not in api.fetched and not any(".." in name for name in api.fetched)


def test_a_model_of_the_hub_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sightline read owner/name` reads it like any path, beside others, and can be told which curve to judge."""
    write_state(tmp_path / "checkpoint-50", [{**entry, "eval_b_loss": 1.5} for entry in history(50)])
    monkeypatch.setattr(hub, "_hub", lambda model: FakeHub(tmp_path))
    monkeypatch.setattr(hub, "_check_reachable", lambda model: None)
    monkeypatch.chdir(tmp_path)
    code = main(["read", "org/model", "hf://org/model", "no-such-file", "--json", "--eval-metric", "eval_b_loss"])
    document = json.loads(capsys.readouterr().out)
    assert code == 3 and [error["path"] for error in document["errors"]] == ["no-such-file"]
    assert [(run["path"], run["name"]) for run in document["runs"]] == [("hf:/org/model", "model")] * 2
    assert all(run["best"]["eval_loss"] == 1.5 for run in document["runs"])


def test_a_model_without_the_hubs_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where huggingface_hub is not installed the model is an error of its own, with the line that installs it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    runs, (error,) = read_runs(["hf://org/model"])
    assert not runs and "pip install 'sightline[train]'" in error.error


def test_a_model_without_logs_or_out_of_reach(tmp_path: Path) -> None:
    """A repository that tells no run, and one that cannot be asked, say so."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError, match=r"no trainer_state.json"):
        hub.read_all("org/model", hub=FakeHub(tmp_path))

    class Broken(FakeHub):
        def list_repo_tree(self, repo_id: str, *, recursive: bool) -> list[File]:
            raise RuntimeError("404 Client Error\nmore")

    with pytest.raises(SourceError, match=r"404 Client Error\)$"):
        hub.read_all("org/model", hub=Broken(tmp_path))


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("hf://org/model", "org/model"),
        (Path("hf://org/model"), "org/model"),
        ("https://huggingface.co/org/model", "org/model"),
        ("nobody-here/model-1.5b", "nobody-here/model-1.5b"),
        ("tests/model", None),
        ("/org/model", None),
        ("a/b/c", None),
        ("single", None),
    ],
)
def test_what_names_a_model(
    text: str | Path, model: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path of this machine, mistyped or not, is not looked up on the network."""
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub.names_a_model(text) == model
