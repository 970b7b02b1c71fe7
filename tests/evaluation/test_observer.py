"""Watching changes nothing: a training with evaluations in between is bit for bit the training without."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from torch import nn

from sightline.evaluation import EvalSet, evaluate
from sightline.evaluation.untouched import untouched
from tests.evaluation.tiny import CAUSAL, SHAPE, build, rows_of

ROWS = rows_of(6)
DROPOUT = {**SHAPE, "attention_dropout": 0.2}


def llama_with_dropout() -> Any:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**DROPOUT))


def lora_with_dropout() -> Any:
    adapter = LoraConfig(r=4, lora_dropout=0.3, target_modules=["q_proj"], modules_to_save=["lm_head"])
    return get_peft_model(llama_with_dropout(), adapter)


def gpt2_with_dropout() -> Any:
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=211, n_positions=96, n_embd=32, n_layer=2, n_head=4))


def checkpointed() -> Any:
    model = llama_with_dropout()
    model.gradient_checkpointing_enable()
    return model


def routed_with_jitter() -> Any:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.1}
    return hf.MixtralForCausalLM(hf.MixtralConfig(**DROPOUT, **experts))


MODELS = [llama_with_dropout, lora_with_dropout, gpt2_with_dropout, checkpointed, routed_with_jitter]


def trained(
    make: Callable[[], Any], watch: Callable[[Any], Any], compiled: bool = False
) -> tuple[list[float], Any, Any]:
    """Train a few steps in eager PyTorch; ``watch`` is called between any two things that happen."""
    model = build(make, loud=1.0)
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    stepped = torch.compile(model, backend="eager") if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses, draws = [], []
    for step in range(5):
        ids = torch.randint(3, 211, (2, 12))
        watch(stepped)
        loss = stepped(input_ids=ids, labels=ids).loss
        (loss / 2).backward()
        watch(stepped)  # between two micro-batches: gradients are half done
        more = stepped(input_ids=ids.flip(0), labels=ids.flip(0)).loss
        (more / 2).backward()
        if step != 3:
            optimizer.step()
            optimizer.zero_grad()
        losses += [loss.item(), more.item()]
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    return losses, draws, {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("make", MODELS)
def test_training_is_bit_for_bit_the_same(make: Callable[[], Any]) -> None:
    """Losses, random draws and final weights, for models with every kind of randomness."""
    eval_set, seen = EvalSet(ROWS), []
    plain = trained(make, lambda model: None)
    watched = trained(make, lambda model: seen.append(evaluate(model, eval_set).loss))
    assert len(set(seen[::2])) == 4, "the evaluations saw the weights change, but for the step left out"
    assert watched[:2] == plain[:2]
    for name, weight in plain[2].items():
        assert torch.equal(watched[2][name], weight), name


def test_compiled_training_is_neither_changed_nor_compiled_again() -> None:
    """A compiled model is scored eagerly: the same numbers, and not one graph more."""
    eval_set = EvalSet(ROWS)
    plain_graphs, plain = _graphs(lambda: trained(llama_with_dropout, lambda model: None, compiled=True))
    seen: list[float] = []
    graphs, watched = _graphs(
        lambda: trained(llama_with_dropout, lambda model: seen.append(evaluate(model, eval_set).loss), compiled=True)
    )
    assert watched[:2] == plain[:2]
    assert all(torch.equal(watched[2][name], weight) for name, weight in plain[2].items())
    assert graphs == plain_graphs > 0
    eager: list[float] = []
    trained(llama_with_dropout, lambda model: eager.append(evaluate(model, eval_set).loss))
    assert seen[0] == eager[0]


def _graphs(run: Callable[[], Any]) -> tuple[int, Any]:
    """Return how many graphs were compiled meanwhile, and the result."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    result = run()
    return counters["stats"]["unique_graphs"], result


def test_a_trainer_with_evaluations_ends_at_the_same_weights(tmp_path: Path) -> None:
    """The Trainer, its data order included, with an evaluation at every step and with none."""

    class Watching(hf.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            evaluate(kwargs["model"], eval_set)

    eval_set = EvalSet(ROWS)
    rows = [{"input_ids": list(range(3 + i, 11 + i)), "labels": list(range(3 + i, 11 + i))} for i in range(16)]

    def run(callbacks: list[Any]) -> tuple[list[Any], Any]:
        model = build(llama_with_dropout, loud=1.0)
        args = hf.TrainingArguments(
            str(tmp_path),
            max_steps=6,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = hf.Trainer(model=model, args=args, train_dataset=rows, callbacks=callbacks)
        trainer.train()
        return [entry.get("loss") for entry in trainer.state.log_history], model.state_dict()

    (plain_losses, plain), (losses, weights) = run([]), run([Watching()])
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_modes_hooks_and_settings_are_as_they_were() -> None:
    """A part in eval mode stays there, the rest stays in training; no hook, no forward, no cache setting is left."""
    model = build(llama_with_dropout)
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.config.to_dict()), [list(vars(module)) for module in model.modules()]
    evaluate(model, ROWS)
    assert [module.training for module in model.modules()] == modes
    assert (model.config.to_dict(), [list(vars(module)) for module in model.modules()]) == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_gradients_are_neither_made_nor_lost() -> None:
    """Gradients under accumulation stay as they are; a model without gradients gets none."""
    model = build(llama_with_dropout)
    evaluate(model, ROWS)
    assert all(parameter.grad is None for parameter in model.parameters())
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    evaluate(model, ROWS)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("grad", [True, False])
def test_grad_and_autocast_state_are_as_they_were(grad: bool) -> None:
    """Inside autocast and either grad mode, both stay as the caller set them."""
    model = build(CAUSAL["llama"])
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        evaluate(model, ROWS)
        assert torch.is_grad_enabled() is grad
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_everything_is_restored_after_an_error() -> None:
    """A pass that fails leaves the model as a pass that succeeds."""
    model = build(llama_with_dropout)
    state = torch.get_rng_state()

    def fail(*_: Any) -> None:
        torch.rand(3)
        raise ValueError("no")

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="no"):
        evaluate(model, ROWS)
    handle.remove()
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_what_the_model_keeps_can_be_trained_on() -> None:
    """A tensor that a module keeps from the evaluation may enter the graph of the next training step."""

    class Keeping(nn.Module):
        kept: torch.Tensor | None = None

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.kept is None:
                self.kept = torch.arange(3.0)
            return (self.weight * self.kept * x).sum()

    model = Keeping()
    with untouched(model):
        model(torch.ones(3))
    model(torch.ones(3)).backward()
    assert model.weight.grad is not None
