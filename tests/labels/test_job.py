"""`lcg label ...` as users call it, and the report that it leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lcg.cli import main
from lcg.data.avatars import AvatarSource
from lcg.data.encode import encode
from lcg.data.images import ImageFolder
from lcg.data.store import LatentStore
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.labels.page import text
from lcg.labels.pictures import DrawnPictures, StorePictures
from lcg.labels.report import Known, groups, write_report
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules import Threshold
from lcg.labels.rules_file import read_rules, write_rules
from lcg.labels.scorer import FunctionScorer
from lcg.labels.storing import label_store
from tests.labels.world import Flat, Red

JUDGE = ["--labeller", "lcg.labels.judge.JudgeLabeller", "--labeller.judge", "lcg.metrics.judge.AvatarJudge"]
AUTOENCODER = ["--generator", "lcg.generators.autoencoder.AvatarAutoencoder"]
COUNT = 48


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image files, and a table of which half has labels of glasses."""
    root = tmp_path_factory.mktemp("avatars")
    images, labels = AvatarSource("uniform", COUNT, "label-job").chunk(0, COUNT)
    rows = ["file,glasses,mood"]
    for i, (image, row) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(root / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{int(row[0]) if i % 2 else ''},{'good' if i % 3 else 'bad'}")
    (root / "table.csv").write_text("\n".join(rows))
    return root


def shades(images):
    """Smooth in the first colour of `Flat`."""
    return np.arctanh(np.clip(images[..., 0].mean((1, 2)) / 127.5 - 1, -0.99, 0.99))


def by_shade(**settings) -> RuledLabeller:
    return RuledLabeller(FunctionScorer(f"{__name__}:shades", ["red"]), {"red": Threshold(0.0, **settings)})


# --- commands ---


def test_images_become_a_table_and_keep_what_it_said(avatars, tmp_path, capsys) -> None:
    out, source = tmp_path / "new.csv", "lcg.data.images.ImageFolder"
    words = ["--source", source, "--source.root", str(avatars), "--source.table", str(avatars / "table.csv")]
    assert main(["label", "images", *JUDGE, *words, "--out", str(out), "--sample", "9", "--progress", "false"]) == 0
    found, truth = ImageFolder(avatars, out), AvatarSource("uniform", COUNT, "label-job").chunk(0, COUNT)[1]
    assert found.schema.names[:3] == ("glasses", "mood", "beard")
    np.testing.assert_array_equal(found.labels[:, 0], truth[:, 0])
    assert "how good the labels are" in capsys.readouterr().out
    told = json.loads((tmp_path / "new-report" / "labels.json").read_text())
    assert told["agreement"]["labels that were known"]["glasses"] == {"both": COUNT // 2, "equal": 1.0, "kappa": 1.0}
    assert told["sample"]["images"] == 9


def test_a_folder_without_a_table_will_do(avatars, tmp_path) -> None:
    words = ["--root", str(avatars), "--out", str(tmp_path / "t.csv"), "--sample", "5", "--progress", "false"]
    assert main(["label", "images", *JUDGE, *words]) == 0
    assert len(ImageFolder(avatars, tmp_path / "t.csv")) == COUNT


def test_thresholds_are_chosen_written_and_used(avatars, tmp_path, capsys) -> None:
    table, out = avatars / "table.csv", tmp_path / "thresholds.yaml"
    words = ["--source", "lcg.data.images.ImageFolder", "--source.root", str(avatars), "--source.table", str(table)]
    choice = ["--method", "Mixture", "--methods", json.dumps({"glasses": {"class_path": "Platt"}}), "--out", str(out)]
    assert main(["label", "thresholds", *JUDGE, *words, *choice]) == 0
    chosen = yaml.safe_load(out.read_text())
    assert chosen["glasses"]["chosen"]["labelled"] == COUNT // 2 and chosen["glasses"]["logit"] is True
    assert chosen["beard"]["chosen"]["bimodal"] is True and "chosen" not in chosen["hair_color"]
    said = capsys.readouterr().out
    assert "beard: " in said and "(Mixture, 48 images)" in said and f"--labeller.thresholds {out}" in said

    again = ["--labeller.thresholds", str(out), "--root", str(avatars), "--out", str(tmp_path / "t.csv")]
    assert main(["label", "images", *JUDGE, *again, "--sample", "5", "--progress", "false"]) == 0
    told = json.loads((tmp_path / "t-report" / "labels.json").read_text())
    assert told["labeller"]["rules"]["glasses"]["platt"] == chosen["glasses"]["platt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images", *JUDGE, "--out", "t.csv"], "give `source`, images with a table of labels, or `root`"),
        (
            ["images", *JUDGE, "--out", "t.csv", "--source", "lcg.data.avatars.AvatarSource", "--source.count", "3"],
            "`source` must be image files, such as lcg.data.images.ImageFolder, got AvatarSource",
        ),
        (["thresholds", *JUDGE, "--method", "Otsu"], "give `source`; or `store` and the `generator` of its latents"),
        (
            ["store", *JUDGE, "--store", "s", "--out", "s", *AUTOENCODER],
            "`out` must be another folder than `store`, both are s",
        ),
        (
            ["generator", *JUDGE, "--num", "3", "--out", "s", *AUTOENCODER],
            "has no prior of its own",
        ),
    ],
)
def test_commands_without_images_are_refused(tmp_path, monkeypatch, capsys, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["label", *words]) == 2
    assert message in capsys.readouterr().err


