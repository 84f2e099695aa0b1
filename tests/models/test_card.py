"""The model card says what is in the model, in words that are right, and marks what the store never had."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lcg.checkpoint import LoadedNetwork
from lcg.guidance import assess, parse
from lcg.models.card import PAIRS_SHOWN, write_card
from lcg.models.description import Description
from lcg.models.figures import run_record
from lcg.models.unseen import unseen_pairs
from lcg.schema import Attribute, Schema

Pair = tuple[LoadedNetwork[Any], LoadedNetwork[Any]]


@pytest.fixture
def model(exported: Path) -> Description:
    return Description.read(exported)


def test_the_front_matter_is_yaml(model: Description, pair: Pair) -> None:
    card = write_card("mine", model, pair[1].labels, "cc-by-4.0")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0" and yaml.safe_load(front)["library_name"] == "lcg"
    assert "# mine\n" in body and 'lcg.load("mine")' in body
    without = write_card("mine", model, pair[1].labels)
    assert "license:" not in without.split("---\n", 2)[1] and "None is stated" in without


def test_attributes_are_told_with_their_labels(model: Description, pair: Pair) -> None:
    card = write_card("mine", model, pair[1].labels)
    assert "| hat | binary | no 20, yes 20 | 40 |" in card
    assert "| hair | categorical | blond 20, red 20 | 40 |" in card
    assert "| age | continuous | -2 to 0.25, mean -0.875 | 40 |" in card


def test_what_nobody_knows_is_said_to_be_unknown(model: Description) -> None:
    bare = replace(model, generator={}, provenance={}, calibration={})
    card = write_card("mine", bare, torch.zeros(0, 3))
    for said in ("Nothing was measured", "do not say where it came from", "Not known. The images must come from"):
        assert said in card
    assert "None among the pairs of values that 0 label rows can tell of" in card


def test_figures_of_validation_are_told(model: Description, pair: Pair) -> None:
    figures = {
        "val/loss": 0.25,
        "val/loss/t0.0-0.2": 0.5,
        "val/accuracy/t0.0-0.2": 0.9,
        "val/accuracy/hat/t0.0-0.2": 0.8,
    }
    classifier = replace(model.classifier, training={"steps": 9, "figures": figures, "figures_at": 8})
    calibration = {"dependence": "joint", "temperature": [2.0, 1.0], "joint": {"before": [0.5], "after": [0.25]}}
    card = write_card("mine", replace(model, classifier=classifier, calibration=calibration), pair[1].labels)
    assert "| hat | binary | no 20, yes 20 | 40 | 0.8 |" in card and "| t0.0-0.2 | 0.9 |  | 0.5 |" in card
    assert "validation loss 0.25, measured at step 8" in card and "t = 1: 2, 1. Formulas are best read as joint" in card
    assert "by temperature: before 0.5; after 0.25" in card


def test_a_distilled_prior_is_told_as_one(model: Description, pair: Pair) -> None:
    card = write_card("mine", replace(model, distilled=True), pair[1].labels)
    assert 'sampling=Sampling("consistency", steps=2)' in card and "can neither edit" in card


def test_what_users_name_breaks_no_table(model: Description, pair: Pair) -> None:
    schema = Schema(
        (Attribute("hat"), Attribute("hair", "categorical", ("a|b", "c\nd")), Attribute("age", "continuous"))
    )
    card = write_card("mine", replace(model, schema=schema), pair[1].labels)
    assert "| a\\|b 20, c d 20 |" in card


# --- combinations that were never seen --------------------------------------------------------------------------------

FACES = Schema(
    (
        Attribute("beard"),
        Attribute("long"),
        Attribute("style", "categorical", ("full", "thin"), applies_if={"beard": True}),
        Attribute("color", "categorical", ("red", "blue", "mint")),
        Attribute("age", "continuous"),
    )
)


def faces(n: int = 400) -> torch.Tensor:
    """Independent but for beard and long hair, which never meet; and mint, which is rare."""
    rng = torch.Generator().manual_seed(0)
    beard = torch.rand(n, generator=rng) < 0.5
    long = (torch.rand(n, generator=rng) < 0.5) & ~beard
    style = torch.where(beard, (torch.rand(n, generator=rng) < 0.5).float(), torch.nan)
    color = (torch.rand(n, generator=rng) < 0.5).float()
    color[:3] = 2
    return torch.stack([beard.float(), long.float(), style, color, torch.rand(n, generator=rng)], dim=1)


def test_pairs_that_no_row_has_are_found_and_no_others() -> None:
    labels = faces()
    found = unseen_pairs(FACES, labels)
    formulas = [formula for formula, _ in found]
    assert formulas == ["beard & long"]
    both = float(labels[:, 0].sum() * labels[:, 1].sum()) / len(labels)
    assert found[0][1] == pytest.approx(both)
    assert assess(parse(formulas[0], FACES), labels).satisfying == 0


def test_a_detail_and_what_it_belongs_to_are_no_pair() -> None:
    hat = (torch.rand(100, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    labels = torch.stack([hat, 1 - hat], dim=1)
    for detail_of, count in (("hat",), 0), ((), 2):
        top = Attribute("top", "categorical", ("cap", "bare"), detail_of)
        assert len(unseen_pairs(Schema((Attribute("hat"), top)), labels)) == count


def test_unknown_labels_are_not_taken_for_absence() -> None:
    labels = faces()
    labels[:, 1] = torch.nan
    assert unseen_pairs(FACES, labels) == [] == unseen_pairs(FACES, labels[:0])


def test_of_many_pairs_the_most_telling_are_shown(model: Description) -> None:
    schema = Schema(tuple(Attribute(f"a{i}") for i in range(20)))
    labels = torch.eye(2).repeat(100, 1).repeat_interleave(10, dim=1)  # ten of one side, ten of the other
    assert len(unseen_pairs(schema, labels)) > PAIRS_SHOWN
    card = write_card("mine", replace(model, schema=schema), labels)
    assert f"- and {len(unseen_pairs(schema, labels)) - PAIRS_SHOWN} more" in card


# --- the run folder ---------------------------------------------------------------------------------------------------


def test_figures_are_the_last_before_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "metrics.csv").write_text(
        "epoch,step,train/loss,val/loss,val/ece/hat\n0,9,1.0,,\n0,9,,0.5,nan\n1,19,,0.25,0.125\n2,29,,0.1,0.2\n"
    )
    (tmp_path / "log" / "config.yaml").write_text(
        "data:\n  init_args:\n    batch_size: 32\n    store: /home/me/store\n"
    )
    record = run_record(tmp_path / "prior.ckpt", 20)
    assert record == {"figures": {"val/loss": 0.25, "val/ece/hat": 0.125}, "figures_at": 20, "data": {"batch_size": 32}}
    assert run_record(tmp_path / "prior.ckpt", 10)["figures"] == {"val/loss": 0.5}  # no label, no figure
    assert run_record(tmp_path / "prior.ckpt", 5) == {"data": {"batch_size": 32}}
    assert run_record(tmp_path / "elsewhere" / "prior.ckpt", 20) == {}
