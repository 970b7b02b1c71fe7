"""`sightline checkpoints`: what was saved, what is intact, which is best, what moved, and what can go."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here gains from threads, and starting them takes time

from sightline.cli.exits import AGAINST, FAILED, FINE
from sightline.cli.options import AsJson, NoColor, Width, new_app
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines
from sightline.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from sightline.checkpoints.verify import Verification

app = new_app()

ACTIONS = ("verify", "best", "diff", "prune")
_STEP = re.compile(r"\d+", re.ASCII)


@app.command(epilog="Example: sightline checkpoints outputs/a prune --top 3 --drop-optimizer")
def checkpoints(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder of a run, or for verify one checkpoint.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ACTION...]", help="verify [STEP...], best, diff A B, or prune; without one they are listed."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="verify: names, headers and sizes only.")] = False,
    top: Annotated[int | None, typer.Option("--top", min=1, help="prune: keep this many of the best (1).")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="prune: keep this many of the last (1).")] = None,
    drop_optimizer: Annotated[
        bool, typer.Option("--drop-optimizer", help="prune: optimizer states only in the last two.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="prune: delete; without it only said what would be.")] = False,
    as_json: AsJson = False,
    no_color: NoColor = False,
    width: Width = None,
) -> int:
    """List the checkpoints of a run, verify them, find the best, compare two, or delete what is not needed.

    Works on the output folder of any Trainer. Headers and small files only, unless verifying or comparing; nothing is
    unpickled. Exit code 1 when verify finds damage or something incomplete.
    """
    action, rest = _action(words or [])
    _refuse_unfit(action, rest, quick=quick, prune_only=(top is not None or last is not None or drop_optimizer or yes))
    if action == "verify":
        document, page, code = _verify(folder, rest, quick)
    elif action == "best":
        document, page, code = _best(folder)
    elif action == "diff":
        document, page, code = _diff(folder, rest[0], rest[1])
    elif action == "prune":
        document, page, code = _prune(folder, top or 1, last, drop_optimizer, yes)
    else:
        document, page, code = _list(folder)
    if as_json:
        print_json(document)
    else:
        print_lines(page(output_width(width)), no_color=no_color)
    return code


class _Page:
    """A page that is set once its width is known."""

    def __init__(self, name: str, *parts: object) -> None:
        self.name, self.parts = name, parts

    def __call__(self, width: int) -> Sequence[Text]:
        from sightline.cli import checkpoints_page

        lines: Sequence[Text] = getattr(checkpoints_page, self.name)(*self.parts, width=width, glyphs=output_glyphs())
        return lines


_Answer = tuple[dict[str, object], _Page, int]


def _action(words: Sequence[str]) -> tuple[str, list[str]]:
    if not words:
        return "list", []
    if words[0] not in ACTIONS:
        raise UsageError(f"checkpoints: {words[0]}: expected one of {', '.join(ACTIONS)}, or nothing for the list")
    return words[0], list(words[1:])


def _refuse_unfit(action: str, rest: Sequence[str], *, quick: bool, prune_only: bool) -> None:
    """Refuse words and options that the action does not take, rather than pass over them."""
    if quick and action != "verify":
        raise UsageError("checkpoints: --quick belongs to verify")
    if prune_only and action != "prune":
        raise UsageError("checkpoints: --top, --last, --drop-optimizer and --yes belong to prune")
    if action == "diff" and len(rest) != 2:
        raise UsageError("checkpoints: diff takes two checkpoints, as in: sightline checkpoints DIR diff 400 500")
    if action in ("best", "prune") and rest:
        raise UsageError(f"checkpoints: {action} takes nothing more, found {rest[0]}")


def _list(folder: Path) -> _Answer:
    from sightline.checkpoints.listing import list_checkpoints
    from sightline.cli.checkpoints_json import listing_as_json

    listing = list_checkpoints(folder)
    return listing_as_json(listing), _Page("list_page", listing), FINE


def _verify(folder: Path, chosen: Sequence[str], quick: bool) -> _Answer:
    from sightline.checkpoints.verify import verify
    from sightline.cli.checkpoints_json import verifications_as_json

    verifications: list[Verification] = []
    for path, previous in _to_verify(folder, chosen):
        if sys.stderr.isatty() and not quick:
            sys.stderr.write(f"\r\x1b[Kreading {path.name}")
        verifications.append(verify(path, previous=previous, contents=not quick))
    if sys.stderr.isatty() and not quick:
        sys.stderr.write("\r\x1b[K")
    code = AGAINST if any(verification.problems for verification in verifications) else FINE
    return verifications_as_json(folder, verifications), _Page("verify_page", verifications, quick), code


def _to_verify(folder: Path, chosen: Sequence[str]) -> list[tuple[Path, Path | None]]:
    """Return the folders to verify, each with the checkpoint before it."""
    from sightline.checkpoints.discover import find_checkpoints
    from sightline.checkpoints.parts import CHECKPOINT_NAME, sizes_of, weights_of

    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    if not chosen and CHECKPOINT_NAME.fullmatch(folder.absolute().name):
        folder = folder.absolute() if folder.name != folder.absolute().name else folder
        found = [parts.path for parts in find_checkpoints(folder.parent)]
        before = [path for path in found if _step_of(path) < _step_of(folder)]
        return [(folder, before[-1] if before else None)]
    found = [parts.path for parts in find_checkpoints(folder)]
    pairs: list[tuple[Path, Path | None]] = list(zip(found, [None, *found], strict=False))
    best = folder / "best"
    if best.is_dir() and not best.is_symlink() and weights_of(best, sizes_of(best))[0]:
        pairs.append((best, None))
    if chosen:
        wanted = {_resolved(folder, word) for word in chosen}
        return [(path, previous) for path, previous in pairs if path in wanted]
    if not pairs:
        weights, lacks = weights_of(folder, sizes_of(folder))
        if not weights and lacks == ["weights"]:
            raise CheckpointError(f"{folder}: no checkpoint-N in it, and no weights either")
        return [(folder, None)]
    return pairs


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _resolved(folder: Path, word: str) -> Path:
    """Return the checkpoint that a word names: a step, a name inside the run's folder, or any path."""
    for path in (folder / f"checkpoint-{word}" if _STEP.fullmatch(word) else folder / word, Path(word)):
        if path.is_dir():
            return path
    raise CheckpointError(f"{word}: no checkpoint of {folder}; expected a step, or a folder's name")


