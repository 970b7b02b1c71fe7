"""Models made once a session: a base, a run with checkpoints of an adapter, a whole tuned model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class TinyModels:
    """Where the models lie."""

    base: Path
    run: Path
    """Output folder with checkpoint-10 and, once it knows the answers, checkpoint-150 (adapters)."""
    whole: Path
    gold: Path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Iterator[TinyModels]:
    """A base that knows nothing, and what it was taught."""
    import torch
    from transformers import LlamaForCausalLM

    from tests.gold import tiny

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    rows = tiny.questions()
    base = tiny.save(tiny.base_model(), folder / "base")
    for name, steps in (("checkpoint-10", 10), ("checkpoint-150", None)):
        tiny.with_adapter(base, rows, steps, folder / "run" / name)
    whole = LlamaForCausalLM.from_pretrained(base)
    tiny.teach(whole, rows)
    tiny.save(whole, folder / "whole")
    yield TinyModels(base, folder / "run", folder / "whole", tiny.write_rows(folder / "questions.jsonl", rows))
    torch.set_num_threads(threads)
