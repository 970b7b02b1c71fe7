"""`sightline evaluate`: the same loss whatever the batch, and clear words for what cannot be scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.demo import base_model_path
from tests.cli.logs import sightline


@pytest.fixture
def rows(tmp_path) -> Path:
    """Twelve rows of unequal length."""
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"Return the {'very ' * i}first item.>", "completion": f"item{i}"} for i in range(12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_loss_does_not_depend_on_the_batch(rows):
    """One row at a time or all at once: equal to a millionth."""
    losses = []
    for tokens in ("1", "100000"):
        done = sightline("evaluate", base_model_path(), rows, "--batch-tokens", tokens, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["rows"] == len(document["examples"]) == 12 and document["non_finite"] == 0
        assert document["tokens"] == sum(example["tokens"] for example in document["examples"])
        losses.append(document["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_model_against_itself_differs_in_no_row(rows):
    """The page says so."""
    done = sightline("evaluate", base_model_path(), rows, "--against", base_model_path())
    assert done.returncode == 0 and "difference +0.000000" in done.stdout
    assert "Rows that got worse, in nats: none" in done.stdout


@pytest.mark.parametrize("model", ["nowhere/at/all/x", "{rows}"])
def test_what_is_no_model_is_one_clear_line(rows, model):
    """Exit code 3, no traceback."""
    done = sightline("evaluate", model.format(rows=rows), rows)
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