def test_methods_of_what_is_not_binary_are_refused(avatars, tmp_path, capsys) -> None:
    choice = ["--method", "Otsu", "--methods", json.dumps({"glases": {"class_path": "Otsu"}})]
    words = ["--source", "lcg.data.images.ImageFolder", "--source.root", str(avatars)]
    words += ["--source.table", str(avatars / "table.csv"), "--out", str(tmp_path / "t.yaml")]
    assert main(["label", "thresholds", *JUDGE, *words, *choice]) == 2
    assert "unknown attribute (of `methods`) 'glases'; did you mean 'glasses'" in capsys.readouterr().err
    assert main(["label", "thresholds", *JUDGE, *words, "--method", "Labelled"]) == 2
    assert "'beard': Labelled needs images whose labels are known" in capsys.readouterr().err
    rules = json.dumps({"hair_color": {"class_path": "ArgMax"}})
    assert main(["label", "thresholds", *JUDGE, "--labeller.rules", rules, *words, "--method", "Otsu"]) == 2
    assert "none of hair_color is binary" in capsys.readouterr().err


# --- the report ---


def test_a_report_tells_what_labels_are(tmp_path) -> None:
    pictures, labeller = DrawnPictures(Flat(), 300, batch_size=50), by_shade(band=0.1)
    store = label_store(pictures, labeller, tmp_path / "s", progress=False)
    labels = store.labels().numpy()
    told = write_report(tmp_path / "r", pictures, labeller, labels, 100, second=Red())
    assert told["images"] == 300 and told["sample"]["images"] == 100
    counts = told["attributes"]["red"]["counts"]
    assert counts["yes"] == (labels == 1).sum() and told["attributes"]["red"]["missing"] == pytest.approx(0.08)
    shown = told["sample"]["scores"]["red"]
    assert sum(shown["counts"]) == 100 and shown["places"] == [0.0] and shown["attributes"] == ["red"]
    assert told["agreement"]["the second labeller"]["red"]["kappa"] == pytest.approx(1, abs=0.02)
    margins = [entry["margin"] for entry in told["doubtful"]["red"]]
    assert margins == sorted(margins) and len(margins) == 12
    row = told["doubtful"]["red"][0]["row"]
    assert labeller.evidence(pictures.images(np.array([row]))).margins[0, 0] == pytest.approx(margins[0], abs=1e-6)

    page = (tmp_path / "r" / "labels.html").read_text()
    assert page.count("<img") == 4 and "left open" in page and "<svg" in page and 'src="http' not in page
    assert json.loads((tmp_path / "r" / "labels.json").read_text()) == told
    assert (tmp_path / "r" / "labels.md").read_text() == text(told)


