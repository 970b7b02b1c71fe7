"""What the tests saw in a run: findings, the phase they add up to, the onset and the best step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What the two losses are doing, in one word."""

    UNDERFITTING = "underfitting"
    """Both still falling when last seen: stopping now throws learning away."""
    HEALTHY = "healthy"
    """Validation falls or has settled, the gap is steady."""
    OVERFITTING = "overfitting"
    """Training falls on while validation has turned up beyond its noise."""
    DIVERGED = "diverged"
    """The training loss blew up, is NaN or Inf, or exactly zero after filtered NaN."""
    UNDECIDED = "undecided"
    """Too few evaluations, none, or too noisy."""


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one test saw, where, and how sure it is."""

    kind: str
    """Name of what was found, snake_case: ``overfitting``, ``loss_spike`` … (documented in docs/diagnosis.md)."""
    severity: Severity
    message: str
    """One plain sentence with its numbers, and what to do about it."""
    from_step: int | None = None
    """First optimizer step concerned."""
    to_step: int | None = None
    """Last optimizer step concerned."""
    strength: float | None = None
    """Confidence that the effect is real, 0 to 1; None where the finding is a plain fact."""
    evidence: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """The numbers behind the sentence."""


@dataclass(frozen=True, slots=True)
class Onset:
    """When overfitting began."""

    step: int
    low: int
    """Lower end of the interval that covers the true onset with the policy's confidence (90 % unless told)."""
    high: int


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation with the lowest validation loss, and those that cannot be told apart from it."""

    step: int
    eval_loss: float
    equivalent_steps: tuple[int, ...]
    """Steps whose loss differs from the best by no more than the noise, ascending, the best step among them."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the rest of a run can still gain."""

    chance: float
    """Probability of a checkpoint that is better than the best by more than ``band``, 0 to 1."""
    expected_gain: float
    """Improvement over the best to be expected from going on, as a share of the loss."""
    near_chance: float
    """The same probability as ``chance`` for a quarter more steps than were taken so far, planned or not."""
    band: float
    """Smallest improvement that counts, as a share of the loss: the noise of a comparison, or what the user sets."""
    planned_end: int | None
    """Step at which the run ends, None where nothing tells."""
    warming_up: bool
    """Whether most of what was learnt so far was learnt while the learning rate still rose."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that the tests say of one run."""

    phase: Phase
    confidence: float | None
    """Probability that the phase is right, 0 to 1; None when undecided."""
    findings: tuple[Finding, ...] = ()
    """Most severe first."""
    onset: Onset | None = None
    """Set when the phase is overfitting."""
    best: Best | None = None
    """None when no finite validation loss exists."""
    wasted_fraction: float | None = None
    """Share of the run spent after the best step, 0 to 1; None unless the run is overfitting."""
    forecast: Forecast | None = None
    """What going on can still gain; None with too few evaluations."""
    noise: float | None = None
    """Standard deviation of one evaluation, as a share of the loss; None with too few evaluations."""

    def finding(self, kind: str) -> Finding | None:
        """Return the first finding of a kind, None where there is none."""
        return next((finding for finding in self.findings if finding.kind == kind), None)
