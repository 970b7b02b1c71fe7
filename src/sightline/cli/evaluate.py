"""`sightline evaluate`: the exact loss of any model on any file of rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.exits import AGAINST, FINE
from sightline.cli.options import AsJson, NoColor, Width, new_app
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.text import Text

    from sightline.runs import ExampleLosses
    from sightline.training.rows import TokenisedRows

SHOWN_ROWS = 5

app = new_app()


@app.command(epilog="Example: sightline evaluate outputs/a/best data/validation.jsonl --against models/base")
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, adapter folder, or id on the hub.")],
    data: Annotated[str, typer.Argument(help="Rows: JSONL, JSON, CSV, Parquet or text, or a dataset of the hub.")],
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="DIR", help="Adapter to put on the model.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Another model, compared row by row.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option("--batch-tokens", min=1, help="Most tokens of a forward pass; the result is the same.")
    ] = None,
    max_length: Annotated[int | None, typer.Option("--max-length", min=2, help="Tokens a row is cut to.")] = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
    width: Width = None,
) -> int:
    """Score every row of a file exactly: the sum of token losses by the count of tokens, whatever the batch size.

    With --against the rows that got better and worse are shown. Exit code 1 where rows have no finite loss.
    """
    from sightline.training.threads import wait_passively

    wait_passively()
    from sightline.training.prepare import require_train_extra

    require_train_extra("`sightline evaluate`")
    from sightline.training.scoring import score_file

    scored = score_file(model, data, adapter=adapter, batch_tokens=batch_tokens, max_length=max_length)
    other = None
    if against is not None:
        other = score_file(against, data, batch_tokens=batch_tokens, max_length=max_length, like=scored)
    document = _document(model, data, adapter, scored.losses, scored.notices)
    if other is not None:
        document["against"] = _document(str(against), data, None, other.losses, other.notices)
    if as_json:
        document["examples"] = _examples(scored.rows, scored.losses, None if other is None else other.losses)
        print_json(document)
    else:
        _print_page(document, scored.rows, scored.losses, None if other is None else other.losses, no_color, width)
    broken = scored.losses.non_finite or (other is not None and other.losses.non_finite)
    return AGAINST if broken else FINE


def _document(
    model: str, data: str, adapter: str | None, losses: ExampleLosses, notices: tuple[str, ...]
) -> dict[str, Any]:
    from sightline.runs import perplexity

    return {
        "sightline": 1,
        "model": model,
        "adapter": adapter,
        "data": data,
        "eval_loss": _as_exact_as_it_is(losses.loss),
        "perplexity": _as_exact_as_it_is(perplexity(losses.loss)),
        "tokens": losses.tokens,
        "rows": len(losses.loss_sums),
        "non_finite": losses.non_finite,
        "notices": list(notices),
    }


def _as_exact_as_it_is(value: float) -> float:
    """Return a loss to the digits that do not depend on how rows were put into batches: 7."""
    return float(f"{value:.7g}")


def _examples(rows: TokenisedRows, losses: ExampleLosses, other: ExampleLosses | None) -> list[dict[str, Any]]:
    """Return every row's share: its place in the data, its tokens, its loss, and the other model's."""
    return [
        {
            "where": rows.examples[i].where,
            "tokens": int(losses.token_counts[i]),
            "loss_sum": float(losses.loss_sums[i]),
            "against_loss_sum": None if other is None else float(other.loss_sums[i]),
        }
        for i in range(len(rows))
    ]


def _print_page(
    document: dict[str, Any],
    rows: TokenisedRows,
    losses: ExampleLosses,
    other: ExampleLosses | None,
    no_color: bool,
    width: int | None,
) -> None:
    import numpy as np
    from rich.text import Text

    from sightline.terminal.layout import fit, for_terminal, words_width, wrap
    from sightline.terminal.text import printable

    columns, glyphs = output_width(width), output_glyphs()
    room = words_width(columns, glyphs)
    lines = wrap(
        f"loss {_loss_text(document['eval_loss'])} nats per token, perplexity {_loss_text(document['perplexity'], '.4g')}, "
        f"{document['rows']:,} row{'s' * (document['rows'] != 1)}, {document['tokens']:,} tokens",
        room,
    )
    lines += wrap(_broken_text(document), room, style="bold red") if document["non_finite"] else []
    for notice in document["notices"]:
        lines += wrap(printable(notice), room, first="  ")
    if other is None:
        counted = np.flatnonzero(losses.token_counts)  # a row without a label has no loss
        means = losses.loss_sums / np.maximum(losses.token_counts, 1)
        broken_first = counted[np.argsort(-np.where(np.isfinite(means), means, np.inf)[counted], kind="stable")]
        groups = [("Rows with the highest loss per token", broken_first[:SHOWN_ROWS], means)]
    else:
        lines += _against_lines(document, room)
        with np.errstate(invalid="ignore"):  # of two infinite losses
            change = losses.loss_sums - other.loss_sums
        broken = np.isfinite(other.loss_sums).astype(float) - np.isfinite(losses.loss_sums)
        ranked = np.where(broken != 0, np.inf * np.sign(broken), np.nan_to_num(change))
        groups = [
            ("Rows that got worse, in nats", _extreme(-ranked), change),
            ("Rows that got better, in nats", _extreme(ranked), change),
        ]
    for title, index, values in groups:
        lines += [Text(), Text(title if len(index) else f"{title}: none", style="bold")]
        for i in index:
            example = rows.examples[int(i)]
            where = example.where.rpartition("/")[2]
            value = f"{_loss_text(float(values[i]), '.3f' if other is None else '+.3f'):>9}"
            text = f"{value}  {where}  {example.prompt_text!r} → {example.target_text!r}"
            lines.append(Text(fit("  " + printable(text), room)))
    print_lines(for_terminal(lines, glyphs, columns), no_color=no_color)


def _against_lines(document: dict[str, Any], room: int) -> list[Text]:
    """Return what is said of the other model: its loss, the difference, and what is wrong with it."""
    from sightline.terminal.layout import wrap
    from sightline.terminal.text import printable

    against = document["against"]
    difference = document["eval_loss"] - against["eval_loss"]
    lines = wrap(
        f"{printable(against['model'])}: loss {_loss_text(against['eval_loss'])}; "
        f"difference {_loss_text(difference, '+.6f')}",
        room,
    )
    lines += wrap(_broken_text(against), room, first="  ", style="bold red") if against["non_finite"] else []
    for notice in against["notices"]:
        if notice not in document["notices"]:
            lines += wrap(printable(notice), room, first="  ")
    return lines


def _loss_text(value: float, form: str = ".6f") -> str:
    from sightline.terminal.text import number_text

    return format(value, form) if math.isfinite(value) else number_text(value)


def _broken_text(document: dict[str, Any]) -> str:
    broken = "1 row has" if document["non_finite"] == 1 else f"{document['non_finite']} rows have"
    return f"{broken} no finite loss: the weights are broken"


def _extreme(change: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows with the lowest values below zero."""
    order = change.argsort(kind="stable")[:SHOWN_ROWS]
    return order[change[order] < 0]
