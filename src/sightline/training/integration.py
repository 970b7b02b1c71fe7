"""``report_to=["sightline"]``: Sightline by name in anyone's TrainingArguments.

transformers finds its integrations in a dict, not by entry points, so the name is entered there. `import sightline`
must stay quick and must not import transformers: when it is not loaded yet, a finder waits for its integrations
module and enters the name as soon as it is.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

INTEGRATIONS = "transformers.integrations.integration_utils"


def register() -> None:
    """Make ``report_to=["sightline"]`` work, now or as soon as transformers is imported."""
    loaded = sys.modules.get(INTEGRATIONS)
    if loaded is not None:
        _enter_name(loaded)
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


def _enter_name(integrations: ModuleType) -> None:
    known = getattr(integrations, "INTEGRATION_TO_CALLBACK", None)
    if isinstance(known, dict):
        known.setdefault("sightline", SightlineByName)


class SightlineByName:
    """Stands in the dict of callbacks: calling it, as the Trainer does, gives a SightlineCallback."""

    def __new__(cls) -> Any:
        """Import what watching needs only when a Trainer asks for it."""
        from sightline.training.callback import SightlineCallback

        return SightlineCallback()


class _Waiting:
    """Lets transformers' integrations module be found as always, and enters the name once it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != INTEGRATIONS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _EnteringLoader(spec.loader.name, spec.loader.path)
        return spec


class _EnteringLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _enter_name(module)
