"""`python -m lcg.benchmarks.encoding --out runs/encoding [--quick]`."""

from __future__ import annotations

import argparse
import sys

from lcg.benchmarks.encoding.job import encoding_job


def main(arguments: list[str] | None = None) -> int:
    """Runs the job with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m lcg.benchmarks.encoding", description="Times the encode job.")
    parser.add_argument(
        "--out", default="runs/encoding", help="folder for encoding.json and encoding.md, and for the data"
    )
    parser.add_argument("--quick", action="store_true", help="few images and rounds, two minutes")
    options = parser.parse_args(arguments)
    return encoding_job(options.out, options.quick)


if __name__ == "__main__":
    sys.exit(main())
