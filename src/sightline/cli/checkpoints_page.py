"""The pages of `sightline checkpoints` and its actions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.text import Text

from sightline.checkpoints.best import BestSaved
from sightline.checkpoints.differences import WeightDifference
from sightline.checkpoints.forecast import DiskForecast, forecast_disk
from sightline.checkpoints.listing import Listed, Listing
from sightline.checkpoints.prune import Pruning
from sightline.checkpoints.verify import Verification
from sightline.diagnosis.context import portion
from sightline.terminal.layout import columns, fit, for_terminal, words_width, wrap
from sightline.terminal.text import Glyphs, number_text, printable, size_text, steps_text

MOST_TENSORS = 20
_BASIS = {
    "rows": "by the losses of the validation rows, 95 %",
    "curve": "by the noise of the validation curve, 95 %",
    "equality": "equal losses",
}


def list_page(listing: Listing, *, width: int, glyphs: Glyphs) -> list[Text]:
    """Set the list of a run's checkpoints: a line each, then what follows from it."""
    room = words_width(width, glyphs)
    heads = ["step", "epoch", "loss", "eval loss", "size", "kind", "holds", "deleting it loses", ""]
    wanted = list(range(9)) if room >= 88 else [0, 3, 4, 6, 8]
    rows = [[(heads[i], "dim") for i in wanted]]
    for listed in listing.checkpoints:
        cells = _cells(listing, listed, glyphs)
        rows.append([cells[i] for i in wanted])
    align = "".join("rrrrrllll"[i] for i in wanted)
    lines = [Text(fit(printable(listing.folder), room), style="bold"), Text()]
    lines += columns(rows, align, flexible=wanted.index(6), width=room)
    lines.append(Text())
    for sentence in (*_about_best(listing), *_about_parts(listing), *_about_disk(listing)):
        lines += wrap(printable(sentence), room, first="  • ")
    return for_terminal(lines, glyphs, width)


def verify_page(verifications: Sequence[Verification], quick: bool, *, width: int, glyphs: Glyphs) -> list[Text]:
    """Say of each checkpoint whether it is intact and complete, and name what is wrong."""
    room = words_width(width, glyphs)
    lines: list[Text] = []
    for found in verifications:
        word, style = _verdict(found, quick)
        lines.append(Text(fit(printable(found.path.name), room - 32), style="bold").append("  ").append(word, style))
        for problem in found.problems:
            lines += wrap(printable(str(problem)), room, first="  • ")
        for note in found.notes:
            lines += wrap(printable(f"note: {note}"), room, first="    ", style="dim")
    bad = sum(bool(found.problems) for found in verifications)
    total = f"{len(verifications)} checkpoint{'s' if len(verifications) != 1 else ''}"
    last = f"{bad} of {total} cannot be relied on." if bad else f"Nothing is wrong with {total}."
    if not bad and quick:
        last += " Only names, headers and sizes were looked at."
    elif not bad and not all(found.hashed for found in verifications):
        last += " Where no hash manifest was written, a changed weight that is still a number cannot be seen."
    return for_terminal([*lines, Text(), *wrap(last, room)], glyphs, width)


def best_page(listing: Listing, *, width: int, glyphs: Glyphs) -> list[Text]:
    """Print the path of the best checkpoint on a line of its own, then why it is the best."""
    room = words_width(width, glyphs)
    lines = []
    if listing.best is not None:
        lines.append(Text(printable(_path_of(listing, listing.best)), style="bold"))
    for sentence in _about_best(listing):
        lines += wrap(printable(sentence), room)
    return for_terminal(lines, glyphs)


def diff_page(difference: WeightDifference, *, width: int, glyphs: Glyphs) -> list[Text]:
    """Set the tensors that moved most in a table, and what is not in both."""
    room = words_width(width, glyphs)
    title = f"{printable(difference.first.name)} {glyphs.arrow} {printable(difference.second.name)}"
    rows = [[(head, "dim") for head in ("tensor", "shape", "moved by", "largest", "values changed")]]
    for change in difference.changes[:MOST_TENSORS]:
        shape = "x".join(map(str, change.shape)) or "scalar"
        moved = _share(change.relative)
        rows.append(
            [
                (printable(change.name, 200), ""),
                (shape, "dim"),
                (moved, "bold"),
                (number_text(change.largest, 3), ""),
                (portion(change.share_changed), ""),
            ]
        )
    lines = [Text(fit(title, room), style="bold"), Text(), *columns(rows, "llrrr", flexible=0, width=room), Text()]
    for sentence in _about_difference(difference):
        lines += wrap(printable(sentence), room, first="  • ")
    return for_terminal(lines, glyphs, width)


