"""untouched(): whatever is done to a model inside, the training around it goes on as if it had not happened."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode without gradients and leave no trace of it.

    Parameters
    ----------
    model : torch.nn.Module
        The model to look at.

    Notes
    -----
    Restored at the end, also after an error: ``training`` of every single module (a frozen part in eval mode stays in
    eval mode), the random streams of Python, NumPy, torch and every accelerator in use, and grad mode. Gradients are
    neither made nor cleared. ``torch.no_grad`` is used and not inference mode: a module may keep a tensor it made
    (rotary caches do), and training cannot use an inference tensor. Compiled modules run eagerly meanwhile, so nothing
    is compiled for evaluation and no compiled training graph is thrown out.
    """
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        stack.enter_context(same_random_streams(_accelerators(model)))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # without it nothing can have been compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module, training in modes:
                if training:
                    module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def same_random_streams(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Restore every random stream that code of a model or a library may draw from."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    kept = [(write, read()) for read, write in map(_random_stream, devices)]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        for write, state in kept:
            write(state)


def _accelerators(model: nn.Module) -> list[torch.device]:
    """Return the devices other than the CPU that the model lies on."""
    devices = {tensor.device for tensor in model.parameters()} | {tensor.device for tensor in model.buffers()}
    return [device for device in devices if device.type not in ("cpu", "meta")]


def _random_stream(device: torch.device) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Return how to read and to write the random state of an accelerator; Apple's has one for all devices."""
    backend = torch.get_device_module(device)
    if device.type == "mps":
        return backend.get_rng_state, backend.set_rng_state
    return (lambda: backend.get_rng_state(device)), (lambda state: backend.set_rng_state(state, device))
