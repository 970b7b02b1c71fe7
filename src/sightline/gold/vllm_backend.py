"""Answers from vLLM where it is installed: the same prompts and end tokens, its own engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from sightline.errors import ModelError, SightlineError
from sightline.gold.generation import OnTokens, Settings, TokenIds


def lora_rank(adapter: Path) -> int:
    """Return the rank of a LoRA adapter; 64 where its configuration does not say."""
    try:
        return int(orjson.loads((adapter / "adapter_config.json").read_bytes())["r"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 64


class VllmBackend:
    """A model served by vLLM in this process, with a LoRA adapter or without.

    Parameters
    ----------
    model : str or Path
        Folder or hub id of the base model, or of a whole fine-tuned one.
    lora_rank : int, optional
        Largest rank of the adapters it will be given; None for an engine without adapters.

    Raises
    ------
    SightlineError
        If vLLM is not installed.
    ModelError
        If it cannot load the model.
    """

    chunk = 4096

    def __init__(self, model: str | Path, *, lora_rank: int | None = None) -> None:
        try:
            import vllm  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise SightlineError(
                "--backend vllm needs vllm, which is not installed: pip install vllm (it wants a GPU)"
            ) from error
        options: dict[str, Any] = {"enable_lora": True, "max_lora_rank": lora_rank} if lora_rank else {}
        try:
            self.engine: Any = vllm.LLM(model=str(model), **options)
        except Exception as error:  # the engine raises whatever its parts raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{model}: vLLM could not load it ({reason}); --backend transformers may") from error
        self.adapter: Any = None

    def use_adapter(self, adapter: Path | None, number: int = 1) -> None:
        """Answer with a LoRA adapter from now on, or with the base model alone."""
        if adapter is None:
            self.adapter = None
            return
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found, unused-ignore]

        self.adapter = LoRARequest(adapter.name, number, str(adapter))

    def close(self) -> None:
        """Let go of the engine and its memory."""
        import gc

        self.engine = None
        gc.collect()

    def generate(self, prompts: Sequence[TokenIds], limits: Sequence[int], settings: Settings, on: OnTokens) -> None:
        """Answer prompts; vLLM batches them itself."""
        from vllm import SamplingParams

        ends = sorted(settings.end_ids)
        outputs = self.engine.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [
                SamplingParams(temperature=0.0, max_tokens=limit, stop_token_ids=ends, stop=list(settings.stop))
                for limit in limits
            ],
            lora_request=self.adapter,
            use_tqdm=False,
        )
        for i, output in enumerate(outputs):
            answer = output.outputs[0]
            tokens = [token for token in answer.token_ids if token not in settings.end_ids]
            on(i, tokens, answer.finish_reason == "stop")
