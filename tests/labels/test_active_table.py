"""The way from a store to a sheet and a table, and of the filled table back into the store; and the two commands."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcg import cli
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.labels.active_job import label_state, merge_job, next_job
from lcg.labels.active_table import FilledTable, joined, merge_labels, numbered_sheet, write_table
from lcg.schema import Attribute, Schema
from tests.transfer.worlds import Linear, rotation

SCHEMA = Schema(
    (
        Attribute("beard"),
        Attribute("beard_style", "categorical", ("full", "goatee"), ("beard",), {"beard": True}),
        Attribute("age", "continuous"),
    )
)
NAN = float("nan")
LABELS = torch.tensor([[1.0, NAN, 30.0], [0.0, NAN, NAN], [NAN, NAN, NAN], [1.0, 1.0, 50.0]]).repeat(5, 1)


def store(folder: Path, labels: torch.Tensor = LABELS, schema: Schema = SCHEMA) -> str:
    z = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    writer = LatentStoreWriter(folder, (3,), schema, {"source": "noise"})
    writer.append(z, labels, np.arange(len(labels)) * 2)
    writer.finish()
    return str(folder)


def generator() -> Linear:
    return Linear(rotation(3), torch.zeros(3))


def filled(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_what_is_missing_is_neither_known_nor_a_detail_that_does_not_apply(tmp_path: Path) -> None:
    missing, known = label_state(LatentStore.open(store(tmp_path / "s")), SCHEMA, SCHEMA.names)
    assert missing[:4].tolist() == [
        [False, True, False],
        [False, False, True],  # no beard has no style
        [True, True, True],
        [False, False, False],
    ]
    assert torch.equal(known, ~LABELS.isnan())


def test_labels_go_into_the_store_and_nothing_else_changes(tmp_path: Path) -> None:
    old = store(tmp_path / "s")
    table = filled(
        tmp_path / "t.csv", "number,row,beard,beard_style,age", "1,2,1,goatee,", "2,1,-,-,41.5", "3,0,,full,30"
    )
    merged, count = merge_labels(old, table, tmp_path / "m", progress=False)
    expected = LABELS.clone()
    expected[2, 0], expected[2, 1], expected[1, 2], expected[0, 1] = 1.0, 1.0, 41.5, 0.0
    torch.testing.assert_close(merged.labels(), expected, equal_nan=True)
    before = LatentStore.open(old)
    assert torch.equal(merged.latents(), before.latents())
    assert torch.equal(merged.index(), before.index())
    assert count == 5
    assert merged.provenance["relabelled"] == {"store": before.fingerprint}
    again, _ = merge_labels(merged.path, filled(tmp_path / "u.csv", "row,age", "2,20"), tmp_path / "n", progress=False)
    assert again.provenance["relabelled"] == {"store": before.fingerprint}  # where the latents are from, still
    assert [entry["cells"] for entry in again.provenance["filled_in"]] == [5, 1]


def test_new_attributes_come_with_a_schema(tmp_path: Path) -> None:
    table = filled(tmp_path / "t.csv", "row,mood", "3,glad")
    new = Schema((Attribute("mood", "categorical", ("sad", "glad")),))
    merged, _ = merge_labels(store(tmp_path / "s"), table, tmp_path / "m", new, progress=False)
    assert merged.schema.names == (*SCHEMA.names, "mood")
    assert merged.labels()[:, 3].isnan().sum() == len(merged) - 1
    assert merged.labels([3])[0, 3] == 1.0


def test_a_contradiction_is_refused_by_its_line_before_anything_is_written(tmp_path: Path) -> None:
    old, table = store(tmp_path / "s"), filled(tmp_path / "t.csv", "row,beard", "2,1", "1,1")
    with pytest.raises(ValueError, match=r"t.csv, line 3: 'beard' of row 1 is known to be 0, the table says 1"):
        merge_labels(old, table, tmp_path / "m", progress=False)
    assert not (tmp_path / "m").exists()
    merged, _ = merge_labels(old, table, tmp_path / "m", overwrite=True, progress=False)
    assert merged.labels([1])[0, 0] == 1.0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("number,beard", "1,1"), "must have a column `row` and a column per attribute"),
        (("row,beard", "20,1"), r"line 2: `row` must be a row of the store, 0 to 19, got '20'"),
        (("row,beard", "2,1", "2,0"), "line 3: row 2 has a line already"),
        (("row,beard", "2,", "3,-"), "has no label in it; fill in its empty cells"),
        (("row,berad", "2,1"), "unknown attribute 'berad'; did you mean"),
        (("row,beard", "2,maybe"), "line 2"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilledTable(filled(tmp_path / "t.csv", *lines), SCHEMA, 20)


def test_an_attribute_cannot_become_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`schema` describes 'age', which the store has already as something else"):
        joined(SCHEMA, Schema((Attribute("age"),)))
    assert joined(SCHEMA, Schema((Attribute("beard"),))) == SCHEMA


def test_the_table_asks_for_what_is_missing_only(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [7, 2], ["beard", "age"], torch.tensor([[True, False], [True, True]]))
    assert (tmp_path / "t.csv").read_text() == "number,row,beard,age\n1,7,,-\n2,2,,\n"


def test_the_sheet_shows_every_image_and_a_number(tmp_path: Path) -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = (255, 0, 0)
    sheet = np.asarray(numbered_sheet(images, columns=2, scale=2))
    assert sheet.shape == (2 * (16 + 18), 2 * 20, 3)
    assert (sheet[:16, 22:38] == (255, 0, 0)).all()
    assert (sheet[17:34, :20] < 200).any()  # ink
    assert (sheet[34:, 20:] == 255).all()  # nothing where there is no fourth


def test_the_commands_lead_from_a_store_to_a_store_with_more_labels(tmp_path: Path) -> None:
    old, out = store(tmp_path / "s"), tmp_path / "next"
    next_job(old, generator(), attributes=["beard", "age"], num=4, out=str(out))
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [row["number"] for row in rows] == ["1", "2", "3", "4"]
    assert all("" in (row["beard"], row["age"]) for row in rows)
    Image.open(out / "sheet.png").verify()
    for row in rows:
        row["age"] = row["age"] or "33"
    with (out / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    merge_job(old, str(out / "filled.csv"), str(tmp_path / "m"), progress=False)
    assert LatentStore.open(tmp_path / "m").labels()[:, 2].isnan().sum() == 10 - 4


def test_each_attribute_may_have_its_own_sheet(tmp_path: Path) -> None:
    next_job(store(tmp_path / "s"), generator(), num=2, per_attribute=True, out=str(tmp_path / "n"))
    names = sorted(path.name for path in (tmp_path / "n").iterdir())
    assert names == sorted(f"{name}.{kind}" for name in SCHEMA.names for kind in ("csv", "png"))


def test_the_jobs_refuse_before_work(tmp_path: Path) -> None:
    old = store(tmp_path / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "table.csv").touch()
    with pytest.raises(FileExistsError, match=r"is not empty, it may hold a table that is being filled in"):
        next_job(old, generator(), num=2, out=str(tmp_path / "full"))
    with pytest.raises(ValueError, match=r"`attributes` must name distinct attributes"):
        next_job(old, generator(), attributes=["age", "age"], out=str(tmp_path / "n"))
    with pytest.raises(ValueError, match=r"unknown attribute 'bread'; did you mean 'beard'"):
        next_job(old, generator(), attributes=["bread"], out=str(tmp_path / "n"))
    with pytest.raises(ValueError, match=r"`acquisition` bald asks a classifier, got none"):
        next_job(old, generator(), acquisition="bald", num=2, out=str(tmp_path / "n"))


def test_the_demo_asks_its_classifier_through_the_command_line(demo, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """All labels of the demo are known, so half of them are taken away first."""
    full = LatentStore.open(demo.store)
    labels = full.labels()
    labels[::2] = NAN
    writer = LatentStoreWriter(tmp_path / "half", full.latent_shape, full.schema, full.provenance)
    writer.append(full.latents(), labels, full.index())
    writer.finish()
    words = ["label", "next", "--store", str(tmp_path / "half"), "--classifier", demo.classifier, "--num", "6"]
    words += ["--generator", "lcg.generators.autoencoder.AvatarAutoencoder", "--out", str(tmp_path / "next")]
    assert cli.main([*words, "--acquisition", "guidance", "--attributes", "hat", "beard", "--candidates", "100"]) == 0
    rows = [int(row["row"]) for row in csv.DictReader((tmp_path / "next" / "table.csv").open())]
    assert len(set(rows)) == 6
    assert all(row % 2 == 0 for row in rows)
