"""The gold set of a fine-tune: asked of the base model before the first step, of the kept checkpoints at the end.

The models come from disk, as `sightline judge` loads them, and answers stand in ``sightline/gold.jsonl`` by what they
follow from: judging the finished run again asks nothing twice, and a resumed run does not ask its base model again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sightline.decisions import gold_choice
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.gold.answers import AnswerFile
from sightline.gold.asking import Asked, ask_base, judge_models
from sightline.gold.choosing import split
from sightline.gold.generation import Progress
from sightline.gold.goldset import GoldSet
from sightline.gold.metric_choice import choose_metrics
from sightline.gold.models import Candidate, Models
from sightline.gold.overlap import find_overlap, overlap_finding
from sightline.gold.report import value_text
from sightline.runs import Finding, Run, Severity
from sightline.runs.gold import Judgement
from sightline.training.display import Display
from sightline.training.gold_rows import find_gold, general_texts, load_gold, template_named
from sightline.training.prepare import Prepared

KEPT_FOR_GOLD = 6
"""Checkpoints kept until a gold set has chosen among them."""
ANSWERS = Path("sightline") / "gold.jsonl"


class Interrupted(SightlineError):
    """A signal came while the gold set was asked."""


@dataclass(eq=False, slots=True)
class Judging:
    """Judges one run on its gold set; only on the rank that records."""

    prepared: Prepared
    gold: GoldSet
    asked: Asked
    display: Display
    is_interrupted: Callable[[], bool] = lambda: False
    _told: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, prepared: Prepared, display: Display) -> Judging | None:
        """Read the gold set that the recipe names; None where it names none.

        Raises
        ------
        DataError
            If it cannot be read or used, or is too small to choose a checkpoint by a part of it.
        MissingExtra
            If its metric needs a package that is not there.
        """
        recipe = prepared.recipe
        if recipe.gold is None:
            return None
        gold = load_gold(find_gold(recipe.gold, Path(recipe.folder) if recipe.folder else None))
        choose_metrics(gold.examples, ())
        if recipe.keep_by == "gold":
            split(gold)
        overlap = find_overlap(gold.examples, (e.prompt_text for e in prepared.train_rows.examples))
        seen = overlap_finding(overlap, len(gold))
        gold = gold if seen is None else replace(gold, findings=(*gold.findings, seen))
        asked = Asked(
            general_texts=general_texts(recipe.forgetting),
            template=template_named(recipe.chat_template),
            keep_by_gold=recipe.keep_by == "gold",
        )
        return cls(prepared, gold, asked, display)

    def ask_base(self) -> None:
        """Ask the base model, and tell what it scores; its answers are on disk afterwards.

        Raises
        ------
        SightlineError
            If it cannot be asked, or there is nothing to score.
        """
        for finding in self.gold.findings:
            self.found(finding)
        self.display.notice(f"asking the base model {len(self.gold):,} gold prompts", Severity.INFO)
        scores = ask_base(self.gold, self._models(), evaluate, self.asked, answers=self._answers(), watcher=self)
        told = ", ".join(f"{s.metric} {value_text(s.metric, s.value)} on {s.n:,} rows" for s in scores)
        self.display.notice(f"the base model on {self.gold.name}: {told}", Severity.INFO)

    def judge(self, run: Run) -> Judgement | None:
        """Judge the checkpoints of a run that are on disk against the base model.

        Returns
        -------
        Judgement or None
            None where there is no checkpoint, or the judging failed: that is told, and hurts nothing else.
        """
        candidates = [
            Candidate(c.path, c.path.name, c.step, None if run.eval_loss is None else run.eval_loss.at(c.step))
            for c in run.checkpoints
            if not c.deleted and c.path.is_dir()
        ]
        if not candidates:
            self._warn("no checkpoint was kept, so none could be judged on the gold set")
            return None
        asked = self.asked_with(None if run.eval_loss is None else run.eval_loss.at(0))
        try:
            return judge_models(
                self.gold, self._models(), candidates, evaluate, asked, answers=self._answers(), watcher=self
            )
        except Exception as error:
            reason = str(error) if isinstance(error, SightlineError) else f"{type(error).__name__}: {error}"
            self._warn(
                f"the checkpoints were not judged on the gold set ({reason}); `sightline judge {self.gold.name} --tuned "
                f"{self.prepared.recipe.output_dir}` does it"
            )
            return None

    def disagreement(self, run: Run) -> list[str]:
        """Say, in one line or none, that ``best/`` is by the loss and the gold set speaks for another checkpoint."""
        choice = gold_choice(run)
        if choice is None or self.asked.keep_by_gold:
            return []
        return [
            f"best/ holds the lowest validation loss ({choice.by_loss}); the gold set speaks for {choice.checkpoint}: with "
            "keep_by: gold a part of its rows chooses and the others are reported"
        ]

    def asked_with(self, base_loss: float | None) -> Asked:
        """Return what to ask, with the base model's validation loss."""
        return replace(self.asked, base_loss=base_loss)

    # -- what the asking tells: a Watcher --------------------------------------------------------------------------

    def begins(self, model: str, what: str, total: int) -> None:
        """Nothing to show yet."""

    def goes_on(self, progress: Progress) -> None:
        """Show how many answers are there; a signal ends the asking."""
        self.display.evaluating(progress.done, progress.total)
        if self.is_interrupted():
            raise Interrupted("interrupted")

    def found(self, finding: Finding) -> None:
        """Tell what a person should know, once."""
        if finding.message not in self._told:
            self._told.add(finding.message)
            self.display.notice(finding.message, finding.severity)

    def _warn(self, text: str) -> None:
        self.display.notice(text, Severity.WARNING)

    def _models(self) -> Models:
        recipe = self.prepared.recipe
        return Models(
            recipe.model_name_or_path,
            trust_remote_code=recipe.trust_remote_code,
            revision=recipe.model_revision,
            own_tokenizer=self.prepared.tokenizer,
        )

    def _answers(self) -> AnswerFile:
        return AnswerFile(self.prepared.recipe.output_dir / ANSWERS)


@contextmanager
def room_for_judging(trainer: Any) -> Iterator[None]:
    """Take the trained model and its optimizer off an accelerator while others are loaded there.

    The training is over: its last state is on disk, and only the model is needed again.
    """
    device = next(trainer.model.parameters()).device
    if device.type == "cpu" or trainer.accelerator.num_processes > 1:
        yield
        return
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.accelerator._optimizers.clear()
    trainer.model.to("cpu")
    gc.collect()
    torch.accelerator.empty_cache()
    try:
        yield
    finally:
        trainer.model.to(device)
