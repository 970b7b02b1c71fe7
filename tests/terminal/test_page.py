"""The page of one run, and the table of many, against their golden texts."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from sightline.decisions import verdict_as_json
from sightline.runs import Finding, Severity, Status
from sightline.terminal.page import verdict_page
from sightline.terminal.table import by_usefulness, runs_table
from sightline.terminal.text import ASCII
from tests.terminal import verdicts
from tests.terminal.golden import assert_golden


@pytest.mark.parametrize("name", verdicts.ALL)
def test_page_is_as_it_was(name):
    """The whole page of each run at 100 columns."""
    assert_golden(verdict_page(verdicts.ALL[name](), width=100), name)


@pytest.mark.parametrize(("name", "width"), [("textbook", 40), ("diverged", 60), ("healthy", 30)])
def test_page_on_a_narrow_terminal(name, width):
    """Narrow pages keep all facts; under 40 columns the chart is left out."""
    lines = verdict_page(verdicts.ALL[name](), width=width)
    assert max(cell_len(line.plain) for line in lines) <= width
    assert_golden(lines, f"{name}_{width}")


@pytest.mark.parametrize("name", verdicts.ALL)
def test_page_in_ascii(name):
    """Without UTF-8 not one character beyond ASCII is left."""
    lines = verdict_page(verdicts.ALL[name](), width=80, glyphs=ASCII)
    assert all(line.plain.isascii() for line in lines)
    assert_golden(lines, f"{name}_ascii")


@pytest.mark.parametrize("width", [20, 40, 57, 80, 133, 250])
@pytest.mark.parametrize("name", verdicts.ALL)
def test_no_line_is_wider_than_asked(name, width):
    """Whatever the width, no line sticks out."""
    assert max(cell_len(line.plain) for line in verdict_page(verdicts.ALL[name](), width=width)) <= width


def test_hostile_text_cannot_steer_the_terminal():
    """No control, format or surrogate character of the log reaches the terminal, and markup stays text."""
    lines = verdict_page(verdicts.hostile(), width=200)
    text = "".join(line.plain for line in lines)
    assert not {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}}
    assert "[bold red]x[/]" in text and "\\x1b[2J" in text


def test_a_million_points_are_drawn_at_once():
    """The page of a run of a million points takes less than a second."""
    verdict = verdicts.million()
    began = time.process_time()
    verdict_page(verdict, width=120)
    assert time.process_time() - began < 1.0


def test_a_page_says_a_thing_once():
    """The reason to stop a broken run is its finding, and stands there; its numbers are in the sentence."""
    verdict = verdicts.diverged()
    found = verdict.diagnosis.findings[0]
    said = replace(verdict, decision=replace(verdict.decision, why=f"the training broke: {found.message}"))
    text = " ".join(_text(verdict_page(said, width=100)).split())
    assert text.count(found.message) == 1 and "the training broke; " in text


def test_a_run_that_is_over_is_not_told_to_stop():
    """A finished run cannot be stopped any more."""
    verdict = verdicts.textbook()
    over = replace(verdict, run=replace(verdict.run, status=Status.FINISHED))
    assert "→ Stop: " in _text(verdict_page(verdict)) and "→ Stop: " not in _text(verdict_page(over))


def test_gap_comes_from_the_probe_where_there_is_one():
    """On equal terms when training rows were scored like validation rows, with a warning otherwise."""
    assert "equal terms" in _text(verdict_page(verdicts.healthy(), width=100))
    textbook = _text(verdict_page(verdicts.textbook(), width=100))
    assert "equal terms" not in textbook and "logged training loss" in textbook


def test_nearest_checkpoint_is_named_when_the_best_step_was_not_saved():
    """The page says that the best step is gone and what is nearest."""
    verdict = verdicts.textbook()
    run = replace(verdict.run, checkpoints=tuple(c for c in verdict.run.checkpoints if c.step != 600))
    lost = replace(verdict, run=run, decision=replace(verdict.decision, keep_checkpoint=None))
    text = " ".join(_text(verdict_page(lost, width=100)).split())
    assert "no checkpoint was saved there, the nearest is checkpoint-1500" in text


def test_table_of_many_runs():
    """One line a run, what went wrong first, and a count of each phase."""
    judged = [verdict_as_json(make()) for name, make in verdicts.ALL.items() if name != "million"]
    assert_golden(runs_table(judged, width=100), "table")
    phases = [run["phase"] for run in by_usefulness(judged)]
    assert phases == ["diverged", *["overfitting"] * 3, "underfitting", "healthy", "undecided"]


@pytest.mark.parametrize("width", [20, 40, 70, 120])
def test_table_keeps_its_width(width):
    """Columns are left out and names shortened before a line sticks out."""
    judged = [verdict_as_json(make()) for name, make in verdicts.ALL.items() if name != "million"]
    widest = max(cell_len(line.plain) for line in runs_table(judged, width=width))
    assert widest <= width


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["/sweep/a/run", "/sweep/b/run"], ["a/run", "b/run"]),
        (["/a/run/trainer_state.json", "/b/run/checkpoint-9/trainer_state.json"], ["a/run", "b/run"]),
        (["/a/run/1.json", "/a/run/2.json"], ["1.json", "2.json"]),
        (["/a/x/run", "/b/x/run", "/b/y/run"], ["a/x/run", "b/x/run", "b/y/run"]),
        (["/a/run.csv", "/run.csv"], ["a/run.csv", "/run.csv"]),
        (["/a/run", "/a/run"], ["/a/run", "/a/run"]),
    ],
)
def test_runs_of_one_name_are_told_apart_by_the_least_of_their_paths(paths, labels):
    """Two runs called alike stand in the table by the ends of their paths; what is below the run's folder is left out."""
    verdict = verdicts.healthy()
    twins = [verdict_as_json(replace(verdict, run=replace(verdict.run, path=Path(path), name="run"))) for path in paths]
    shown = [line.plain.split()[1] for line in runs_table(twins, width=120)[1 : len(paths) + 1]]
    assert shown == labels


