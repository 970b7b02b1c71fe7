"""trackio's database: a file a project, a row a logged step, a JSON object a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sightline.errors import MalformedLog, SourceError
from sightline.runs import Run
from sightline.sources.json_text import parse
from sightline.sources.sqlite_file import Database, is_database
from sightline.sources.table import Origin, Table
from sightline.sources.table_runs import runs_of

NAME = "trackio"
_BATCH = 5000
_MAX_RUNS = 10_000


def recognises(path: Path) -> bool:
    """Return whether a file is a trackio project's database."""
    if not is_database(path):
        return False
    try:
        with Database(path) as database:
            return {"run_name", "step", "metrics"} <= set(database.columns("metrics"))
    except SourceError:
        return False  # a database of something else, for all one can see


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run of a trackio project.

    Raises
    ------
    MalformedLog
        If the database is damaged or holds no metric.
    """
    tables: dict[str, Table] = {}
    names: dict[str, str] = {}
    pending: dict[str, list[dict[str, Any]]] = {}
    broken = 0
    with Database(path) as database:
        columns = database.columns("metrics")
        identity = "run_id" if "run_id" in columns else "run_name"  # older projects have names only
        if not {"run_name", "step", "metrics"} <= set(columns):
            raise MalformedLog(
                f"{path}: table metrics has no columns run_name, step, metrics; written by another program?"
            )
        for run, name, step, content in database.rows("metrics", (identity, "run_name", "step", "metrics"), "rowid"):
            entry = _object(content)
            if entry is None or len(names) >= _MAX_RUNS:
                broken += 1
                continue
            key = str(run)
            names.setdefault(key, str(name))
            rows = pending.setdefault(key, [])
            rows.append({"_step": step, **entry})
            if len(rows) >= _BATCH:
                tables.setdefault(key, Table()).add(pending.pop(key))
        for key, rows in pending.items():
            tables.setdefault(key, Table()).add(rows)
        configs = _configs(database, identity)
    damage = [f"{path}: {broken} rows are no JSON objects and were left out"] if broken else []
    for table in tables.values():
        table.complete = True
    runs = [
        run
        for key, table in tables.items()
        for run in runs_of(table, Origin(path, NAME, names[key][:200], configs.get(key, {}), damage=list(damage)))
    ]
    if not runs:
        raise MalformedLog(f"{path}: a trackio project in which no metric was logged")
    return tuple(runs)


def read(path: Path) -> Run:
    """Read the longest run of a trackio project."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _configs(database: Database, identity: str) -> dict[str, dict[str, Any]]:
    """Return the configuration of each run."""
    if not {identity, "config"} <= set(database.columns("configs")):
        return {}
    found = {}
    for run, content in database.rows("configs", (identity, "config"), "rowid"):
        entry = _object(content) or {}
        found[str(run)] = {
            key: value
            for key, value in entry.items()
            if not key.startswith("_") and type(value) in (str, int, float, bool)
        }
    return found


def _object(content: object) -> dict[str, Any] | None:
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    if not isinstance(content, bytes):
        return None
    try:
        value = parse(content)
    except ValueError:
        return None
    return value if type(value) is dict else None
