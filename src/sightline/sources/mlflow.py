"""MLflow's folders: a file a metric, a line ``timestamp value step`` a point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import MalformedLog
from sightline.runs import Curve, Run, Status
from sightline.runs.names import judged_metrics, not_a_loss
from sightline.sources.files import head, is_folder, is_regular, read_whole
from sightline.sources.numbers import as_array, as_step
from sightline.sources.table import MAX_METRICS
from sightline.sources.table_runs import renamed

NAME = "mlflow"
_LINE = re.compile(rb"[0-9]{9,19}[ \t][-+0-9.eEnaifNIF]{1,40}(?:[ \t]-?[0-9]{1,18})?")
_FIELD = re.compile(
    r"^(run_name|run_id|run_uuid|status|start_time|end_time|lifecycle_stage): {0,4}(.{0,300}?)\s{0,8}$", re.M
)
_MAX_DEPTH = 4
_STATUS = {"1": Status.RUNNING, "3": Status.FINISHED, "4": Status.FAILED, "5": Status.STOPPED}
"""MLflow's RunStatus numbers; 2 is scheduled."""


def recognises(path: Path) -> bool:
    """Return whether ``path`` is an MLflow run's folder, a folder of its metric files, or one such file."""
    if not is_folder(path):
        return _is_metric_file(path)
    if is_folder(path / "metrics"):
        return is_regular(path / "meta.yaml")
    files = _files_in(path)
    return bool(files) and all(_is_metric_file(file) for file in files[:20])


def covers(folder: Path, path: Path) -> bool:
    """Return whether a path below a run's folder belongs to the run: all of it does."""
    return path != folder


def files(path: Path) -> list[Path]:
    """Return the files that a run's folder is read from."""
    folder = path if is_folder(path) else _metrics_root(path)
    metrics = folder / "metrics" if is_folder(folder / "metrics") else folder
    return [metrics.parent / "meta.yaml", *_metric_files(metrics)]


def read(path: Path) -> Run:
    """Read the run a folder of metric files tells; one of the files stands for its folder.

    Raises
    ------
    MalformedLog
        If none of the files holds a point.
    """
    folder = path if is_folder(path) else _metrics_root(path)
    root = folder.parent if folder.name == "metrics" else folder
    metrics = folder / "metrics" if is_folder(folder / "metrics") else folder
    damage: list[str] = []
    points = {}
    for file in _metric_files(metrics):
        curve = _curve(file, damage)
        if curve is not None:
            points[file.relative_to(metrics).as_posix()] = curve
    if not points:
        raise MalformedLog(f"{path}: no metric file with lines of the form 'timestamp value step' in it")
    names = renamed(list(points))
    curves = {names[name]: curve for name, curve in points.items()}
    train_metric, eval_metric = judged_metrics({name: len(curve) for name, curve in curves.items()})
    fields = _fields(root / "meta.yaml")
    config = _params(root / "params")
    if reason := not_a_loss(curves):
        config["not_a_loss"] = reason
    return Run(
        path=path,
        format=NAME,
        name=fields.get("run_name") or root.name,
        curves=curves,
        config=config,
        status=_STATUS.get(fields.get("status", ""), Status.UNKNOWN),
        train_metric=train_metric,
        eval_metric=eval_metric,
        damage=tuple(damage),
    )


def _is_metric_file(path: Path) -> bool:
    lines = [line for line in head(path)[:4096].splitlines()[:-1] or head(path).splitlines() if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines[:20])


def _metrics_root(file: Path) -> Path:
    """Return the folder whose metric files belong together; a metric called ``a/b`` lies in a folder of its own."""
    return next((parent for parent in list(file.parents)[:_MAX_DEPTH] if parent.name == "metrics"), file.parent)


def _files_in(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if is_regular(path) and not path.name.startswith(".")]
    except OSError:
        return []


def _metric_files(folder: Path, depth: int = _MAX_DEPTH) -> list[Path]:
    files = [path for path in _files_in(folder) if _is_metric_file(path)]
    if depth > 1:
        for below in sorted(path for path in folder.iterdir() if is_folder(path)):
            files += _metric_files(below, depth - 1)
    return files[:MAX_METRICS]


def _curve(file: Path, damage: list[str]) -> Curve | None:
    """Return the points of one metric file."""
    rows = [line.split() for line in read_whole(file).decode("utf-8", "replace").splitlines()]
    whole = [row for row in rows if len(row) in (2, 3) and row[0].isdigit()]
    if not whole:
        return None
    values, valid = as_array([row[1] for row in whole])
    steps = [as_step(row[2]) if len(row) == 3 else i for i, row in enumerate(whole)]
    keep = np.array([step is not None for step in steps]) & (np.ones(len(whole), bool) if valid is None else valid)
    if len(whole) < sum(map(bool, rows)) or not keep.all():
        damage.append(f"{file}: some lines are not of the form 'timestamp value step' and were left out")
    return Curve.of(np.array([step or 0 for step in steps])[keep], values[keep]) if keep.any() else None


def _fields(meta: Path) -> dict[str, str]:
    """Return the plain fields of meta.yaml that are of use here."""
    if not is_regular(meta):
        return {}
    return {
        key: value.strip("'\"") for key, value in _FIELD.findall(read_whole(meta, 1 << 20).decode("utf-8", "replace"))
    }


def _params(folder: Path) -> dict[str, Any]:
    """Return the run's parameters, one file each."""
    return {
        file.name: read_whole(file, 1 << 16).decode("utf-8", "replace").strip()
        for file in _files_in(folder)[:500]
        if file.lstat().st_size < 1 << 16
    }
