"""Whether there are enough validation rows to see a change that matters.

Two evaluations of one run are compared on the same rows, so what counts is how much single rows disagree about the
change, not how much their losses differ. With ``s`` the standard deviation of the row-wise change over the mean loss,
``n`` rows show a change of ``d`` at 95 % confidence when ``n >= (1.96 s / d)**2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sightline.runs import ExampleLosses, Finding, Severity
from sightline.training.checks.context import CheckContext, finding, plural

CHANGE = 0.01
"""The relative change of the validation loss that should be seen."""
Z = 1.96
PRIOR_SPREAD = 0.10
"""Standard deviation over rows of the change between two evaluations near the best, over the mean loss, where nothing
is known of the rows: measured between 0.02 and 0.20 on runs whose two evaluations were 0.2 to 3 % apart."""
SPREAD_OF_CHANGE = 0.2
"""That deviation over the one of the row losses themselves: measured between 0.05 and 0.26 on the same runs."""


def check_validation_size(context: CheckContext) -> Iterator[Finding]:
    """Compare the number of validation rows with the number a change of 1 % needs."""
    rows = context.eval_rows
    if rows is None:
        message = (
            "no validation rows: nothing can be said of memorising, nothing is stopped, and the last step is kept; "
            "give eval_size or eval_dataset"
        )
        yield finding("no_validation_rows", Severity.WARNING, message)
        return
    if context.losses is None:
        spread, basis = PRIOR_SPREAD, "with a usual spread over rows"
    else:
        spread, basis = spread_of(context.losses), "by the spread of these rows' own losses"
    needed = rows_needed(spread)
    if len(rows) >= needed:
        return
    visible = Z * spread / math.sqrt(len(rows))
    shows = f"{plural(len(rows), 'validation row')} {'shows' if len(rows) == 1 else 'show'}"
    message = (
        f"{shows} a change of the loss of about {visible:.1%} or more; to see 1 % takes about {needed:,} ({basis}): "
        "small turns will be told late; give more validation rows (eval_size) if you have them"
    )
    severity = Severity.WARNING if visible > 5 * CHANGE else Severity.INFO
    evidence = {
        "rows": len(rows),
        "rows_needed": needed,
        "visible_change": round(visible, 5),
        "spread": round(spread, 4),
    }
    yield finding("few_validation_rows", severity, message, evidence)


def rows_needed(spread: float, change: float = CHANGE) -> int:
    """Return the rows that show a relative change of the loss at 95 % confidence.

    Parameters
    ----------
    spread : float
        Standard deviation over rows of the change between two evaluations, over the mean loss.
    change : float
        Relative change to be seen.

    Returns
    -------
    int
        At least 2.
    """
    return max(2, math.ceil((Z * spread / change) ** 2))


def spread_of(losses: ExampleLosses) -> float:
    """Return the spread to be expected of row-wise changes, over the mean loss, from the rows' losses at one step."""
    counted = (losses.token_counts > 0) & np.isfinite(losses.loss_sums)
    if counted.sum() < 2:
        return PRIOR_SPREAD
    weights = losses.token_counts[counted] / losses.token_counts[counted].mean()
    deviations = weights * (losses.loss_sums[counted] / losses.token_counts[counted] - losses.loss)
    return SPREAD_OF_CHANGE * float(deviations.std(ddof=1)) / losses.loss