def _text(lines) -> str:
    return "\n".join(line.plain for line in lines)


def test_the_reason_of_the_end_is_said_once():
    """A run that its own verdict stopped does not give the same sentence twice; another reason is kept whole."""
    verdict = verdicts.ALL["textbook"]()
    why = verdict.decision.why

    def page(reason):
        told = replace(verdict, run=replace(verdict.run, status=Status.STOPPED, end_reason=reason))
        return " ".join(" ".join(line.plain.split()) for line in verdict_page(told, width=100))

    assert page(why).count(why) == 1 and "stopped early" in page(why)
    assert "stopped: the disk was full" in page("the disk was full")


def test_a_rising_loss_with_a_rising_score_is_not_said_to_have_settled():
    """Where the score decides, the sentence under the phase says what the chart shows."""
    verdict = verdicts.healthy()
    found = Finding("score_disagrees", Severity.WARNING, "the score decides", 900, 1000)
    told = replace(verdict, diagnosis=replace(verdict.diagnosis, findings=(found,)))
    text = " ".join(line.plain for line in verdict_page(told, width=100))
    assert "has risen, and yet more answers are right" in text and "has settled." not in text


def _with(verdict, found, **decision):
    diagnosis = replace(verdict.diagnosis, findings=(found,))
    return replace(verdict, diagnosis=diagnosis, decision=replace(verdict.decision, **decision))


@pytest.mark.parametrize(("rows", "words"), [(1, "1 validation row only"), (3, "3 validation rows only")])
def test_the_headline_speaks_of_the_few_rows_it_rests_on(rows, words):
    """A verdict on one row is not said as one on all that the model never saw."""
    found = Finding("few_validation_rows", Severity.WARNING, "few rows", evidence={"rows": rows})
    text = " ".join(_text(verdict_page(_with(verdicts.healthy(), found), width=100)).split())
    assert f"HEALTHY on {words}, 93 % sure of " in text
    assert "holds on rows it never saw" not in text and "On other rows it may be otherwise" in text
    told = _text(verdict_page(_with(verdicts.diverged(), found), width=100))
    assert words not in told  # a broken training does not rest on validation rows


def test_a_checkpoint_chosen_by_a_score_is_marked_beside_the_losses():
    """The chart shows the loss, so its lowest point is not what is kept, and the page says by what it is."""
    found = Finding("score_disagrees", Severity.WARNING, "it decides", 600, 1000, evidence={"score": "eval_accuracy"})
    text = " ".join(_text(verdict_page(_with(verdicts.healthy(), found, keep_step=600), width=100)).split())
    assert "chosen by eval_accuracy, the chart shows the loss" in text
    assert "kept by eval_accuracy: step 600" in text and "By the loss, is the last as good?" in text
    assert "the chart shows the loss" not in _text(verdict_page(verdicts.healthy(), width=100))


def test_the_end_of_an_unfinished_plan_is_not_unknown():
    """A log that plans more steps than it has is unfinished; one without a plan may be anything."""
    verdict = verdicts.undecided()
    planned = replace(verdict, run=replace(verdict.run, max_steps=60))
    text = " ".join(_text(verdict_page(planned, width=100)).split())
    assert "step 30 of 60" in text and "unfinished: broken off or still running" in text and "end unknown" not in text
    assert "end unknown" in _text(verdict_page(verdict, width=100))


@pytest.mark.parametrize(("unit", "one", "several"), [("epoch", "epoch", "epochs"), ("index", "entry", "entries")])
def test_a_page_counts_what_the_log_counts(unit, one, several):
    """No step is spoken of where there are none, in the notes below the chart neither."""
    verdict = verdicts.diverged()
    told = verdicts.textbook()
    for page in (verdict, told):
        run = replace(page.run, step_unit=unit)
        text = _text(verdict_page(replace(page, run=run, diagnosis=replace(page.diagnosis, findings=())), width=100))
        body = text.replace(page.decision.why, "")
        assert f"{one} " in body and f"{several} " in body and "step" not in body
