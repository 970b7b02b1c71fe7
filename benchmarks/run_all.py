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

VARIANTS = {"verdict_real": ("--simulated", "--cross-validate"), "verdict_simulation": ("--bound", "--others")}
"""What a benchmark measures besides, each in a run of its own: the docs quote them."""


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
        for variant in ("", *VARIANTS.get(name, ())):
            title = name + variant.replace("--", "_").replace("-", "_")
            print(f"\n== {name} {variant}".rstrip(), flush=True)
            more = [variant] if variant else []
            if options.json is not None:
                options.json.mkdir(parents=True, exist_ok=True)
                more += ["--json", str(options.json / f"{title}.json")]
            if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *more], check=False).returncode:
                failed.append(title)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
