"""MLflow's database (``mlflow.db``), where it keeps runs unless told to use folders."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from sightline.errors import MalformedLog, SourceError
from sightline.runs import Curve, Run, Status
from sightline.runs.names import judged_metrics, not_a_loss
from sightline.sources.numbers import as_float, as_step
from sightline.sources.sqlite_file import Database, is_database
from sightline.sources.table import MAX_METRICS
from sightline.sources.table_runs import renamed

NAME = "mlflow"
_STATUS = {
    "RUNNING": Status.RUNNING,
    "FINISHED": Status.FINISHED,
    "FAILED": Status.FAILED,
    "KILLED": Status.STOPPED,
}


def recognises(path: Path) -> bool:
    """Return whether a file is MLflow's database."""
    if not is_database(path):
        return False
    try:
        with Database(path) as database:
            return {"runs", "metrics", "experiments", "params"} <= database.tables
    except SourceError:
        return False  # a database of something else, for all one can see


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in MLflow's database; deleted ones are left out.

    Raises
    ------
    MalformedLog
        If it is damaged or holds no metric.
    """
    points: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    params: dict[str, dict[str, str]] = defaultdict(dict)
    left_out: Counter[str] = Counter()
    with Database(path) as database:
        wanted = ("run_uuid", "name", "status", "lifecycle_stage")
        described = {str(row[0]): row[1:] for row in database.rows("runs", wanted, "start_time")}
        for run, key, value, step, is_nan in database.rows(
            "metrics", ("run_uuid", "key", "value", "step", "is_nan"), "timestamp, rowid"
        ):
            number, at, series = as_float(value), as_step(step), points[str(run)]
            if number is None or at is None:
                continue
            if str(key) not in series and len(series) >= MAX_METRICS:
                left_out[str(run)] += 1
                continue
            series[str(key)].append((at, float("nan") if is_nan else number))
        for run, key, value in database.rows("params", ("run_uuid", "key", "value"), "rowid"):
            params[str(run)][str(key)] = str(value)
    runs = []
    for run, (name, status, stage) in described.items():
        if stage == "deleted" or run not in points:
            continue
        names = renamed(list(points[run]))
        curves = {
            names[key]: Curve.of(np.array([at for at, _ in series]), np.array([value for _, value in series]))
            for key, series in points[run].items()
        }
        train_metric, eval_metric = judged_metrics({key: len(curve) for key, curve in curves.items()})
        reason = not_a_loss(curves)
        runs.append(
            Run(
                path=path,
                format=NAME,
                name=str(name or run)[:200],
                curves=curves,
                config={**params[run], **({"not_a_loss": reason} if reason else {})},
                status=_STATUS.get(str(status), Status.UNKNOWN),
                train_metric=train_metric,
                eval_metric=eval_metric,
                damage=(f"{path}: more than {MAX_METRICS} metrics; {left_out[run]} values were left out",)
                if left_out[run]
                else (),
            )
        )
    if not runs:
        raise MalformedLog(f"{path}: an MLflow database in which no metric was logged")
    return tuple(runs)


def read(path: Path) -> Run:
    """Read the longest run in MLflow's database."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))
