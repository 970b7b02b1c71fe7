"""A diagnosis is read back as it was written, forecast and noise included."""

from __future__ import annotations

import json

import pytest

from sightline.diagnosis import diagnose
from sightline.journal.judgement import diagnosis_as_json, diagnosis_of
from tests.diagnosis.courses import falling, learnt, noisy, run_of, turning


@pytest.mark.parametrize("losses", [[2.0], noisy(falling(24), 0.005), noisy(turning(40), 0.005)])
def test_a_diagnosis_comes_back_as_it_was(losses):
    """Of too few evaluations, of a settled run and of an overfitting one."""
    diagnosis = diagnose(run_of(losses, learnt(4 * len(losses))))
    assert diagnosis_of(json.loads(json.dumps(diagnosis_as_json(diagnosis)))) == diagnosis


def test_a_journal_without_forecasts_still_reads():
    """Lines written before they were kept have neither."""
    payload = diagnosis_as_json(diagnose(run_of(noisy(falling(24), 0.005))))
    del payload["forecast"], payload["noise"]
    assert diagnosis_of(payload).forecast is None
