"""`python -m lcg.benchmarks.speed --out runs/speed [--quick]`."""

from __future__ import annotations

import argparse
import sys

from lcg.benchmarks.speed.job import speed_job
from lcg.memory import keep_memory


def main(arguments: list[str] | None = None) -> int:
    """Runs the job with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m lcg.benchmarks.speed", description="Times lcg beside its peers.")
    parser.add_argument("--out", default="runs/speed", help="folder for speed.json and speed.md")
    parser.add_argument("--quick", action="store_true", help="small networks and few rounds, a minute")
    options = parser.parse_args(arguments)
    if arguments is None:  # a process of our own
        keep_memory()
    return speed_job(options.out, options.quick)


if __name__ == "__main__":
    sys.exit(main())