def _best(folder: Path) -> _Answer:
    from sightline.checkpoints.listing import list_checkpoints
    from sightline.cli.checkpoints_json import best_as_json

    listing = list_checkpoints(folder)
    code = FAILED if listing.best is None else FINE
    return best_as_json(listing), _Page("best_page", listing), code


def _diff(folder: Path, first: str, second: str) -> _Answer:
    from sightline.checkpoints.differences import compare_weights
    from sightline.cli.checkpoints_json import difference_as_json

    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    difference = compare_weights(_resolved(folder, first), _resolved(folder, second))
    return difference_as_json(difference), _Page("diff_page", difference), FINE


def _prune(folder: Path, top: int, last: int | None, drop_optimizer: bool, yes: bool) -> _Answer:
    from sightline.checkpoints.forecast import forecast_disk
    from sightline.checkpoints.listing import list_checkpoints
    from sightline.checkpoints.prune import carry_out, plan_pruning
    from sightline.cli.checkpoints_json import pruning_as_json

    pruning = plan_pruning(list_checkpoints(folder), top=top, last=last, drop_optimizer=drop_optimizer)
    frees = pruning.frees_bytes
    forecast = forecast_disk(pruning.listing, frees)
    failed = carry_out(pruning) if yes else None
    document = pruning_as_json(pruning, frees, forecast, failed)
    return document, _Page("prune_page", pruning, frees, forecast, failed), FAILED if failed else FINE
