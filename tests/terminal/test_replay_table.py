"""The table of a replay, from hand-made documents."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from sightline.terminal.replay_table import MOST_ROWS, replay_table
from sightline.terminal.text import ASCII, UNICODE
from tests.terminal.golden import assert_golden
from tests.terminal.verdicts import TEXTBOOK_EVALS


def document(n: int = 15, stop_at: int | None = 10):
    """Return a replay of the textbook case, stopped at its ``stop_at``-th evaluation."""
    losses = [TEXTBOOK_EVALS[min(i * len(TEXTBOOK_EVALS) // n, 14)] for i in range(n)]
    evals = [
        {
            "step": 100 * (i + 1),
            "eval_loss": loss,
            "phase": "undecided" if i < 3 else "overfitting" if stop_at and i + 1 >= stop_at else "healthy",
            "action": "stop" if stop_at and i + 1 >= stop_at else "continue",
            "keep_step": 100 * (losses.index(min(losses[: i + 1])) + 1),
        }
        for i, loss in enumerate(losses)
    ]
    return {
        "sightline": 1,
        "path": "outputs/text\x1b[31mbook",
        "step_unit": "step",
        "evals": evals,
        "stop_step": None if stop_at is None else 100 * stop_at,
        "judged_by": "eval_loss",
        "best_step": 600,
        "regret": 0.0 if stop_at else None,
        "spent_fraction": None if stop_at is None else stop_at / n,
    }


def test_replay_is_as_it_was():
    """A line an evaluation, the stop marked, and what would have come of it."""
    assert_golden(replay_table(document()), "replay")


def test_many_evaluations_are_thinned_to_the_changes():
    """Of 200 evaluations those at which something changed, the first and the last; the rest is counted."""
    lines = [line.plain for line in replay_table(document(200, 120))]
    steps = [line.split()[0] for line in lines if line and line.split()[0].isdigit()]
    assert steps == ["100", "400", "12000", "20000"]
    assert "(196 evaluations at which nothing changed are left out)" in lines
    assert any("stop here" in line for line in lines)
    assert len(document(MOST_ROWS)["evals"]) == MOST_ROWS
    assert not any("left out" in line.plain for line in replay_table(document(MOST_ROWS)))


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_replay_keeps_its_width(width, glyphs):
    """No line sticks out, nothing of the log reaches the terminal raw."""
    lines = replay_table(document(), width=width, glyphs=glyphs)
    assert max(cell_len(line.plain) for line in lines) <= width
    assert not any("\x1b" in line.plain for line in lines)


def test_nothing_to_replay_and_no_stop():
    """Both are said."""
    empty = {**document(), "evals": [], "stop_step": None, "best_step": None, "regret": None, "spent_fraction": None}
    assert "There is no evaluation to replay." in [line.plain for line in replay_table(empty)]
    text = "\n".join(line.plain for line in replay_table(document(stop_at=None)))
    assert "would not have stopped" in text


@pytest.mark.parametrize("loss", ["NaN", "Infinity", None, 3])
def test_losses_that_are_no_plain_numbers(loss):
    """The document's strings for what is not finite are understood."""
    replay = document()
    replay["evals"][3]["eval_loss"] = loss
    assert replay_table(replay)


@pytest.mark.parametrize(("unit", "word"), [("epoch", "epoch"), ("index", "entry")])
def test_a_replay_counts_what_the_log_counts(unit, word):
    """Epochs are not called steps."""
    text = "\n".join(line.plain for line in replay_table({**document(), "step_unit": unit}))
    assert f"at {word} 600" in text and "step" not in text
