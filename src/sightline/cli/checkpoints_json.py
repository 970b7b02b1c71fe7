"""The JSON of `sightline checkpoints` and its actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.checkpoints.differences import WeightDifference
from sightline.checkpoints.forecast import DiskForecast, forecast_disk
from sightline.checkpoints.listing import Listed, Listing
from sightline.checkpoints.prune import Pruning
from sightline.checkpoints.verify import Verification
from sightline.runs import perplexity

PARTS = ("weights", "optimizer", "scheduler", "random states", "trainer state")


def listing_as_json(listing: Listing) -> dict[str, Any]:
    """Return the JSON of the list; unknown is None, never absent."""
    return {
        "sightline": 1,
        "path": str(listing.folder),
        "checkpoints": [_listed(listing, listed) for listed in listing.checkpoints],
        "best": _best(listing),
        "last": None if listing.last is None else listing.last.parts.path.name,
        "size_bytes": listing.size_bytes,
        "disk": _forecast(forecast_disk(listing)),
    }


def best_as_json(listing: Listing) -> dict[str, Any]:
    """Return the JSON of ``best``."""
    return {"sightline": 1, "path": str(listing.folder), "best": _best(listing)}


def verifications_as_json(folder: Path, verifications: Sequence[Verification]) -> dict[str, Any]:
    """Return the JSON of ``verify``."""
    return {
        "sightline": 1,
        "path": str(folder),
        "checkpoints": [
            {
                "path": str(found.path),
                "intact": found.intact,
                "complete": found.complete,
                "weights_only": found.weights_only,
                "hashed": found.hashed,
                "problems": [
                    {"kind": problem.kind, "file": problem.file or None, "message": problem.message}
                    for problem in found.problems
                ],
                "notes": list(found.notes),
            }
            for found in verifications
        ],
    }


def difference_as_json(difference: WeightDifference) -> dict[str, Any]:
    """Return the JSON of ``diff``."""
    return {
        "sightline": 1,
        "first": str(difference.first),
        "second": str(difference.second),
        "relative": difference.relative,
        "adapter_relative": difference.adapter_relative,
        "moved": difference.moved,
        "tensors": [
            {
                "name": change.name,
                "shape": list(change.shape),
                "relative": change.relative,
                "largest": change.largest,
                "share_changed": change.share_changed,
            }
            for change in difference.changes
        ],
        "only_first": list(difference.only_first),
        "only_second": list(difference.only_second),
        "reshaped": list(difference.reshaped),
        "uncompared": list(difference.uncompared),
    }


def pruning_as_json(
    pruning: Pruning, frees_bytes: int, forecast: DiskForecast | None, failed: Sequence[str] | None
) -> dict[str, Any]:
    """Return the JSON of ``prune``; ``done`` is False for a dry run."""
    return {
        "sightline": 1,
        "path": str(pruning.listing.folder),
        "done": failed is not None,
        "keep": [{"checkpoint": one.parts.path.name, "why": why} for one, why in pruning.kept],
        "delete": [{"checkpoint": one.parts.path.name, "frees_bytes": one.frees_bytes} for one in pruning.deleted],
        "drop": [{"checkpoint": one.parts.path.name, "files": list(names)} for one, names in pruning.dropped],
        "left_alone": [{"name": name, "why": why} for name, why in pruning.left_alone],
        "why_nothing": pruning.why_nothing,
        "frees_bytes": frees_bytes,
        "failed": list(failed or ()),
        "disk": _forecast(forecast),
    }


def _listed(listing: Listing, listed: Listed) -> dict[str, Any]:
    parts, best, base = listed.parts, listing.best, listed.base
    return {
        "name": parts.path.name,
        "path": str(parts.path),
        "step": parts.step,
        "epoch": listed.epoch,
        "loss": listed.loss,
        "eval_loss": listed.eval_loss,
        "perplexity": None if listed.eval_loss is None else perplexity(listed.eval_loss),
        "is_exact": listed.is_exact,
        "kind": "adapter" if parts.is_adapter else "full",
        "size_bytes": parts.size_bytes,
        "holds": {part.replace(" ", "_"): part in parts.holds for part in PARTS},
        "complete": parts.is_complete,
        "weights_only": parts.is_weights_only,
        "missing": list(parts.missing),
        "has_manifest": listed.has_manifest,
        "base": None if base is None else {"name": base.name, "revision": base.revision, "is_same": base.is_same},
        "is_best": best is not None and best.step == parts.step,
        "equals_best": best is not None and parts.step in best.equivalent_steps,
        "is_last": listing.last is listed,
        "deleting": {"frees_bytes": listed.frees_bytes, "loses": listing.loss_of_deleting(listed) or None},
    }


def _best(listing: Listing) -> dict[str, Any] | None:
    best = listing.best
    if best is None:
        return None
    path = next(listed.parts.path for listed in listing.checkpoints if listed.step == best.step)
    return {
        "name": path.name,
        "path": str(path),
        "step": best.step,
        "eval_loss": best.eval_loss,
        "perplexity": perplexity(best.eval_loss),
        "equivalent_steps": list(best.equivalent_steps),
        "basis": best.basis,
        "unsaved": None if best.unsaved_step is None else {"step": best.unsaved_step, "eval_loss": best.unsaved_loss},
    }


def _forecast(forecast: DiskForecast | None) -> dict[str, Any] | None:
    if forecast is None:
        return None
    return {
        "each_bytes": forecast.each_bytes,
        "saves_to_come": forecast.saves_to_come,
        "free_bytes": forecast.free_bytes,
        "full_at_step": forecast.full_at_step,
    }
