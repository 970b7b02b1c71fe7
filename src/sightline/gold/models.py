"""Models: the base model loaded once, tuned models beside it or as adapters on it, one at a time."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from sightline.errors import ModelError
from sightline.gold.answers import folder_digest
from sightline.gold.generation import context_length
from sightline.runs import Finding, Severity

SAME_PROMPTS = 4
"""Prompts on which tuned and base are compared bit by bit."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tuned model to be judged."""

    path: Path
    """Its folder: a LoRA adapter or a whole model."""
    name: str
    step: int | None = None
    eval_loss: float | None = None
    """Validation loss where the run knows it."""

    @property
    def is_adapter(self) -> bool:
        """Whether it holds an adapter and no whole model."""
        return (self.path / "adapter_config.json").is_file()


@dataclass(frozen=True, eq=False, slots=True)
class Loaded:
    """A model ready to be asked."""

    model: Any
    tokenizer: Any
    digest: str
    """Hash of its weights and tokenizer."""
    context: int | None
    """Tokens it can read."""


@dataclass(eq=False, slots=True)
class Models:
    """The base model, and tuned ones on the same weights where they are adapters.

    Parameters
    ----------
    base : str
        Folder, or hub id, of the base model.
    tokenizer_from : Path, optional
        A tuned model's folder whose tokenizer is used for base and tuned alike, if it spells the same tokens.
    trust_remote_code : bool
        Whether code that comes with a model may run.
    """

    base: str
    tokenizer_from: Path | None = None
    trust_remote_code: bool = False
    revision: str = "main"
    """Of the base model, where it is one of the hub."""
    own_tokenizer: Any = None
    """A tokenizer at hand that base and tuned models share, so that none is loaded."""
    findings: list[Finding] = field(default_factory=list)
    """What loading brought up."""
    _model: Any = None
    _base_tokenizer: Any = None
    _tokenizer: Any = None
    _same_tokenizer: bool = True

    @contextmanager
    def base_model(self) -> Iterator[Loaded]:
        """Give the base model.

        Raises
        ------
        ModelError
            If it or its tokenizer cannot be loaded.
        """
        model = self._load_base()
        yield Loaded(model, self.tokenizer(), self.digest(), context_length(model.config))

    @contextmanager
    def tuned_model(self, candidate: Candidate) -> Iterator[Loaded]:
        """Give a tuned model; an adapter is put on the base model and taken off again.

        Raises
        ------
        ModelError
            If it cannot be loaded, or does not fit the base model.
        """
        tokenizer, digest = self.tokenizer(candidate), self.digest(candidate)
        if candidate.is_adapter:
            with _adapter_on(self._load_base(), candidate, self.base) as tuned:
                yield Loaded(tuned, tokenizer, digest, context_length(tuned.config))
            if not _comes_off(candidate.path):
                self._model = None  # the adapter holds more than what taking it off undoes
            return
        self._model = None  # base and a whole tuned model may not fit into memory together
        gc.collect()
        model = load_model(str(candidate.path), self.trust_remote_code)
        yield Loaded(model, tokenizer, digest, context_length(model.config))
        del model
        gc.collect()

    def tokenizer(self, candidate: Candidate | None = None) -> Any:
        """Return the tokenizer of the base model, or of a tuned one; no weights are loaded for it.

        Raises
        ------
        ModelError
            If there is none.
        """
        if self._tokenizer is None:
            self._load_tokenizers()
        if self._same_tokenizer:
            return self._tokenizer
        if candidate is None or candidate.is_adapter:
            return self._base_tokenizer
        return load_tokenizer(str(candidate.path), self.trust_remote_code)

    def digest(self, candidate: Candidate | None = None) -> str:
        """Return the hash of a model's weights and tokenizer."""
        if candidate is None:
            return _digest(self.base)
        own = _digest(str(candidate.path))
        return f"{_digest(self.base)}+{own}" if candidate.is_adapter else own

    @property
    def same_tokenizer(self) -> bool:
        """Whether base and tuned spell the same tokens; known once a model was loaded."""
        return self._same_tokenizer

    def _load_base(self) -> Any:
        if self._model is None:
            self._model = load_model(self.base, self.trust_remote_code, self.revision)
        return self._model

    def _load_tokenizers(self) -> None:
        if self.own_tokenizer is not None:
            self._base_tokenizer = self._tokenizer = self.own_tokenizer
            return
        self._base_tokenizer = self._tokenizer = load_tokenizer(self.base, self.trust_remote_code, self.revision)
        folder = self.tokenizer_from
        if folder is None or not _has_tokenizer(folder):
            return
        tuned = load_tokenizer(str(folder), self.trust_remote_code)
        shared = self._base_tokenizer.get_vocab()
        other = {token: id for token, id in tuned.get_vocab().items() if shared.get(token) != id}
        self._same_tokenizer = not other
        self._tokenizer = tuned if self._same_tokenizer else self._base_tokenizer
        if other:
            examples = ", ".join(repr(token) for token in list(other)[:3])
            message = (
                f"tuned and base have different tokenizers ({len(other)} tokens differ, such as {examples}): "
                "each model reads the prompts with its own; losses per token cannot be compared"
            )
            self.findings.append(Finding("gold_other_tokenizer", Severity.WARNING, message))


