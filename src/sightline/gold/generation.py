"""Answers to gold prompts: greedy, in batches, the same whenever they are asked for again.

A Backend turns prompts into answers as token ids. Prompts are sorted and cut into chunks that depend on the gold set
alone, so that a killed judge that goes on gives, in the chunk it broke off in, the answers it would have given.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sightline.errors import ModelError
from sightline.gold.tokens import Template, end_ids, prompt_ids
from sightline.runs.gold import GoldExample, Prediction

log = logging.getLogger(__name__)

CPU_WIDTH = 64
"""Answers decoded together on a CPU: more no longer make its matrix products faster."""
DEVICE_WIDTH = 256
CHUNK_WIDTHS = 16
"""Prompts of a chunk, in widths: long enough for its tail of last answers not to matter."""
PREFILL_TOKENS = 4096
LEAST_ANSWER = 16
"""Tokens every answer may have."""
ANSWER_MARGIN = 2.0
"""An answer may be so many times as long as the longest right one."""
REASONING_TOKENS = 256
"""Tokens an answer may have where only its last number counts and the right answers do not show their reasoning."""

TokenIds = Sequence[int]
OnTokens = Callable[[int, list[int], bool], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """When an answer ends."""

    max_new_tokens: int
    end_ids: frozenset[int]
    stop: tuple[str, ...] = ()
    """Texts before which an answer is cut, for models that go on with the next question."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the asking is."""

    done: int
    total: int
    tokens_per_second: float
    seconds_left: float | None
    """None until the first answers are there."""


class Backend(Protocol):
    """Whatever turns prompts into answers."""

    chunk: int
    """Prompts it takes at once; part of what makes answers repeatable."""

    def generate(self, prompts: Sequence[TokenIds], limits: Sequence[int], settings: Settings, on: OnTokens) -> None:
        """Answer prompts, the longest first, telling ``on`` of each: its index, its tokens, whether it ended."""
        ...


