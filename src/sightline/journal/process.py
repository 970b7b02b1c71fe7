"""Which process records a run, and whether it still lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """Return what tells this process from every other one, now and later, here and on other machines.

    Returns
    -------
    dict
        ``pid``; ``host``; ``boot_id``, which changes when the machine starts anew; ``pid_namespace``, which tells
        containers apart; ``start_ticks``, the start of the process in clock ticks since boot, which tells it
        from a later process of the same pid. None where the system does not say (other than Linux).
    """
    return {
        "pid": os.getpid(),
        "host": _host(),
        "boot_id": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "start_ticks": _start_ticks(os.getpid()),
    }


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Return whether a recorded process still runs; None when that cannot be seen from here.

    It can only be seen on the same machine, since the same boot and in the same container.
    """
    pid = process.get("pid")
    if type(pid) is not int or pid <= 0 or not _same_machine(process):
        return None
    if _boot_id() is None:
        return _signalable(pid)
    ticks = _start_ticks(pid)
    if ticks is None:
        return False
    recorded = process.get("start_ticks")
    return recorded is None or ticks == recorded


def _same_machine(process: Mapping[str, Any]) -> bool:
    """Whether pids mean the same to the recorded process and to us."""
    boot_id = _boot_id()
    if boot_id is None:
        return process.get("host") == _host()
    return process.get("boot_id") == boot_id and process.get("pid_namespace") == _pid_namespace()


def _host() -> str:
    """Return the name of this machine."""
    return os.uname().nodename if hasattr(os, "uname") else platform.node()


def _boot_id() -> str | None:
    """Return the random id of this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    """Return the id of our pid namespace."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _start_ticks(pid: int) -> int | None:
    """Return when a living process started, None if there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and parentheses
        return None if fields[0] in "ZX" else int(fields[19])  # fields 3 and 22 of proc(5)
    except (OSError, IndexError, ValueError):
        return None


def _signalable(pid: int) -> bool:
    """Whether a process of this pid exists, asked the portable way."""
    if os.name == "nt":
        return False  # os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
