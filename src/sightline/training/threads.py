"""Threads that wait for each other without burning the cores they wait for.

The OpenMP runtime under torch lets idle threads spin. Where another process wants the same cores (another run, a
data loader, a neighbour in a container) spinning threads keep the working one off its core, and training on two
threads becomes ten times slower than on one. Passive waiting costs microseconds and removes the cliff.
"""

from __future__ import annotations

import os
import sys

WAIT_POLICY = "OMP_WAIT_POLICY"


def wait_passively() -> bool:
    """Have OpenMP threads sleep while they wait, unless the user chose otherwise.

    Returns
    -------
    bool
        Whether it takes effect: it must be set before torch is imported.
    """
    if "torch" in sys.modules or WAIT_POLICY in os.environ:
        return False
    os.environ[WAIT_POLICY] = "PASSIVE"
    return True