def answer_all(
    backend: Backend,
    tokenizer: Any,
    examples: Sequence[GoldExample],
    settings: Settings,
    *,
    context: int | None = None,
    template: Template | None = None,
    known: Mapping[str, Prediction] | None = None,
    on_answer: Callable[[GoldExample, Prediction], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Prediction]:
    """Ask a model all prompts of a gold set.

    Parameters
    ----------
    backend : Backend
        The model.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    examples : sequence of GoldExample
        The gold set.
    settings : Settings
        When an answer ends.
    context : int, optional
        Tokens the model can read. A prompt that leaves too little room for its answer loses its beginning.
    template : Template, optional
        For conversations.
    known : mapping of str to Prediction, optional
        Answers by example id that are there already and not asked for again.
    on_answer, on_progress : callable, optional
        Told of each new answer, and how far it is.

    Returns
    -------
    list of Prediction
        In the order of ``examples``.

    Raises
    ------
    ModelError
        If a single prompt does not fit into memory. Answers told of before are not lost.
    """
    known = known or {}
    predictions: dict[int, Prediction] = {i: known[e.id] for i, e in enumerate(examples) if e.id in known}
    prompts = [prompt_ids(example, tokenizer, template) for example in examples]
    prompts = [cut_prompt(prompt, context, settings.max_new_tokens) for prompt in prompts]
    order = sorted(range(len(examples)), key=lambda i: (-len(prompts[i]), examples[i].id))
    clock = _Clock(len(examples) - len(predictions), on_progress)
    for start in range(0, len(order), backend.chunk):
        rows = order[start : start + backend.chunk]
        if all(i in predictions for i in rows):
            continue
        limits = [answer_limit(len(prompts[i]), context, settings.max_new_tokens) for i in rows]

        def on_tokens(at: int, tokens: list[int], ended: bool, rows: list[int] = rows) -> None:
            i = rows[at]
            if i in predictions:
                return
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            predictions[i] = Prediction(cut_text(text, settings.stop).strip(), len(tokens), ended)
            if on_answer is not None:
                on_answer(examples[i], predictions[i])
            clock.tick(len(tokens))

        backend.generate([prompts[i] for i in rows], limits, settings, on_tokens)
    return [predictions[i] for i in range(len(examples))]


def generator(
    model: Any, tokenizer: Any, settings: Settings | None = None, *, template: Template | None = None
) -> Callable[[Sequence[GoldExample]], list[Prediction]]:
    """Return a function that answers gold prompts with a model at hand, as ``judge_pair`` takes it.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model, adapters included; it is asked in whatever state it is when the function is called.
    tokenizer : PreTrainedTokenizerBase
    settings : Settings, optional
        When answers end; by the right answers and the model's end tokens unless told.
    template : Template, optional
        For conversations.
    """

    def generate(examples: Sequence[GoldExample]) -> list[Prediction]:
        ends = end_ids(tokenizer, getattr(model, "generation_config", None))
        context = context_length(model.config)
        chosen = settings or Settings(longest_answer(examples, tokenizer), ends)
        backend = TransformersBackend(model, tokenizer)
        return answer_all(backend, tokenizer, examples, chosen, context=context, template=template)

    return generate


def context_length(config: Any) -> int | None:
    """Return how many tokens a model can read, None where its configuration does not say."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def cut_prompt(prompt: list[int], context: int | None, max_new_tokens: int) -> list[int]:
    """Return a prompt's last tokens, as many as leave the answer room: all of it, or at most half the context."""
    if context is None or len(prompt) + max_new_tokens <= context:
        return prompt
    room = min(max_new_tokens, context // 2)
    return prompt[-max(1, context - room) :]


def answer_limit(prompt_tokens: int, context: int | None, max_new_tokens: int) -> int:
    """Return how many tokens an answer may have after a prompt, at least 1."""
    return max_new_tokens if context is None else max(1, min(max_new_tokens, context - prompt_tokens))


def longest_answer(examples: Sequence[GoldExample], tokenizer: Any, *, reasons: bool = False) -> int:
    """Return how many tokens an answer may have: twice the longest right answer, and never fewer than 16.

    Parameters
    ----------
    examples : sequence of GoldExample
        The gold set.
    tokenizer : PreTrainedTokenizerBase
    reasons : bool
        Whether models may think aloud before the answer (only the last number counts): then 256 where the right answers
        are bare.
    """
    answers = {answer for e in examples for answer in (*e.references, e.target)}
    longest = max(len(tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers)
    wanted = max(LEAST_ANSWER, math.ceil(ANSWER_MARGIN * longest))
    bare = reasons and all(e.target in e.references for e in examples)
    return max(wanted, REASONING_TOKENS) if bare else wanted


def cut_text(text: str, stop: Sequence[str]) -> str:
    """Return what stands before the first of the stop texts."""
    places = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(places)] if places else text


class TransformersBackend:
    """A model of transformers, with slots where it can, by its own ``generate`` where not.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model, adapters included. Put in eval mode while it answers.
    tokenizer : PreTrainedTokenizerBase
        To look for stop texts.
    width : int, optional
        Answers decoded together; by device unless told. Halved whenever memory does not suffice.
    """

    def __init__(self, model: Any, tokenizer: Any, *, width: int | None = None) -> None:
        from sightline.gold.slots import why_not_slots

        self.model = model
        self.tokenizer = tokenizer
        on_cpu = next(model.parameters()).device.type == "cpu"
        self.width = width or (CPU_WIDTH if on_cpu else DEVICE_WIDTH)
        self.chunk = CHUNK_WIDTHS * self.width
        self.why_not_slots = why_not_slots(model)
        """Why it is decoded by ``model.generate``, None if with slots."""

    def generate(self, prompts: Sequence[TokenIds], limits: Sequence[int], settings: Settings, on: OnTokens) -> None:
        """Answer prompts, the longest first; what fits into memory is found out by trying."""
        answered: set[int] = set()
        while len(answered) < len(prompts):
            left = [i for i in range(len(prompts)) if i not in answered]

            def on_one(at: int, tokens: list[int], ended: bool, left: list[int] = left) -> None:
                on(left[at], tokens, ended)
                answered.add(left[at])

            try:
                self._generate([prompts[i] for i in left], [limits[i] for i in left], settings, on_one)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(prompts[left[0]]))

    def _generate(self, prompts: Sequence[TokenIds], limits: Sequence[int], settings: Settings, on: OnTokens) -> None:
        from sightline.gold.slots import decode

        is_stopped = stop_finder(settings.stop, self.tokenizer)
        was_training = self.model.training
        self.model.eval()
        try:
            if self.why_not_slots is None:
                decode(
                    self.model,
                    prompts,
                    limits,
                    settings.end_ids,
                    on,
                    width=self.width,
                    prefill_tokens=PREFILL_TOKENS,
                    is_stopped=is_stopped,
                )
            else:
                _generate_plainly(self.model, prompts, limits, settings.end_ids, on, self.width, is_stopped)
        finally:
            self.model.train(was_training)

    def _halve(self, prompt_tokens: int) -> None:
        import gc

        import torch

        if self.width == 1:
            raise ModelError(
                f"not enough memory to answer a single prompt of {prompt_tokens} tokens; "
                "shorten the prompts, lower --max-new-tokens, or use a machine with more memory"
            )
        self.width //= 2
        log.warning("not enough memory: %d answers at a time from now on", self.width)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on a CPU or an accelerator."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in told or "can't allocate memory" in told


def stop_finder(stop: Sequence[str], tokenizer: Any) -> Callable[[list[int]], bool] | None:
    """Return a function that says whether an answer holds a stop text; it decodes only where one may have ended."""
    if not stop:
        return None
    last_letters = {text[-1] for text in stop}
    may_end: dict[int, bool] = {}
    tail = 8 + max(map(len, stop))  # a token has a letter at least, but for bytes of one

    def is_stopped(tokens: list[int]) -> bool:
        token = tokens[-1]
        if token not in may_end:
            written = tokenizer.decode([token])
            may_end[token] = "\ufffd" in written or any(letter in written for letter in last_letters)
        if not may_end[token]:
            return False
        written = tokenizer.decode(tokens[-tail:])
        return any(text in written for text in stop)

    return is_stopped


def _generate_plainly(
    model: Any,
    prompts: Sequence[TokenIds],
    limits: Sequence[int],
    ends: frozenset[int],
    on: OnTokens,
    width: int,
    is_stopped: Callable[[list[int]], bool] | None,
) -> None:
    """Answer by ``model.generate``: in fixed batches, padded on the left."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Stopped(StoppingCriteria):  # type: ignore[misc, unused-ignore]
        def __init__(self, prompt_tokens: int) -> None:
            self.prompt_tokens = prompt_tokens

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            answers = input_ids[:, self.prompt_tokens :].tolist()
            return torch.tensor([is_stopped is not None and is_stopped(a) for a in answers], device=input_ids.device)

    device = next(model.parameters()).device
    padding = min(ends, default=0)
    for start in range(0, len(prompts), width):
        batch = prompts[start : start + width]
        longest = max(map(len, batch))
        ids = torch.tensor([[padding] * (longest - len(p)) + list(p) for p in batch], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in batch], device=device)
        encoder_decoder = getattr(model.config, "is_encoder_decoder", False)
        skipped = 1 if encoder_decoder else longest
        generated = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(limits[start : start + width]),
            do_sample=False,
            num_beams=1,
            eos_token_id=sorted(ends) or None,
            pad_token_id=padding,
            stopping_criteria=StoppingCriteriaList([Stopped(skipped)] if is_stopped else []),
        )
        for i, row in enumerate(generated[:, skipped:].tolist()):
            tokens, ended = _until_end(row, limits[start + i], ends, is_stopped)
            on(start + i, tokens, ended)


def _until_end(
    row: list[int], limit: int, ends: frozenset[int], is_stopped: Callable[[list[int]], bool] | None
) -> tuple[list[int], bool]:
    """Return the tokens of an answer before its end, and whether it has one."""
    tokens: list[int] = []
    for token in row[:limit]:
        if token in ends:
            return tokens, True
        tokens.append(token)
        if is_stopped is not None and is_stopped(tokens):
            return tokens, True
    return tokens, False


class _Clock:
    """Turns answers into progress, at most ten times a second."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None] | None) -> None:
        self.total, self.on_progress = total, on_progress
        self.done = self.tokens = 0
        self.began = self.told = time.monotonic()

    def tick(self, tokens: int) -> None:
        self.done += 1
        self.tokens += tokens
        now = time.monotonic()
        if self.on_progress is None or (now - self.told < 0.1 and self.done < self.total):
            return
        self.told = now
        seconds = max(now - self.began, 1e-9)
        left = seconds / self.done * (self.total - self.done)
        self.on_progress(Progress(self.done, self.total, self.tokens / seconds, left))
