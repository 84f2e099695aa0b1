"""metrics.csv of a resumed training: rows of earlier sittings stay, up to the step that the checkpoint has.

Lightning's CSVLogger deletes the file of an earlier sitting when a fit, or a validation, sets it up. What came after
the checkpoint is repeated by the resumed training, so those rows go and are written again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from lcg.data.atomic import write_atomic


class ContinuedWriter(ExperimentWriter):
    """Writes metrics.csv after the rows that are in it.

    Args:
        log_dir: folder of the file.
        steps: rows of this step and later ones are dropped; None keeps all.
    """

    def __init__(self, log_dir: str, steps: int | None = None) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if steps is None or comes_before(row.get("step"), steps)]
            self.metrics_keys = list(reader.fieldnames or ())
            write_rows(path, self.metrics_keys, rows)

    def _check_log_dir_exists(self) -> None:
        """Where Lightning deletes the file."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        write_rows(path, fieldnames, rows)


def comes_before(step: str | None, steps: int) -> bool:
    """Whether the cell of a row says that it belongs to the first so many steps."""
    return bool(step) and str(step).isdigit() and int(str(step)) < steps


def write_rows(path: Path, names: list[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Replaces a CSV file in one step."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def continue_metrics(logger: CSVLogger, steps: int | None = None) -> None:
    """Makes a logger that has not begun go on with its file.

    Args:
        logger: of a Trainer that is about to resume, or to validate what was trained.
        steps: how many steps the checkpoint has behind it, when training goes on from there.
    """
    logger._experiment = ContinuedWriter(logger.log_dir, steps)
