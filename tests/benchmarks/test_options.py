"""What makes one method's results another's, and a measured number."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg.baselines import LACE, LatentArithmetic
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.measures import Neighbours
from lcg.benchmarks.options import options_of


def test_results_depend_on_the_class_and_its_options() -> None:
    plain, probe = options_of(LatentArithmetic()), options_of(LatentArithmetic(direction="probe"))
    assert plain["class"] == "lcg.baselines.latent_arithmetic.LatentArithmetic" and plain != probe
    assert options_of(Neighbours(k=3)) == {
        "class": "lcg.benchmarks.measures.of_samples.Neighbours",
        "k": 3,
        "most": 2048,
    }


def test_of_a_file_its_bytes_count(tmp_path: Path) -> None:
    checkpoint = tmp_path / "lace.ckpt"
    absent = options_of(LACE(checkpoint=str(checkpoint)))
    hashes = []
    for content in (b"one", b"two", b"one"):
        checkpoint.write_bytes(content)
        hashes.append(options_of(LACE(checkpoint=str(checkpoint)))["checkpoint_sha256"])
    assert "checkpoint_sha256" not in absent and hashes[0] != hashes[1] and hashes[0] == hashes[2]


def test_what_begins_with_an_underscore_or_is_no_json_does_not_count() -> None:
    class Thing:
        def __init__(self) -> None:
            self.k, self._cache, self.tensor = 3, 4, torch.zeros(2)

    assert options_of(Thing()).keys() == {"class", "k"}


def test_a_mean_has_the_standard_error_of_its_outcomes() -> None:
    figure = Figure.mean("kept", torch.tensor([True, True, True, False]))
    assert (figure.metric, figure.value, figure.n) == ("kept", 0.75, 4)
    assert figure.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert figure.outcomes is not None and figure.outcomes.dtype == np.float32
    assert figure.outcomes.mean() == figure.value
    real = Figure.mean("l1_outside", torch.tensor([0.1, 0.3], dtype=torch.float64))
    assert real.value == pytest.approx(0.2) and real.stderr == pytest.approx(0.1 / math.sqrt(2))
    assert math.isnan(Figure("frechet_distance", 1.0).stderr) and Figure("frechet_distance", 1.0).outcomes is None
