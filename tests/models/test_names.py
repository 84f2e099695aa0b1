"""Models are found by name, and who asks for another is told which there are."""

import shutil
from pathlib import Path

import pytest

from lcg.models import names
from lcg.models.names import find_model, known_models, named_folder, own_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one's own models, empty."""
    monkeypatch.setenv("LCG_MODELS", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


def test_where_own_models_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert own_folder() == tmp_path / "own"
    monkeypatch.setenv("LCG_MODELS", "~/models")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_folder() == tmp_path / "models"
    monkeypatch.delenv("LCG_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert own_folder() == tmp_path / "cache" / "lcg" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification says to ignore
    assert own_folder() == tmp_path / ".cache" / "lcg" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert own_folder() == tmp_path / ".cache" / "lcg" / "models"


def test_a_model_is_found_by_folder_and_by_name(exported: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(exported) == exported and find_model(str(exported)) == exported
    shutil.copytree(exported, home / "faces")
    assert find_model("faces") == home / "faces" == named_folder("faces")
    monkeypatch.setattr(names, "PACKAGED", exported.parent)  # which has a model of the name `model`
    shutil.copytree(exported, home / "model")
    (home / "empty").mkdir()
    assert list(known_models()) == ["faces", "model"]
    monkeypatch.chdir(home)
    assert find_model("model") == Path("model")  # a folder that is there comes first
    monkeypatch.chdir(exported)
    assert find_model("model") == exported  # then the package's
    with pytest.raises(ValueError, match=r"`name` 'model' is that of a model of the package, .*; choose another"):
        named_folder("model")


def test_the_package_has_a_model_of_the_avatars() -> None:
    assert known_models() == {"avatars": names.PACKAGED / "avatars"}


def test_a_models_description_stands_for_its_folder(exported: Path) -> None:
    assert find_model(exported / "model.json") == exported


def test_a_file_in_the_place_of_the_folder_of_models_is_refused_where_it_matters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "models").touch()
    monkeypatch.setenv("LCG_MODELS", str(tmp_path / "models"))
    assert find_model("avatars").name == "avatars"
    for ask in (find_model, named_folder):
        with pytest.raises(NotADirectoryError, match=r"LCG_MODELS must be a folder of models, got .*; change it"):
            ask("faces")


def test_an_unknown_name_is_answered_with_those_there_are(exported: Path, home: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no model 'faces'; .* have: avatars; make one with `lcg export --name faces`"
    ):
        find_model("faces")
    for name in ("faces", "cats"):
        shutil.copytree(exported, home / name)
    with pytest.raises(
        FileNotFoundError, match=r"no model 'face'; did you mean 'faces'\? .* have: avatars, cats, faces; make one"
    ):
        find_model("face")


@pytest.mark.parametrize("path", ["nowhere/at/all", "../model", ".hidden", "x" * 101, ""])
def test_a_path_without_a_model_is_refused(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no exported model at .*; make one with `lcg export --out"):
        find_model(path)


def test_a_folder_that_is_no_model_is_not_taken_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="no exported model at runs; make one"):
        find_model("runs")


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "", "a b", "x" * 101, "ä"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"`name` must be letters, digits, .*, got .*; to choose a folder, give --out"):
        named_folder(name)
