"""Checks: each fault is found, named and answered with what to do; sound runs are left in peace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.runs import ExampleLosses, Severity
from sightline.training.checks import CHECKS, KINDS, CheckContext, run_checks
from sightline.training.checks import run as run_module
from sightline.training.checks.plan import learning_rate_band
from sightline.training.checks.validation_size import rows_needed, spread_of

from .checked import distinct, found, sound
from .synthetic import CPU, GPU, prepared, rows

DOCS = Path(__file__).parents[2] / "docs" / "checks.md"


def test_a_sound_run_has_no_findings(tmp_path):
    assert found(sound(tmp_path)) == {}


def test_most_severe_first_and_a_broken_check_stops_nobody(tmp_path, monkeypatch):
    def check_broken(context):
        raise RuntimeError("first line\nsecond")
        yield

    monkeypatch.setattr(run_module, "CHECKS", (check_broken, *CHECKS))
    findings = run_checks(CheckContext.of(prepared(tmp_path, rows(30), use_peft=True)))
    order = [Severity.CRITICAL, Severity.WARNING, Severity.INFO]
    assert [order.index(f.severity) for f in findings] == sorted(order.index(f.severity) for f in findings)
    [failed] = [f for f in findings if f.kind == "check_failed"]
    assert failed.severity is Severity.INFO
    assert "broken" in failed.message
    assert "first line" in failed.message


def test_every_kind_is_documented():
    page = DOCS.read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"### {kind}\n" not in page] == []


def test_too_few_validation_rows(tmp_path):
    kinds = found(tmp_path, distinct(100, 0), eval_records=distinct(6, 1))
    finding = kinds["few_validation_rows"]
    assert finding.severity is Severity.WARNING
    assert finding.evidence["rows_needed"] == rows_needed(0.10) == 385
    assert found(tmp_path, distinct(100, 0), eval_size=0)["no_validation_rows"].severity is Severity.WARNING


def test_rows_needed_is_the_formula_of_a_paired_comparison():
    """With so many rows a change of 1 % stands out in 95 of 100 repetitions of the null, to sampling error."""
    rng = np.random.default_rng(0)
    spread = 0.08
    n = rows_needed(spread)
    means = rng.normal(0, spread, (4000, n)).mean(axis=1)
    assert np.mean(np.abs(means) > 0.01) == pytest.approx(0.05, abs=0.012)


def test_the_spread_follows_from_the_rows_own_losses(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 50, 300)
    losses = ExampleLosses(counts * rng.normal(2.0, 0.2, 300), counts)
    assert 0.01 < spread_of(losses) < 0.05
    context = replace(sound(tmp_path, eval_records=distinct(12, 1)), losses=losses)
    assert found(context)["few_validation_rows"].evidence["rows_needed"] == rows_needed(spread_of(losses))


def test_too_few_evaluations(tmp_path):
    kinds = found(tmp_path, distinct(60, 0), eval_steps=15, max_steps=30)
    assert "lower eval_steps" in kinds["few_evaluations"].message
    assert "few_evaluations" in found(tmp_path, distinct(60, 0), max_steps=2)


def test_logging_and_saving_that_miss_evaluations(tmp_path):
    kinds = found(tmp_path, logging_steps=9, eval_steps=4, save_steps=6, save_total_limit=2)
    assert {"logging_sparser_than_evaluation", "saving_misses_evaluations", "trainer_rotation"} <= set(kinds)


@pytest.mark.parametrize("keys", [{"logging_steps": 9, "eval_steps": 4}, {"eval_steps": 50, "max_steps": 20}], ids=str)
def test_what_a_check_finds_no_note_says_again(tmp_path, keys):
    """A plan's notes are shown beside the findings of the checks."""
    plan = prepared(tmp_path, distinct(60, 0), **keys)
    assert {"logging_sparser_than_evaluation", "few_evaluations"} & set(found(CheckContext.of(plan)))
    assert plan.notes == ()


def test_long_warmup(tmp_path):
    assert found(tmp_path, max_steps=20, warmup_steps=40)["long_warmup"].severity is Severity.WARNING
    assert found(tmp_path, max_steps=20, warmup_steps=0.8)["long_warmup"].severity is Severity.INFO
    assert "long_warmup" not in found(tmp_path, max_steps=20, warmup_steps=2)


def test_learning_rates_far_from_the_usual(tmp_path):
    assert "above" in found(tmp_path, learning_rate=0.5)["unusual_learning_rate"].message
    assert "below" in found(tmp_path, learning_rate=1e-8)["unusual_learning_rate"].message
    assert "unusual_learning_rate" not in found(tmp_path, learning_rate=1e-3)


@pytest.mark.parametrize("parameters", [10**6, 10**8, 10**9, 10**10, 10**11])
def test_the_band_holds_what_papers_use(parameters):
    low, high = learning_rate_band(parameters, lora=False)
    assert low <= 2e-5 <= high  # LIMA, Alpaca, Tulu 2: 1e-5 to 2e-5 at 7 to 70 billion
    low, high = learning_rate_band(parameters, lora=True)
    assert low <= 2e-4 <= high  # QLoRA: 1e-4 to 2e-4 at 7 to 65 billion


def test_hardware_that_does_not_fit(tmp_path):
    two = replace(GPU, visible_devices=2)
    assert found(tmp_path, hardware=two)["several_devices_one_process"].severity is Severity.CRITICAL
    assert "several_devices_one_process" not in found(tmp_path, hardware=replace(two, world_size=2))
    old = replace(GPU, bf16=False)
    assert found(tmp_path, hardware=old, bf16=True)["precision_not_supported"].severity is Severity.CRITICAL
    assert "packing_without_flash_attention" in found(tmp_path, hardware=GPU, packing=True)
    costly = found(tmp_path, bf16=True, gradient_checkpointing=True)["costly_on_cpu"]
    assert costly.evidence["settings"] == "bf16, gradient_checkpointing"
    assert "busy_machine" in found(tmp_path, hardware=replace(CPU, cores=2, threads=2, load=6.0))
    assert "busy_machine" not in found(tmp_path, hardware=replace(CPU, cores=2, threads=1, load=6.0))


def test_without_a_gold_set_one_is_advised(tmp_path):
    assert found(tmp_path)["no_gold_set"].severity is Severity.INFO