def load_model(name: str, trust_remote_code: bool = False, revision: str = "main") -> Any:
    """Load a causal language model on the best device at hand, in eval mode.

    Returns
    -------
    transformers.PreTrainedModel
        In float32 on a CPU, in its own type on an accelerator.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    on_cpu = device is None or device.type == "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            dtype=torch.float32 if on_cpu else "auto",
            trust_remote_code=trust_remote_code,
        )
        return model.to(device).eval()
    except Exception as error:  # the loaders raise whatever the file's own parser raises
        raise ModelError(
            f"{name}: the model could not be loaded ({_first_line(error)}); a folder with config.json and weights in "
            "safetensors, or the id of a causal language model, is needed"
        ) from error


def load_tokenizer(name: str, trust_remote_code: bool = False, revision: str = "main") -> Any:
    """Load a tokenizer.

    Raises
    ------
    ModelError
        If there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        raise ModelError(
            f"{name}: the tokenizer could not be loaded ({_first_line(error)}); "
            "the folder needs tokenizer.json and tokenizer_config.json"
        ) from error


def read_configs(name: str, trust_remote_code: bool = False, revision: str = "main") -> tuple[Any, Any]:
    """Return the configuration and the generation settings of a model without its weights.

    Returns
    -------
    config : transformers.PretrainedConfig
    generation_config : transformers.GenerationConfig or None
        None where the model comes without.

    Raises
    ------
    ModelError
        If there is no configuration.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        raise ModelError(
            f"{name}: the model's configuration could not be read ({_first_line(error)}); "
            "a folder with config.json, or the id of a causal language model, is needed"
        ) from error
    try:
        return config, GenerationConfig.from_pretrained(name, revision=revision)
    except Exception:  # many models come without, and then their config says it
        return config, GenerationConfig.from_model_config(config)


def first_logits(loaded: Loaded, prompts: Sequence[Sequence[int]]) -> Any:
    """Return the logits after a few prompts, one pass each, to tell whether two models are the same."""
    import torch

    device = next(loaded.model.parameters()).device
    found = []
    with torch.no_grad():
        for prompt in prompts[:SAME_PROMPTS]:
            ids = torch.tensor([list(prompt)], device=device)
            found.append(loaded.model(input_ids=ids).logits[0, -1].float().cpu())
    return torch.stack(found)


def unchanged_finding(candidate: Candidate, base_logits: Any, tuned_logits: Any) -> Finding | None:
    """Say that a tuned model is the base model, None if it is not; and that its outputs are no numbers."""
    import torch

    if not bool(torch.isfinite(tuned_logits).all()):
        message = f"{candidate.name} gives NaN or infinite logits: its weights are broken, its answers mean nothing"
        return Finding("gold_broken_model", Severity.CRITICAL, message)
    if base_logits.shape != tuned_logits.shape or not torch.equal(base_logits, tuned_logits):
        return None
    what = "the adapter changes nothing" if candidate.is_adapter else "it holds the base model's weights"
    message = (
        f"{candidate.name} gives exactly the base model's logits: {what}; "
        "was it saved before training, or were its target modules never trained?"
    )
    return Finding("gold_same_model", Severity.CRITICAL, message)


def other_base_finding(candidate: Candidate, base: str) -> Finding | None:
    """Say that an adapter was trained on another base model than it is judged on; None where nothing speaks for it."""
    named = adapter_base(candidate.path) if candidate.is_adapter else None
    if named is None or named == base or Path(named).name == Path(base).name:
        return None  # a folder that was moved or copied keeps its name
    if Path(named).is_dir() and Path(base).is_dir() and _digest(named) == _digest(base):
        return None
    message = (
        f"{candidate.name} was trained on {named} and is judged on {base}: unless these are the same weights, its "
        f"answers mean nothing; judge it with --base {named}"
    )
    return Finding("gold_other_base", Severity.WARNING, message)


def adapter_base(folder: Path) -> str | None:
    """Return the base model that an adapter names, None if it names none."""
    try:
        named = orjson.loads((folder / "adapter_config.json").read_bytes()).get("base_model_name_or_path")
    except (OSError, orjson.JSONDecodeError, AttributeError):
        return None
    return named if isinstance(named, str) and named else None


@contextmanager
def _adapter_on(base: Any, candidate: Candidate, base_name: str) -> Iterator[Any]:
    """Put an adapter on the base model; take it off again."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError(f"{candidate.path}: is an adapter, and peft is not installed: pip install peft") from error
    named = adapter_base(candidate.path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tuned = _loading(lambda: PeftModel.from_pretrained(base, str(candidate.path)), candidate, named, base_name)
    missing = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
    if missing:
        raise ModelError(_misfit(candidate, named, base_name, "some of its weights have no place in this model"))
    try:
        yield tuned.eval()
    finally:
        if hasattr(tuned.base_model, "unload"):
            tuned.unload()


def _comes_off(adapter: Path) -> bool:
    """Whether an adapter is LoRA alone: whole modules saved beside it stay in the base model when it is taken off."""
    from safetensors import safe_open

    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        return False
    with safe_open(weights, framework="np") as opened:
        return all(".lora_" in name for name in opened.keys())  # noqa: SIM118 - it is no mapping


def _loading(load: Callable[[], Any], candidate: Candidate, named: str | None, base: str) -> Any:
    try:
        return load()
    except Exception as error:  # PEFT raises what its parts raise
        raise ModelError(_misfit(candidate, named, base, _first_line(error))) from error


def _misfit(candidate: Candidate, named: str | None, base: str, reason: str) -> str:
    made_for = f"it was made for {named}; " if named else ""
    return (
        f"{candidate.path}: the adapter does not fit the base model {base} ({reason}); "
        f"{made_for}give the base model it was trained on"
    )


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"))


def _digest(name: str) -> str:
    """Hash a model folder; a hub id stands for itself."""
    folder = Path(name)
    return folder_digest(folder) if folder.is_dir() else name


def _first_line(error: BaseException) -> str:
    """Return what an error says first; of a heading the line below it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