def test_a_score_is_shown_with_the_attribute_that_goes_by_it(tmp_path) -> None:
    pictures, scorer = DrawnPictures(Flat(), 20, batch_size=20), by_shade().scorer
    labeller = RuledLabeller(scorer, {"crimson": Threshold(0.5, score="red")})
    write_report(tmp_path, pictures, labeller, labeller.label(pictures.images(np.arange(20))), 20)
    page = (tmp_path / "labels.html").read_text()
    assert page.index("crimson</h2>") < page.index("<svg") and page.count("<svg") == 1


def test_groups_show_the_surest_and_the_least_sure() -> None:
    pictures, labeller = DrawnPictures(Flat(), 200, batch_size=50), by_shade(band=0.1)
    seen = labeller.evidence(pictures.images(np.arange(200)))
    shown = groups(labeller.schema["red"], 0, seen)
    s = seen.scores[:, 0]
    assert set(shown["surely red"]) == set(np.argsort(-s)[:12]) and set(shown["surely ~red"]) == set(np.argsort(s)[:12])
    assert shown["in doubt"] == np.argsort(np.abs(s), kind="stable")[:12].tolist()
    assert all(abs(s[k]) < 0.1 for k in shown["left open"])


def test_known_labels_are_compared_with(tmp_path) -> None:
    store = label_store(DrawnPictures(Flat(), 60), Red(), tmp_path / "s", progress=False)
    pictures, wrong = StorePictures(store, Flat()), 1 - store.labels().numpy()[:, :1]
    told = write_report(tmp_path / "r", pictures, by_shade(), wrong, 20, Known(store.schema, store.labels().numpy()))
    assert told["agreement"]["labels that were known"]["red"]["equal"] == 0.0
    assert "| red | 60 | 0.00% | -" in (tmp_path / "r" / "labels.md").read_text()


def test_a_report_of_nothing_is_refused(tmp_path) -> None:
    pictures = DrawnPictures(Flat(), 5)
    with pytest.raises(ValueError, match="`sample` must be >= 1, got 0"):
        write_report(tmp_path, pictures, Red(), np.zeros((5, 2), np.float32), 0)
    other = RuledLabeller(FunctionScorer(f"{__name__}:shades", ["blue"]))
    with pytest.raises(
        ValueError, match="second labeller knows blue, none of which means the same as one of red, shade"
    ):
        write_report(tmp_path, pictures, Red(), np.zeros((5, 2), np.float32), 5, second=other)


def test_a_file_of_thresholds_is_a_file_of_rules(tmp_path) -> None:
    write_rules(tmp_path / "t.yaml", by_shade(band=0.25).rules, {})
    assert read_rules(tmp_path / "t.yaml")["red"].settings() == by_shade(band=0.25).rules["red"].settings()


def test_a_relabelled_store_agrees_with_itself(tmp_path) -> None:
    encode(AvatarSource("uniform", 24, "relabelled"), AvatarAutoencoder(), tmp_path / "old", progress=False)
    words = ["--store", str(tmp_path / "old"), "--generator", "lcg.generators.autoencoder.AvatarAutoencoder"]
    words += ["--keep", "glasses", "--out", str(tmp_path / "s"), "--sample", "16", "--progress", "false"]
    assert main(["label", "store", *JUDGE, *words]) == 0
    store = LatentStore.open(tmp_path / "s")
    kappas = json.loads((tmp_path / "s" / "labels.json").read_text())["agreement"]["labels that were known"]
    assert kappas["glasses"]["kappa"] == kappas["hair_color"]["kappa"] == 1.0
    assert store.provenance["labelled"][0]["trained_on"]["train"]["name"] == "avatars"
