"""What a run line tells of its surroundings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from sightline.journal import Masker
from sightline.journal.environment import describe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_surroundings_are_told():
    """As strict JSON, with this Python and the packages that are installed."""
    told = describe(Masker())
    assert orjson.loads(orjson.dumps(told)) == told
    assert told["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert told["packages"]["numpy"] and told["cpus"] >= 1 and told["cwd"] == str(Path.cwd())


@pytest.mark.parametrize("kind", ["branch", "packed", "detached", "worktree", "none", "broken"])
def test_the_commit_is_read_from_gits_own_files(tmp_path, monkeypatch, kind):
    """No process is started for it, and a broken repository does no harm."""
    git, work = tmp_path / ".git", tmp_path / "src"
    work.mkdir()
    git.mkdir()
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    if kind in ("branch", "worktree"):
        (git / "refs" / "heads" / "main").write_text(COMMIT + "\n")
    elif kind == "packed":
        (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n")
    elif kind == "detached":
        (git / "HEAD").write_text(COMMIT + "\n")
    elif kind == "none":
        git.rename(tmp_path / "git")
    if kind == "worktree":
        tree = git / "worktrees" / "w"
        tree.mkdir(parents=True)
        (tree / "HEAD").write_text("ref: refs/heads/main\n")
        (tree / "commondir").write_text("../..\n")
        work = tmp_path / "w"
        work.mkdir()
        (work / ".git").write_text(f"gitdir: {tree}\n")
    monkeypatch.chdir(work)
    expected = None if kind == "broken" else COMMIT
    if kind == "none" and any((parent / ".git").exists() for parent in tmp_path.parents):
        pytest.skip("the temporary folder lies in a repository")
    assert describe(Masker())["git_commit"] == (None if kind == "none" else expected)


def test_no_torch_and_no_polars_are_imported_to_record():
    """They cost seconds and memory; polars comes when a run ends."""
    code = (
        "import sys, tempfile; from pathlib import Path; from sightline.journal import Recorder; "
        "r = Recorder.open(Path(tempfile.mkdtemp())); r.log(1, {'loss': 1.0}); r.run(); "
        "assert not {'torch', 'polars', 'scipy', 'pandas', 'pydantic'} & set(sys.modules), sys.modules.keys(); "
        "r.end('finished'); assert 'torch' not in sys.modules and 'polars' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
