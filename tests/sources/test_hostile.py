"""What a log must not be able to do: take long, take much memory, run anything, or raise anything undeclared."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sightline.sources
from sightline.errors import SourceError
from sightline.runs import Run
from sightline.sources import read_runs
from sightline.sources.follow import Follower
from sightline.sources.lines import LineSplitter

SOURCES = Path(sightline.sources.__file__).parent
GOOD = b"step 1: train loss 2.0, val loss 2.1\nstep 2: train loss 1.0, val loss 2.0\n"

TEXTS: dict[str, bytes] = {
    "one long line": GOOD + b"x" * 10_000_000,
    "one long line of numbers": GOOD + b"loss 1 " * 1_500_000,
    "carriage returns only": (GOOD * 1000).replace(b"\n", b"\r"),
    "NUL": GOOD + bytes(5_000_000),
    "UTF-16": (GOOD * 100).decode().encode("utf-16"),
    "nested JSON": b'{"loss": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "nested JSON, far": b'{"log_history": ' + b'[{"a": ' * 1_000_000,
    "nested dictionaries": GOOD + b"{'loss': " * 500_000,
    "many keys": b"{" + b", ".join(b'"loss%d": 1' % i for i in range(1_000_000)) + b"}",
    "many metrics": b'{"log_history": [{"loss": 1, "step": 1, '
    + b", ".join(b'"m%d": 1' % i for i in range(1_000_000))
    + b"}]}",
    "one key a million times": b'{"log_history": [{' + b", ".join([b'"loss": 1'] * 1_000_000) + b', "step": 1}]}',
    "a key of 10 MB": b'{"log_history": [{"' + b"k" * 10_000_000 + b'": 1, "loss": 1, "step": 1}]}',
    "5,000 digits": b'{"log_history": [{"loss": ' + b"9" * 5000 + b', "step": ' + b"9" * 5000 + b"}]}",
    "digits": GOOD + b"step " + b"9" * 500_000 + b" loss " + b"9" * 500_000 + b"\n",
    "lone surrogates": b'{"log_history": [{"loss": 1, "\\ud800": 2, "step": 1}]}',
    "invalid UTF-8": GOOD + b"\xff\xfe\xfd loss 3\n" * 1000,
    "many columns": b"step,loss" + b",a" * 200_000 + b"\n" + b"1,2" + b",3" * 200_000 + b"\n",
    "quotes": b"step,loss\n" + b'"' * 3_000_000 + b"\n1,2\n",
    "escape sequences": GOOD + b"\x1b[" + b"1;" * 2_000_000 + b"m\n",
    "many restarts": b"step,loss\n" + b"2,1\n1,1\n" * 200_000,
    "steps up and down": b"step,loss\n" + b"".join(b"%d,1\n" % (5 + i % 2 + i // 9) for i in range(300_000)),
    "a zip": b"PK\x03\x04" + b"\0" * 5_000_000,
    "a pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "YAML": b"a: &a [x, x]\nb: &b [*a, *a]\nloss: 1\nloss: 2\n" * 100,
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("file_name", ["unknown", "trainer_state.json"])
def test_hostile_text(tmp_path: Path, name: str, file_name: str) -> None:
    """A run or a named error, in a bounded time."""
    path = tmp_path / file_name
    path.write_bytes(TEXTS[name])
    began = time.process_time()
    runs, errors = read_runs([path])
    assert time.process_time() - began < 10
    assert all(isinstance(run, Run) for run in runs) and (runs or errors)
    for run in runs:
        assert len(run.curves) <= 10_001


def test_long_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    """A line of 10 MB between good ones is left out, and the run says so."""
    path = tmp_path / "train.log"
    path.write_bytes(GOOD + b"loss " * 2_000_000 + b"\nstep 3: train loss 0.5, val loss 1.9\n")
    (run,), errors = read_runs([path])
    assert not errors and run.curves["loss"].steps.tolist() == [1, 2, 3]
    assert any("longer than 1 MiB" in sentence for sentence in run.damage)


def test_line_splitter_holds_no_more_than_its_limit() -> None:
    """A line without an end is not kept, however it comes."""
    splitter = LineSplitter(limit=1000)
    for _ in range(1000):
        assert splitter.feed(b"x" * 100) == []
        assert len(splitter.tail) <= 1000
    assert splitter.feed(b"end\nnext\n") == [b"next"] and splitter.skipped == 1


def test_a_gigabyte_of_one_line_takes_little_memory(tmp_path: Path) -> None:
    """A sparse file of 1 GB that is one line: bounded memory and time, in a process of its own."""
    path = tmp_path / "train.log"
    path.write_bytes(b"".join(b"step %d: train loss 2.0, val loss 2.1\n" % step for step in range(2000)))
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    program = (
        "import resource, sys, time\n"
        "from sightline.sources import read_runs\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "runs, errors = read_runs([sys.argv[1]])\n"
        "print(len(runs), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    began = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert shown[0] == "1" and int(shown[1]) < 64 * 1024
    assert time.monotonic() - began < 60


def test_a_log_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """A file that gains lines between two pieces is read up to where it was."""
    path = tmp_path / "train.log"
    path.write_bytes(GOOD)
    follower = Follower(path)
    follower.poll()
    path.write_bytes(GOOD * 1000)
    follower.poll()
    assert follower.run is not None


def test_many_files(tmp_path: Path) -> None:
    """Thousands of files that are no logs are passed over quickly."""
    for i in range(3000):
        (tmp_path / f"row{i}.txt").write_text("nothing to see")
    (tmp_path / "z.log").write_bytes(GOOD)
    began = time.process_time()
    runs, errors = read_runs([tmp_path])
    assert time.process_time() - began < 10
    assert len(runs) == 1 and not errors


def test_no_reader_evaluates_what_it_reads() -> None:
    """No eval, exec, compile, literal_eval, pickle, marshal, yaml or torch in the readers."""
    forbidden = {"eval", "exec", "compile", "__import__", "literal_eval"}
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                module = getattr(getattr(node.func, "value", None), "id", None)
                assert name not in forbidden or (name == "compile" and module == "re"), (file.name, node.lineno)
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                banned = {"pickle", "marshal", "shelve", "yaml", "torch", "dill", "zipfile", "tarfile", "gzip"}
                assert not banned & {name.split(".")[0] for name in names}, (file.name, node.lineno)


def test_reading_a_small_log_loads_little() -> None:
    """A small state is read without SciPy, polars, SQLite, torch or the hub's client."""
    program = (
        "import sys\nfrom sightline.sources import read_runs\nread_runs([sys.argv[1]])\n"
        "heavy = {'scipy', 'polars', 'sqlite3', 'torch', 'huggingface_hub', 'pydantic', 'pandas', 'yaml', 'csv'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    sample = Path(__file__).parents[1] / "samples" / "transformers" / "5.23.0" / "output"
    shown = subprocess.run(
        [sys.executable, "-c", program, str(sample)], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() in ("[]", "['csv']")


def test_memory_is_bounded_by_the_curves(tmp_path: Path) -> None:
    """A captured terminal of 60 MB of bars and few losses takes a few megabytes."""
    path = tmp_path / "train.log"
    bar = b"\r 50%|#####     | 500/1000 [00:10<00:10,  9.99it/s]"
    with path.open("wb") as file:
        for step in range(10, 1010, 10):
            file.write(bar * 12_000 + b"\n{'loss': 1.0, 'epoch': %.2f}\n" % (step / 500))
    assert path.stat().st_size > 55_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (run,), errors = read_runs([path])
    assert not errors and len(run.curves["loss"]) == 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024


def test_errors_are_declared(tmp_path: Path) -> None:
    """Every reader's refusal is a SourceError that names the file."""
    for i, content in enumerate(TEXTS.values()):
        path = tmp_path / f"file{i}"
        path.write_bytes(content[:100_000])
        try:
            sightline.sources.read(path)
        except SourceError as error:
            assert path.name in str(error) and "\n" not in str(error)


HOSTILE = [
    *(
        b"a",
        b"0",
        b" ",
        b"'",
        b"{'",
        b"{'loss': ",
        b"1,",
        b"loss ",
        b"epoch ",
        b"\x1b[",
        b"=",
        b"|",
        b"1/",
        b"eval ",
        b".1",
    ),
    *(b"-", b"e+", b"np.float64(", b"'a': 1", b"num examples ", b"rank ", b"nan"),
]
PATTERNS = {
    f"{module.__name__.removeprefix('sightline.')}.{name}": value
    for info in pkgutil.walk_packages(sightline.sources.__path__, "sightline.sources.")
    for module in [importlib.import_module(info.name)]
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
}


@pytest.mark.parametrize("name", PATTERNS)
def test_no_expression_blows_up(name: str) -> None:
    """100,000 hostile characters take every expression of every reader at most a moment."""
    pattern = PATTERNS[name]
    for piece in HOSTILE:
        content = piece * (100_000 // len(piece))
        text = content if isinstance(pattern.pattern, bytes) else content.decode()
        began = time.process_time()
        for _ in pattern.finditer(text):
            pass
        assert time.process_time() - began < 0.5, (name, piece)
