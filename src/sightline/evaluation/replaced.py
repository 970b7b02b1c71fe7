"""Other forwards for some modules of a model, for the length of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def replaced_forwards(model: nn.Module, choose: Callable[[Any], Forward | None]) -> Iterator[None]:
    """Give modules another forward meanwhile; no class and nothing of a library is touched.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    choose : callable
        Returns a module's other forward, None where it keeps its own. It is not asked of modules that have one already.
    """
    replaced: list[Any] = []
    try:
        for module in list(model.modules()):
            if "forward" not in vars(module) and (forward := choose(module)) is not None:
                module.forward = forward
                replaced.append(module)
        yield
    finally:
        for module in replaced:
            del module.forward
