"""Hardware: what is found, and that nothing is assumed where nothing can be read."""

from __future__ import annotations

import os

import pytest
import torch

from sightline.errors import MissingExtra
from sightline.training import hardware as module
from sightline.training.hardware import Hardware


def test_this_machine_makes_sense():
    found = Hardware.detect(use_cpu=True)
    assert found.is_cpu
    assert found.bf16 is False  # on a CPU it only costs
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.total_memory_bytes is None or found.total_memory_bytes > 2**28
    if found.free_memory_bytes is not None and found.total_memory_bytes is not None:
        assert 0 < found.free_memory_bytes <= found.total_memory_bytes


def test_launchers_are_heard(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    found = Hardware.detect(use_cpu=True)
    assert (found.world_size, found.local_world_size) == (4, 2)
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert Hardware.detect(use_cpu=True).world_size == 1


def test_a_gpu_is_described(monkeypatch):
    """What CUDA says is passed on: this test stands in for a GPU where there is none."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10, 20))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    found = Hardware.detect()
    assert (found.device, found.name, found.visible_devices) == ("cuda", "GPU 1", 2)
    assert (found.free_memory_bytes, found.total_memory_bytes, found.bf16) == (10, 20, True)
    assert Hardware.detect(use_cpu=True).is_cpu


def test_a_system_that_says_nothing(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "sysconf_names", {})
    assert module._ram() == (None, None)
    assert module._cores() >= 1
    monkeypatch.setattr(os, "getloadavg", refuse)
    assert module._load() is None


def test_missing_torch_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtra, match="pip install"):
        Hardware.detect()
