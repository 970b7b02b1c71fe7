"""Starting up: what is imported, how long it takes, and that everything is documented."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import sightline as public
from sightline.cli import COMMANDS, usage
from tests.cli.logs import sightline, trainer_state

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "scipy", "polars", "pydantic", "datasets", "matplotlib")


def imported_by(code: str) -> set[str]:
    """Return the packages loaded after some code ran in a process of its own."""
    listing = f"{code}\nimport sys; print(); print('loaded:', *sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_import_sightline_imports_nothing_heavy():
    """Not even NumPy."""
    assert not imported_by("import sightline") & {*HEAVY, "numpy", "rich", "typer"}


def test_reading_imports_nothing_heavy(tmp_path):
    """A page needs NumPy and rich; neither torch nor scipy, polars or typer."""
    path = trainer_state(tmp_path / "trainer_state.json")
    loaded = imported_by(f"from sightline.cli import main; main(['read', {str(path)!r}])")
    assert "numpy" in loaded and not loaded & {*HEAVY, "typer"}


def test_json_needs_no_terminal_package(tmp_path):
    """Nor rich, when JSON is asked for."""
    path = trainer_state(tmp_path / "trainer_state.json")
    assert "rich" not in imported_by(f"from sightline.cli import main; main(['read', '--json', {str(path)!r}])")


def test_options_go_through_typer_and_mean_the_same(tmp_path):
    """The short way without typer and the long way with it print the same."""
    path = trainer_state(tmp_path / "trainer_state.json")
    short, long = sightline("read", path), sightline("read", path, "--fail-on", "overfitting,diverged")
    assert (short.returncode, short.stdout) == (long.returncode, long.stdout)


def test_help_is_quick_and_lists_every_command():
    """`sightline --help` imports no command."""
    began = time.perf_counter()
    done = sightline("--help")
    assert time.perf_counter() - began < 2.0  # 0.03 s on a quiet machine
    assert done.stdout == usage()
    assert all(f"  {name} " in done.stdout and command.summary in done.stdout for name, command in COMMANDS.items())
    assert not imported_by("from sightline.cli import main; main(['--help'])") & {*HEAVY, "numpy", "rich", "typer"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_reading_takes_little_memory(tmp_path):
    """Under 80 MB for a small log."""
    path = trainer_state(tmp_path / "trainer_state.json")
    code = (
        f"from sightline.cli import main; main(['read', {str(path)!r}])\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    name, kilobytes, _ = done.stdout.split()[-3:]
    assert name == "VmHWM:" and int(kilobytes) * 1024 < 80e6


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name):
    """Every command has its section, and every option of it is named there."""
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert f"## sightline {name}\n" in text
    section = text.split(f"## sightline {name}\n")[1].split("\n## ")[0]
    done = sightline(name, "--help")
    assert done.returncode == 0 and "Example:" in done.stdout
    options = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  --")]
    assert "--json" in options
    assert [option for option in options if option != "--help" and option not in section] == []


def test_public_names_are_there():
    """Every name of __all__ can be imported, and only those."""
    for name in public.__all__:
        assert getattr(public, name) is not None
    assert set(public.__all__) <= set(dir(public))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = public.no_such_name


def test_missing_torch_is_answered_with_its_pip_line():
    """`sightline.watch` without the extra says how to get it."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "import sightline\n"
        "try: sightline.watch\n"
        "except sightline.SightlineError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'sightline[train]'" in done.stdout
