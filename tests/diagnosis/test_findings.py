"""Every kind of finding: it is there where it must be, and not in the near twin of that run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sightline.diagnosis import diagnose
from sightline.runs import Curve, Status
from tests.diagnosis.cases import CASES, EVALS, TRAIN, saved
from tests.diagnosis.courses import kinds, live, run_of


@pytest.mark.parametrize("kind", CASES)
def test_a_finding_is_there_where_it_must_be(kind):
    """It is one plain sentence with the numbers in it, and says which steps it concerns where there are some."""
    found = [finding for finding in diagnose(CASES[kind][0]).findings if finding.kind == kind]
    assert len(found) == 1
    assert not found[0].message.endswith(".")
    assert "\n" not in found[0].message
    if found[0].from_step is not None:
        assert found[0].to_step is not None and found[0].from_step <= found[0].to_step


@pytest.mark.parametrize("kind", CASES)
def test_its_near_twin_is_silent(kind):
    """The run that looks alike and is not so has no such finding."""
    assert kind not in kinds(diagnose(CASES[kind][1]))


def test_every_kind_is_tested_and_documented():
    """Each kind that the code can give has a case above and a line in docs/diagnosis.md."""
    root = Path(__file__).parents[2]
    source = "\n".join(path.read_text() for path in (root / "src/sightline/diagnosis").glob("*.py"))
    given = set(re.findall(r'note\(\s*"([a-z_]+)"', source))
    assert given == set(CASES)
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", (root / "docs/diagnosis.md").read_text(), re.MULTILINE))
    assert given <= documented


def test_a_best_step_that_may_yet_be_saved_is_not_called_unsaved():
    """A running run saves after the evaluation; at the next one, or when it has ended, the step is missing."""
    now, after = saved([200]).until(260), saved([200]).until(280)
    assert "best_not_saved" not in kinds(diagnose(live(now)))
    assert "best_not_saved" in kinds(diagnose(live(after)))
    assert "best_not_saved" in kinds(diagnose(replace(now, status=Status.FINISHED)))


def test_many_epochs_need_no_more_evaluations():
    """The interval that is advised gives the whole run some sixty at the most."""
    for epochs, planned in ((6.0, None), (200.0, 600)):
        run = run_of(EVALS[:6], TRAIN, curves={"epoch": Curve.of([20, 120], [epochs / 6.0, epochs])}, max_steps=planned)
        found = next(f for f in diagnose(run).findings if f.kind == "evaluation_rare")
        assert isinstance(advised := found.evidence["eval_steps"], int)
        assert 8 < (planned or 120) / advised <= 61


@pytest.mark.parametrize(("unit", "word"), [("epoch", "epoch"), ("index", "entry")])
def test_what_the_log_counts_is_what_the_findings_count(unit, word):
    """Epochs are not called steps."""
    for kind in ("overfitting", "memorised", "loss_spike", "above_best"):
        found = next(f for f in diagnose(replace(CASES[kind][0], step_unit=unit)).findings if f.kind == kind)
        assert not re.search(r"\bstep \d", found.message) and re.search(rf"\b{word} \d", found.message)
