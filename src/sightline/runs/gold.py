"""The gold set's records: what is asked, what a model answered, and whether the tuned model beats its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sightline.runs.finding import Finding


class GoldAnswer(StrEnum):
    """Whether one model beats another on a gold set."""

    BETTER = "better"
    WORSE = "worse"
    NOT_SHOWN = "not shown"
    """The rows at hand cannot tell the two apart: neither better nor worse, nor proven equal."""


@dataclass(frozen=True, slots=True)
class GoldExample:
    """One row of a gold set."""

    id: str
    """Name of the row, unique in its set."""
    prompt: str
    """What the model is given; of a conversation its messages as text."""
    references: tuple[str, ...]
    """Right answers, one or several; at least one."""
    target: str
    """The answer whose likelihood is measured: the row's completion where it has one, else its first reference."""
    group: str | None = None
    """A part of the set to be reported on its own."""
    metric: str | None = None
    """Metric this row asks for, None for the set's."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """Conversation before the answer, as chat templates take it; empty for plain prompts."""
    choices: tuple[str, ...] = ()
    """Answers to choose among; empty where the model writes freely."""
    where: str = ""
    """File and line, for messages to people."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to one prompt."""

    text: str
    tokens: int = 0
    """Tokens generated, the end token not counted."""
    ended: bool = True
    """False when it was cut at the longest answer allowed."""


@dataclass(frozen=True, slots=True)
class GoldScore:
    """What one model reaches on a gold set by one metric."""

    metric: str
    value: float
    """In the metric's own unit: shares 0 to 1, BLEU and chrF 0 to 100, losses in nats per token."""
    n: int
    """Rows it was measured on."""
    checkpoint: str | None = None
    """Name of the tuned model, None for the base."""
    step: int | None = None
    """``global_step`` of its weights where known; 0 is the base."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base against tuned by one metric on the same rows."""

    metric: str
    answer: GoldAnswer
    base: GoldScore
    tuned: GoldScore
    difference: float
    """Tuned minus base in the metric's unit; a loss that falls gives a negative difference, and is better."""
    low: float
    """Lower end of the interval of the difference at ``confidence``."""
    high: float
    confidence: float
    p_value: float
    """Two-sided, of this comparison alone."""
    p_adjusted: float
    """After Holm's correction over all comparisons answered together."""
    test: str
    """``mcnemar_exact`` or ``paired_randomisation``."""
    wins: int
    """Rows on which tuned scores better than base."""
    losses: int
    ties: int
    detectable: float
    """Smallest true difference that would be shown in four of five such comparisons, given how much the rows differ."""
    group: str | None = None
    """The part of the set it is about, None for all of it."""
    groups: tuple[Comparison, ...] = ()
    """The same comparison within each group."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Exact loss of base and tuned on a general text that neither was tuned on."""

    answer: GoldAnswer
    """``worse``: it forgot; ``better``: it even gained; ``not shown``: the text cannot tell."""
    checkpoint: str
    step: int | None
    base_loss: float
    """Nats per token."""
    tuned_loss: float
    difference: float
    """Tuned minus base, nats per token."""
    low: float
    high: float
    confidence: float
    p_value: float
    p_adjusted: float
    texts: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Flip:
    """A row that base and tuned answered differently well."""

    example: GoldExample
    base: Prediction
    tuned: Prediction
    base_score: float
    tuned_score: float
    checkpoint: str
    metric: str


@dataclass(frozen=True, slots=True)
class StepScore:
    """One checkpoint's gold score beside its validation loss."""

    step: int
    checkpoint: str
    score: float
    eval_loss: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint that a gold set speaks for."""

    checkpoint: str
    step: int | None
    why: str
    """One sentence."""
    by_loss: str | None = None
    """The checkpoint that the validation loss speaks for, None where it is not known."""
    choosing_rows: int = 0
    """Rows set aside to choose it on, none of them reported; 0 if it was chosen on the reported rows themselves."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Base against one or several tuned models on a gold set."""

    gold: str
    """The gold set's file or name."""
    n: int
    """Rows reported on."""
    base: str
    comparisons: tuple[Comparison, ...]
    """One for each checkpoint and metric, checkpoints in order, metrics in order."""
    metric_why: Mapping[str, str] = field(default_factory=dict)
    """Metric -> why it was taken."""
    forgetting: tuple[Forgetting, ...] = ()
    flips: tuple[Flip, ...] = ()
    by_step: tuple[StepScore, ...] = ()
    choice: Choice | None = None
    findings: tuple[Finding, ...] = ()
    """What the checks say of the gold set and of the models."""
    predictions: str | None = None
    """The file that holds all answers."""

    @property
    def deciding(self) -> Comparison | None:
        """The comparison by the first metric of the chosen checkpoint, else of the last one; None without any."""
        wanted = None if self.choice is None else self.choice.checkpoint
        firsts = [c for c in self.comparisons if c.metric == self.comparisons[0].metric]
        return next((c for c in firsts if c.tuned.checkpoint == wanted), firsts[-1] if firsts else None)

    @property
    def answer(self) -> GoldAnswer:
        """What the deciding comparison answers."""
        return GoldAnswer.NOT_SHOWN if self.deciding is None else self.deciding.answer