def prune_page(
    pruning: Pruning,
    frees_bytes: int,
    forecast: DiskForecast | None,
    failed: Sequence[str] | None,
    *,
    width: int,
    glyphs: Glyphs,
) -> list[Text]:
    """Say what stays and why, what goes, and what is not touched."""
    room = words_width(width, glyphs)
    done = failed is not None
    rows = [[("keep", "green"), (one.parts.path.name, "bold"), (why, "")] for one, why in pruning.kept]
    rows += [
        [("deleted" if done else "delete", "red"), (one.parts.path.name, "bold"), (size_text(one.frees_bytes), "")]
        for one in pruning.deleted
    ]
    rows += [
        [("drop", "yellow"), (one.parts.path.name, "bold"), (", ".join(names), "")] for one, names in pruning.dropped
    ]
    lines = columns(rows, "lll", flexible=2, width=room)
    for why, names in _by_reason(pruning).items():
        alone = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left alone: {why}"
        lines += wrap(printable(alone), room, first="  • ")
    lines.append(Text())
    for sentence in (*_about_pruning(pruning, frees_bytes, failed), *_about_forecast(forecast)):
        lines += wrap(printable(sentence), room)
    return for_terminal(lines, glyphs, width)


def _cells(listing: Listing, listed: Listed, glyphs: Glyphs) -> list[tuple[str, str]]:
    parts = listed.parts
    return [
        (str(parts.step), "bold"),
        ("-" if listed.epoch is None else f"{listed.epoch:.2f}", ""),
        (number_text(listed.loss), ""),
        (number_text(listed.eval_loss), ""),
        (size_text(parts.size_bytes), ""),
        ("adapter" if parts.is_adapter else "full", ""),
        _holds(listed),
        (listing.loss_of_deleting(listed) or "nothing", ""),
        _marks(listing, listed, glyphs),
    ]


def _holds(listed: Listed) -> tuple[str, str]:
    parts = listed.parts
    if parts.is_complete:
        return "everything", ""
    if parts.is_weights_only:
        return "weights only", "yellow"
    return "incomplete", "bold red"


def _marks(listing: Listing, listed: Listed, glyphs: Glyphs) -> tuple[str, str]:
    marks = []
    if listing.best is not None and listed.step == listing.best.step:
        marks.append(f"{glyphs.best} best")
    elif listing.best is not None and listed.step in listing.best.equivalent_steps:
        marks.append("as good")
    if listing.last is listed:
        marks.append("last")
    return ", ".join(marks), "green"


def _verdict(found: Verification, quick: bool) -> tuple[str, str]:
    unread = ", not read" if quick else "" if found.hashed else ", no hashes"
    if not found.intact:
        return "damaged", "bold red"
    if found.weights_only and not found.problems:
        return f"intact, weights only{unread}", "green"
    if not found.complete:
        return "incomplete", "bold red"
    if found.problems:
        return "intact, but of no use", "yellow"
    return f"intact and complete{unread}", "green"


def _path_of(listing: Listing, best: BestSaved) -> str:
    return str(next(listed.parts.path for listed in listing.checkpoints if listed.step == best.step))


def _about_best(listing: Listing) -> Iterator[str]:
    best = listing.best
    if best is None:
        yield "No checkpoint has a validation loss at its step, so none can be called best."
        return
    exact = any(listed.is_exact for listed in listing.checkpoints)
    kind = "exact validation loss" if exact else "validation loss, as logged,"
    yield f"checkpoint-{best.step} is the best: {kind} {number_text(best.eval_loss)}."
    others = tuple(step for step in best.equivalent_steps if step != best.step)
    if others:
        yield f"It cannot be told apart from {steps_text(others)} ({_BASIS[best.basis]})."
    if best.unsaved_step == 0:
        yield f"The base model was better than every checkpoint: {number_text(best.unsaved_loss)} before the first step."
    elif best.unsaved_step is not None:
        yield (
            f"The best evaluation of the run, {number_text(best.unsaved_loss)} at step {best.unsaved_step}, was not "
            "saved or is deleted; set save_steps equal to eval_steps."
        )
    if exact and any(not listed.is_exact and listed.eval_loss is not None for listed in listing.checkpoints):
        yield "Checkpoints with the Trainer's own loss only are not ranked among those with an exact one."


