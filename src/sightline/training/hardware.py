"""Hardware: what the run can count on, found once, without settling anything.

``Hardware.detect(use_cpu=False)`` imports torch; a Hardware can also be written down by hand, as tests do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from sightline.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class Hardware:
    """Devices and memory of this process and its group."""

    device: Literal["cuda", "mps", "cpu", "xpu"]
    name: str
    """What the device calls itself."""
    visible_devices: int = 1
    """Accelerators this process sees; 1 on a CPU."""
    world_size: int = 1
    """Processes that train together (``torchrun``, ``accelerate launch``)."""
    local_world_size: int = 1
    """Those of them on this machine."""
    free_memory_bytes: int | None = None
    """Free memory of the device the model goes to, RAM on a CPU; None where it cannot be told."""
    total_memory_bytes: int | None = None
    cores: int = 1
    threads: int = 1
    """Threads torch computes with on the CPU."""
    load: float | None = None
    """Processes that want a core, mean of the last minute; None where the system does not say."""
    bf16: bool = False
    """Whether the accelerator computes bfloat16 natively. False on a CPU, where it only costs."""
    flash_attention: bool = False
    """Whether the flash-attn package is installed beside an accelerator that runs it."""

    @property
    def is_cpu(self) -> bool:
        """Whether the model trains on the CPU."""
        return self.device == "cpu"

    @classmethod
    def detect(cls, *, use_cpu: bool = False) -> Hardware:
        """Look at this machine.

        Parameters
        ----------
        use_cpu : bool
            Stay on the CPU although there is an accelerator.

        Returns
        -------
        Hardware
            Of this process.

        Raises
        ------
        MissingExtra
            If torch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingExtra("`sightline train`", "torch", "train") from error
        total, free = _ram()
        device: dict[str, Any] = {
            "device": "cpu",
            "name": "CPU",
            "free_memory_bytes": free,
            "total_memory_bytes": total,
        }
        if not use_cpu and torch.cuda.is_available():
            device = _cuda(torch)
        elif not use_cpu and torch.backends.mps.is_available():
            device |= {"device": "mps", "name": "Apple GPU"}
        return cls(
            **device,
            world_size=_from_environment("WORLD_SIZE"),
            local_world_size=_from_environment("LOCAL_WORLD_SIZE"),
            cores=_cores(),
            threads=int(torch.get_num_threads()),
            load=_load(),
        )


def _cuda(torch: Any) -> dict[str, Any]:
    """Return what CUDA (or ROCm) says of this process's device."""
    index = _from_environment("LOCAL_RANK", 0) % max(1, torch.cuda.device_count())
    major = torch.cuda.get_device_capability(index)[0]
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError:  # a device that is exclusively in use
        free = total = None
    return {
        "device": "cuda",
        "name": torch.cuda.get_device_name(index),
        "visible_devices": torch.cuda.device_count(),
        "free_memory_bytes": free,
        "total_memory_bytes": total,
        "bf16": bool(torch.cuda.is_bf16_supported(including_emulation=False)),
        "flash_attention": major >= 8 and find_spec("flash_attn") is not None,
    }


def _from_environment(name: str, default: int = 1) -> int:
    """Return a count that a launcher left in the environment."""
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default


def _cores() -> int:
    """Cores this process may use: affinity and cgroup quota respected."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123 - a kernel file, one line
            quota, period = file.read().split()
        return max(1, min(affinity, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return affinity


def _load() -> float | None:
    """Load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _ram() -> tuple[int | None, int | None]:
    """Total and available RAM in bytes, the container's limit respected."""
    total = available = None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in file)
        total = int(fields["MemTotal"].split()[0]) * 1024
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:  # noqa: PTH123
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:  # noqa: PTH123
            left = limit - int(file.read())
        total = limit if total is None else min(total, limit)
        available = left if available is None else min(available, left)
    except (OSError, ValueError):
        pass
    return total, available
