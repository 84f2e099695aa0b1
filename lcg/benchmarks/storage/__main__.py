"""`python -m lcg.benchmarks.storage --out runs/storage [--quick]`."""

from __future__ import annotations

import argparse
import sys

from lcg.benchmarks.storage.job import storage_job


def main(arguments: list[str] | None = None) -> int:
    """Runs the job with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m lcg.benchmarks.storage", description="Times the latent store.")
    parser.add_argument(
        "--out", default="runs/storage", help="folder for storage.json and storage.md, and for the data"
    )
    parser.add_argument("--quick", action="store_true", help="small stores and few rounds, a minute")
    options = parser.parse_args(arguments)
    return storage_job(options.out, options.quick)


if __name__ == "__main__":
    sys.exit(main())
