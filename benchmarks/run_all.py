"""Run every benchmark, one after the other, each in a process of its own, and gather their numbers.

    python benchmarks/run_all.py [NAME …] [--json FOLDER]

Peers are measured in the same run; what is compared are ratios, because machines differ and are noisy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"run_all", "rules", "verdict_pictures"}
"""Modules that benchmarks share, and what draws their numbers."""


def names() -> list[str]:
    """Return the benchmarks there are."""
    return sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHMARKS and not p.stem.startswith("_"))


def main() -> int:
    """Run the chosen benchmarks, all unless some are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(names())}")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write the numbers to FOLDER/NAME.json")
    options = parser.parse_args()
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    failed = []
    for name in options.names or names():
        print(f"\n== {name}", flush=True)
        more = []
        if options.json is not None:
            options.json.mkdir(parents=True, exist_ok=True)
            more = ["--json", str(options.json / f"{name}.json")]
        if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *more], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