def _about_parts(listing: Listing) -> Iterator[str]:
    for listed in listing.checkpoints:
        parts = listed.parts
        if parts.missing and not parts.is_weights_only:
            yield f"checkpoint-{parts.step} lacks {', '.join(parts.missing)}."
    if any(listed.parts.is_weights_only for listed in listing.checkpoints):
        yield "Weights only: they can be used and evaluated; training cannot go on exactly from them."
    yield from _about_bases(listing)


def _about_bases(listing: Listing) -> Iterator[str]:
    bases = {listed.base for listed in listing.checkpoints if listed.base is not None}
    for base in sorted(bases, key=lambda base: (base.name, base.revision or "")):
        revision = f" at revision {base.revision}" if base.revision else ""
        same = {True: ", the base of this run", False: ", which is NOT the base of this run", None: ""}[base.is_same]
        steps = [listed.step for listed in listing.checkpoints if listed.base == base]
        which = "The adapters belong" if len(bases) == 1 else f"The adapters of {steps_text(tuple(steps))} belong"
        yield f"{which} on {base.name}{revision}{same}."


def _about_disk(listing: Listing) -> Iterator[str]:
    needed = {listing.best.step} if listing.best is not None else set()
    needed |= {listing.last.step} if listing.last is not None else set()
    spare = sum(listed.frees_bytes for listed in listing.checkpoints if listed.step not in needed)
    sentence = f"{size_text(listing.size_bytes)} in all"
    if listing.best is not None and spare:
        sentence += f"; all but the best and the last take {size_text(spare)} (sightline checkpoints DIR prune)"
    yield f"{sentence}."
    yield from _about_forecast(forecast_disk(listing))


def _about_forecast(forecast: DiskForecast | None) -> Iterator[str]:
    if forecast is None:
        return
    saves = f"{forecast.saves_to_come} more save{'s' if forecast.saves_to_come != 1 else ''} to come"
    need = size_text(forecast.each_bytes * forecast.saves_to_come)
    if forecast.full_at_step is None:
        yield f"{saves}, {need} if none is deleted; {size_text(forecast.free_bytes)} are free."
    else:
        yield (
            f"{saves}, {need} if none is deleted, and {size_text(forecast.free_bytes)} are free: the disk is full at "
            f"step {forecast.full_at_step}."
        )


def _about_difference(difference: WeightDifference) -> Iterator[str]:
    total = len(difference.changes)
    yield f"{difference.moved} of {total} tensors moved; over all of them by {_share(difference.relative)} of their norm."
    if difference.adapter_relative is not None:
        yield f"What the adapter adds to the base (B A) moved by {_share(difference.adapter_relative)}."
    if total > MOST_TENSORS:
        yield f"Shown are the {MOST_TENSORS} that moved most; --json gives all."
    for names, what in (
        (difference.only_first, f"only in {difference.first.name}"),
        (difference.only_second, f"only in {difference.second.name}"),
        (difference.reshaped, "of another shape"),
        (difference.uncompared, "of a type that is not compared"),
    ):
        if names:
            yield f"{len(names)} tensors are {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}."


def _about_pruning(pruning: Pruning, frees_bytes: int, failed: Sequence[str] | None) -> Iterator[str]:
    if pruning.why_nothing is not None:
        yield f"Nothing is deleted: {pruning.why_nothing}."
    if failed is None:
        if pruning.deleted or pruning.dropped:
            yield f"This would free {size_text(frees_bytes)}. Nothing was deleted: --yes does it."
        elif pruning.why_nothing is None:
            yield "There is nothing to delete."
        return
    for sentence in failed:
        yield f"Not done: {sentence}."
    yield f"Freed {size_text(frees_bytes)}." if not failed else "The rest is done."


def _by_reason(pruning: Pruning) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in pruning.left_alone:
        reasons.setdefault(why, []).append(name)
    return reasons


def _share(relative: float) -> str:
    if math.isinf(relative):
        return "from zero"
    if math.isnan(relative):
        return "NaN"
    return f"{100.0 * relative:.3g} %"
