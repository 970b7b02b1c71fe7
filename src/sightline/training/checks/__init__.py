"""What can be known to go wrong before the first step.

``run_checks(CheckContext.of(prepared)) -> tuple[Finding, ...]``, most severe first. No check trains, loads weights or
changes anything. A critical finding means that training would be wasted; every finding says what to do. docs/checks.md
has a section for each kind.
"""

from sightline.training.checks.context import CheckContext
from sightline.training.checks.run import CHECKS, KINDS, run_checks

__all__ = ["CHECKS", "KINDS", "CheckContext", "run_checks"]
