"""Policy: every threshold a user may turn, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user wants a decision to weigh."""

    false_alarm: float = 0.05
    """Largest probability, over the whole run, of calling a run overfitting that is not."""
    worthwhile_chance: float = 0.05
    """Stop when the chance of a better checkpoint in the rest of the run is below this."""
    worthwhile_gain: float = 0.01
    """Smallest improvement of the validation loss worth training for, as a share of it.

    A checkpoint counts as better when it is better by more than this and by more than the noise; and the run goes on,
    however small the chance, while the improvement to be expected is larger.
    """
    stop_early: bool = True
    """False: never decide ``stop`` while training, only say what is seen."""
