"""What every test shares: threads that do not fight, no hub, and the table of trials."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.trials import pytest_addoption, pytest_terminal_summary, trials

__all__ = ["pytest_addoption", "pytest_terminal_summary", "shared", "trials"]

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))  # `HYPOTHESIS_PROFILE=default` looks further

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["SIGHTLINE_CACHE"] = "0"  # what a test reads is not to be remembered in the home of who runs it


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of data sets, models and logs for extra tests; skips where there is none."""
    folder = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder of shared data (SIGHTLINE_SHARED)")
    return folder
