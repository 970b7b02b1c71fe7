"""What the project says of itself is true: links, the file tree, versions, no path of a single machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import sightline

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every relative link of a page is a file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_every_folder():
    """The layout names each package, and no package that is not there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    layout = readme.split("## Layout")[1].split("```")[1]
    shown = set(re.findall(r"^  (\w+)/", layout, flags=re.MULTILINE))
    there = {p.parent.name for p in (ROOT / "src/sightline").glob("*/__init__.py")}
    assert shown == there


def test_every_page_is_listed_in_the_readme():
    """A page nobody finds is no page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {p.name for p in (ROOT / "docs").glob("*.md")} <= set(re.findall(r"docs/([\w.]+\.md)", readme))


def test_the_version_is_one():
    """Package and pyproject say the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == sightline.__version__


def test_no_code_reads_pickles_or_evaluates_text():
    """A log, a recipe or a checkpoint is data: no eval, no pickle, no torch.load with weights_only=False."""
    forbidden = re.compile(r"\b(?:eval|exec)\(|literal_eval|pickle\.load|weights_only\s*=\s*False")
    for path in (ROOT / "src").rglob("*.py"):
        if path.parent.name == "demo":  # reads the sources of the running Python, no one else's
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = forbidden.search(line)
            assert not found or line.lstrip().startswith(("#", '"')) or ".eval()" in line, f"{path}:{number}: {line}"


def test_nothing_of_one_machine_is_in_the_project():
    """No absolute path of the machine it was written on."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    parent = str(ROOT.parent.resolve())
    if len(parent) < 4:
        pytest.skip("the checkout lies at the root of the disk")
    found = subprocess.run(
        ["git", "grep", "-nIF", f"{parent}/", "--", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stdout[:500]
