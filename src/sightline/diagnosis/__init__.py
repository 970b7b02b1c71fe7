"""Curves to findings: NumPy and SciPy only, one method a module, each with its source."""

from sightline.diagnosis.diagnose import diagnose

__all__ = ["diagnose"]
