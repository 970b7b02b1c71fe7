"""judge_models(): ask base and tuned models everything a judgement needs, one model at a time, and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from sightline.errors import ModelError, UsageError
from sightline.gold.answers import AnswerFile, answer_keys, answer_line
from sightline.gold.checks import answer_findings, prompt_findings, reference_findings, size_finding
from sightline.gold.choosing import split
from sightline.gold.generation import (
    Backend,
    Progress,
    Settings,
    TransformersBackend,
    answer_all,
    context_length,
    cut_prompt,
    is_out_of_memory,
    longest_answer,
)
from sightline.gold.goldset import GoldSet
from sightline.gold.judge import choose_among, judge
from sightline.gold.measuring import Outputs, choice_rows, measure, target_rows, text_rows
from sightline.gold.metric_choice import ChosenMetric, choose_metrics
from sightline.gold.models import (
    Candidate,
    Loaded,
    Models,
    first_logits,
    other_base_finding,
    read_configs,
    unchanged_finding,
)
from sightline.gold.tokens import Template, end_ids, prompt_ids
from sightline.runs import ExampleLosses, Finding, Severity
from sightline.runs.gold import GoldScore, Judgement, Prediction

NOT_ASKED = Prediction("", 0, ended=False)
"""Stands for an answer that nobody asked for: a row to be reported, under a checkpoint that was not chosen."""

Evaluate = Callable[[Any, Sequence[Any]], ExampleLosses]
"""Exact losses of rows of (input_ids, labels) under a model: ``sightline.evaluation.evaluate``."""


class Watcher(Protocol):
    """Hears how the asking goes."""

    def begins(self, model: str, what: str, total: int) -> None:
        """A model is asked for ``total`` answers, or scored on so many rows."""
        ...

    def goes_on(self, progress: Progress) -> None:
        """So many answers are there."""
        ...

    def found(self, finding: Finding) -> None:
        """Something to know at once."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What to ask and how."""

    metrics: tuple[str, ...] = ()
    """Metrics asked for; chosen from the data when empty."""
    general_texts: tuple[str, ...] = ()
    """Texts for the forgetting check; none leaves it out."""
    max_new_tokens: int | None = None
    """Most tokens of an answer; twice the longest right one unless told."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    template: Template = field(default_factory=Template)
    keep_by_gold: bool = False
    base_loss: float | None = None
    """The base model's validation loss where the run knows it, for the chart by step."""
    width: int | None = None
    """Answers decoded together."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """What answers; likelihoods and losses are always measured with transformers."""
    alpha: float = 0.05


def judge_models(
    gold: GoldSet,
    models: Models,
    candidates: Sequence[Candidate],
    evaluate: Evaluate,
    asked: Asked | None = None,
    *,
    answers: AnswerFile | None = None,
    watcher: Watcher | None = None,
) -> Judgement:
    """Judge tuned models against their base.

    Parameters
    ----------
    gold : GoldSet
        What to ask.
    models : Models
        The base model.
    candidates : sequence of Candidate
        Tuned models, at least one.
    evaluate : callable
        Exact losses of rows, ``sightline.evaluation.evaluate``; used for likelihoods and for forgetting.
    asked : Asked, optional
        What to ask and how.
    answers : AnswerFile, optional
        Where answers are written as they come, and found again.
    watcher : Watcher, optional
        Hears how it goes.

    Returns
    -------
    Judgement

    Raises
    ------
    ModelError
        If a model cannot be loaded or does not fit the base, or memory does not suffice for a single prompt.
    UsageError
        If a metric is not known or cannot be had.
    DataError
        If the gold set does not allow what is asked.
    """
    asked = asked or Asked()
    chosen = choose_metrics(gold.examples, asked.metrics)
    asking = _Asking(gold, chosen, models, evaluate, asked, answers or AnswerFile(None), watcher)
    asking.tell(size_finding(len(gold), chosen, len(candidates) * len(chosen)))
    with asking.at_work():
        asking.prepare(candidates)
        if asked.backend == "vllm" and "prediction" in asking.needs:
            asking.ask_vllm(candidates)
        base, base_logits = asking.ask(models.base_model(), None)
        aside = split(gold)[0] if asked.keep_by_gold else None
        if not set(aside or ()) & set(chosen[0].rows):
            aside = None  # none of them is scored by the metric that chooses: every row is asked
        tuned = []
        for candidate in candidates:
            outputs, logits = asking.ask(models.tuned_model(candidate), candidate, aside)
            if (finding := unchanged_finding(candidate, base_logits, logits)) is not None:
                asking.tell(finding)
            tuned.append((candidate, outputs))
        if aside is not None:  # only the chosen one is asked the rows that are reported
            at = candidates.index(choose_among(gold, chosen[0], tuned, aside, asked.alpha))
            outputs, _ = asking.ask(models.tuned_model(candidates[at]), candidates[at])
            tuned[at] = (candidates[at], outputs)
    judgement = judge(
        gold,
        chosen,
        base,
        tuned,
        base_name=models.base,
        keep_by_gold=asked.keep_by_gold,
        base_loss=asked.base_loss,
        findings=asking.findings,
        alpha=asked.alpha,
    )
    asking.answers.finish(asking.lines([(None, base), *tuned]))
    path = asking.answers.path
    return replace(judgement, predictions=None if path is None else str(path))


def ask_base(
    gold: GoldSet,
    models: Models,
    evaluate: Evaluate,
    asked: Asked,
    *,
    answers: AnswerFile,
    watcher: Watcher | None = None,
) -> tuple[GoldScore, ...]:
    """Ask the base model alone, before there is any tuned one.

    Parameters
    ----------
    gold, models, evaluate, asked, answers, watcher
        As for ``judge_models``, which finds the answers again. The general text waits until then.

    Returns
    -------
    tuple of GoldScore
        By every metric.

    Raises
    ------
    ModelError, UsageError, DataError
        As ``judge_models``.
    """
    chosen = choose_metrics(gold.examples, asked.metrics)
    asking = _Asking(gold, chosen, models, evaluate, replace(asked, general_texts=()), answers, watcher)
    asking.tell(size_finding(len(gold), chosen, len(chosen)))
    with asking.at_work():
        asking.prepare(())
        outputs, _ = asking.ask(models.base_model(), None)
    measured = [measure(one, gold.examples, outputs) for one in chosen]
    return tuple(
        GoldScore(one.metric.name, float(m.aggregate(m.counts.sum(axis=0))), len(one.rows), step=0)
        for one, m in zip(chosen, measured, strict=True)
    )


class _Asking:
    """Asks one model after the other the same things."""

    def __init__(
        self,
        gold: GoldSet,
        chosen: Sequence[ChosenMetric],
        models: Models,
        evaluate: Evaluate,
        asked: Asked,
        answers: AnswerFile,
        watcher: Watcher | None,
    ) -> None:
        self.gold, self.chosen, self.models, self.asked = gold, chosen, models, asked
        self.evaluate, self.answers, self.watcher = evaluate, answers, watcher
        self.needs = {one.metric.needs for one in chosen}
        self.findings: list[Finding] = []
        self.settings = Settings(1, frozenset())
        self.context: int | None = None
        self.keys: dict[str | None, dict[str, str]] = {}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Close the answers whatever happens; say plainly that memory does not suffice."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(f"not enough memory for {self.models.base} and its tuned model: {error}") from error
        finally:
            self.answers.close()

    def tell(self, finding: Finding) -> None:
        """Keep a finding, and tell it at once."""
        self.findings.append(finding)
        if self.watcher is not None:
            self.watcher.found(finding)

    def prepare(self, candidates: Sequence[Candidate]) -> None:
        """Look at the gold set through the tokenizer, once, before any weights are loaded."""
        examples, tokenizer = self.gold.examples, self.models.tokenizer()
        config, generation_config = read_configs(self.models.base, self.models.trust_remote_code, self.models.revision)
        self.context = context_length(config)
        reasons = any(one.metric.name == "numeric" for one in self.chosen)
        longest = self.asked.max_new_tokens or longest_answer(examples, tokenizer, reasons=reasons)
        if self.context is not None:
            longest = min(longest, max(1, self.context - 1))
        ends = end_ids(tokenizer, generation_config)
        for candidate in candidates:
            if not candidate.is_adapter:
                ends |= end_ids(tokenizer, read_configs(str(candidate.path), self.models.trust_remote_code)[1])
        self.settings = Settings(longest, ends, self.asked.stop)
        for finding in self.models.findings:
            self.tell(finding)
        for candidate in candidates:
            if (other := other_base_finding(candidate, self.models.base)) is not None:
                self.tell(other)
        if not self.models.same_tokenizer and "target" in self.needs:
            raise UsageError(
                "reference_loss: base and tuned have different tokenizers, so their losses per token cannot be "
                "compared; use a metric on answers"
            )
        if not ends and "prediction" in self.needs:
            message = (
                "neither tokenizer nor generation config names an end token: every answer runs to its longest length"
            )
            self.tell(Finding("gold_no_end_token", Severity.WARNING, message))
        for finding in reference_findings(examples, self.chosen, tokenizer, self.settings):
            self.tell(finding)
        lengths = [len(prompt_ids(e, tokenizer, self.asked.template)) for e in examples]
        for finding in prompt_findings(lengths, self.context, self.settings, examples):
            self.tell(finding)

    def ask_vllm(self, candidates: Sequence[Candidate]) -> None:
        """Have vLLM give all answers before transformers loads a model: the two would fight for the memory."""
        from sightline.gold.vllm_backend import VllmBackend, lora_rank

        adapters = [c.path for c in candidates if c.is_adapter]
        engine = VllmBackend(self.models.base, lora_rank=max(map(lora_rank, adapters), default=None))
        for number, candidate in enumerate([None, *candidates]):
            if candidate is not None and not candidate.is_adapter:
                engine.close()
                engine = VllmBackend(candidate.path)
            elif candidate is not None:
                engine.use_adapter(candidate.path, number)
            name = "base" if candidate is None else candidate.name
            self._answers_of(engine, self.models.tokenizer(candidate), self.models.digest(candidate), name)
        engine.close()

    def ask(
        self, opened: AbstractContextManager[Loaded], candidate: Candidate | None, rows: Sequence[int] | None = None
    ) -> tuple[Outputs, Any]:
        """Ask a model for everything; return it with the logits after the first prompts. No model outlives the call.

        With ``rows`` only those are answered, the others are ``NOT_ASKED``, and the general text is left out.
        """
        with opened as loaded:
            return self._ask(loaded, candidate, rows)

    def _ask(self, loaded: Loaded, candidate: Candidate | None, rows: Sequence[int] | None) -> tuple[Outputs, Any]:
        name = "base" if candidate is None else candidate.name
        examples, tokenizer, template = self.gold.examples, loaded.tokenizer, self.asked.template
        logits = first_logits(loaded, self._first_prompts(loaded))
        predictions = self._predictions(loaded, candidate, name, rows) if "prediction" in self.needs else ()
        choices = targets = general = None
        if "choices" in self.needs:
            choices = self._losses(loaded, name, "choices", choice_rows(examples, tokenizer, template))
        if "target" in self.needs:
            targets = self._losses(loaded, name, "right answers", target_rows(examples, tokenizer, template))
        if self.asked.general_texts and self.models.same_tokenizer and rows is None:
            texts = text_rows(self.asked.general_texts, tokenizer, loaded.context)
            general = self._losses(loaded, name, "general text", texts) if texts else None
        return Outputs(predictions, choices, targets, general), logits

    def lines(self, asked: Sequence[tuple[Candidate | None, Outputs]]) -> Iterator[dict[str, Any]]:
        """Yield all answers with their scores, as the finished file holds them."""
        for candidate, outputs in asked:
            if not outputs.predictions:
                continue
            name = "base" if candidate is None else candidate.name
            scores: list[dict[str, float]] = [{} for _ in self.gold.examples]
            for one in self.chosen:
                if one.metric.needs == "prediction":
                    answered = replace(one, rows=tuple(i for i in one.rows if outputs.predictions[i] is not NOT_ASKED))
                    by_row = measure(answered, self.gold.examples, outputs).by_row.tolist() if answered.rows else []
                    for i, score in zip(answered.rows, by_row, strict=True):
                        scores[i][one.metric.name] = score
            keys = self.keys[name]
            for example, prediction, own in zip(self.gold.examples, outputs.predictions, scores, strict=True):
                if prediction is NOT_ASKED:
                    continue
                yield answer_line(name, keys[example.id], example, prediction, own)

    def _first_prompts(self, loaded: Loaded) -> list[list[int]]:
        few = self.gold.examples[:4]
        prompts = [prompt_ids(e, loaded.tokenizer, self.asked.template) for e in few]
        return [cut_prompt(prompt, loaded.context, 1) or [0] for prompt in prompts]

    def _predictions(
        self, loaded: Loaded, candidate: Candidate | None, name: str, rows: Sequence[int] | None
    ) -> Sequence[Prediction]:
        backend = TransformersBackend(loaded.model, loaded.tokenizer, width=self.asked.width)
        predictions = self._answers_of(backend, loaded.tokenizer, loaded.digest, name, rows)
        if rows is not None:
            some = dict(zip(rows, predictions, strict=True))
            return [some.get(i, NOT_ASKED) for i in range(len(self.gold))]
        is_base = candidate is None
        for finding in answer_findings(name, self.gold.examples, predictions, self.settings, is_base=is_base):
            self.tell(finding)
        return predictions

    def _answers_of(
        self, backend: Backend, tokenizer: Any, digest: str, name: str, rows: Sequence[int] | None = None
    ) -> Sequence[Prediction]:
        """Ask for the answers that are not there yet."""
        everything = self.gold.examples
        keys = self.keys[name] = answer_keys(everything, digest, self.settings, self.asked.template)
        known = self.answers.known(keys)
        examples = everything if rows is None else [everything[i] for i in rows]
        if self.watcher is not None:
            self.watcher.begins(name, "answers", sum(e.id not in known for e in examples))
        return answer_all(
            backend,
            tokenizer,
            examples,
            self.settings,
            context=self.context,
            template=self.asked.template,
            known=known,
            on_answer=lambda e, p: self.answers.add(name, keys[e.id], e, p),
            on_progress=None if self.watcher is None else self.watcher.goes_on,
        )

    def _losses(self, loaded: Loaded, name: str, what: str, rows: Sequence[Any]) -> ExampleLosses:
        if self.watcher is not None:
            self.watcher.begins(name, what, len(rows))
        losses = self.evaluate(loaded.model, rows)
        if losses.non_finite:
            message = f"{name}: {losses.non_finite} of {len(rows)} losses of {what} are not numbers"
            self.tell(Finding("gold_non_finite", Severity.CRITICAL, message, evidence={"rows": losses.non_finite}))
        return losses
