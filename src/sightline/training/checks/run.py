"""run_checks(): every check in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sightline.runs import Finding, Severity
from sightline.training.checks.context import CheckContext, finding
from sightline.training.checks.end_token import check_end_token
from sightline.training.checks.labels import check_labels
from sightline.training.checks.memory import check_disk, check_memory
from sightline.training.checks.overlap import check_overlap
from sightline.training.checks.plan import (
    check_cadence,
    check_hardware,
    check_judging,
    check_learning_rate,
    check_warmup,
)
from sightline.training.checks.text import check_boundary, check_characters
from sightline.training.checks.validation_size import check_validation_size

Check = Callable[[CheckContext], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    check_end_token,
    check_labels,
    check_characters,
    check_boundary,
    check_overlap,
    check_validation_size,
    check_cadence,
    check_warmup,
    check_learning_rate,
    check_hardware,
    check_memory,
    check_disk,
    check_judging,
)

KINDS: tuple[str, ...] = (
    "end_token_missing",
    "end_token_text_split",
    "end_token_outside_vocabulary",
    "end_token_untrained",
    "end_token_not_generation_end",
    "end_token_not_learnt",
    "rows_truncated",
    "rows_without_label",
    "empty_completions",
    "ids_outside_vocabulary",
    "unknown_characters",
    "boundary_merge",
    "prompts_in_train_and_validation",
    "prompts_in_train_and_gold",
    "prompts_in_validation_and_gold",
    "near_prompts_in_train_and_validation",
    "near_prompts_in_train_and_gold",
    "duplicate_rows",
    "no_validation_rows",
    "few_validation_rows",
    "few_evaluations",
    "logging_sparser_than_evaluation",
    "saving_misses_evaluations",
    "trainer_rotation",
    "long_warmup",
    "unusual_learning_rate",
    "several_devices_one_process",
    "precision_not_supported",
    "packing_without_flash_attention",
    "costly_on_cpu",
    "busy_machine",
    "memory",
    "disk",
    "no_gold_set",
    "check_failed",
)
"""Every kind of finding, in the order of docs/checks.md."""

_ORDER = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


def run_checks(context: CheckContext) -> tuple[Finding, ...]:
    """Run every check.

    Parameters
    ----------
    context : CheckContext
        What they look at.

    Returns
    -------
    tuple of Finding
        Most severe first, in the order of ``CHECKS`` among equals. A check that itself fails becomes a finding of kind
        ``check_failed``: a fault of ours must not keep anyone from training.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check(context))
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            first = (str(error).splitlines() or [""])[0]
            message = f"the check of {name.replace('_', ' ')} could not be made: {type(error).__name__}: {first}"
            findings.append(finding("check_failed", Severity.INFO, message, {"check": name}))
    return tuple(sorted(findings, key=lambda found: _ORDER[found.severity]))
