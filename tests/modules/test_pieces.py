"""Pieces are made once, and what was made stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lcg.modules.pieces import Crew, Piece, Progress, Ranks


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew(Ranks(accelerator="cpu"))


@pytest.fixture
def pieces(tmp_path: Path) -> Callable[[int], list[Piece]]:
    """Pieces that count in their file how often they were made."""

    def make(path: Path) -> None:
        path.write_text(path.read_text() + "I" if path.is_file() else "I")

    def of(count: int) -> list[Piece]:
        paths = [tmp_path / str(number) for number in range(count)]
        return [Piece("a kind", path, lambda path=path: make(path)) for path in paths]

    return of


def test_every_piece_is_made_once(crew: Crew, pieces: Callable[[int], list[Piece]]) -> None:
    crew.run("first", pieces(3))
    crew.run("again", pieces(5))  # three of which are there
    assert [piece.path.read_text() for piece in pieces(5)] == ["I"] * 5


@pytest.mark.parametrize("count", [0, 2])
def test_where_nothing_is_missing_nothing_is_done(
    crew: Crew, pieces: Callable[[int], list[Piece]], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for piece in pieces(count):
        piece.make()
    crew.run("samples", pieces(count))
    assert [piece.path.read_text() for piece in pieces(count)] == ["I"] * count
    assert capsys.readouterr().err == ""


def test_a_piece_that_fails_is_heard_of_and_what_was_made_stays(
    crew: Crew, pieces: Callable[[int], list[Piece]], tmp_path: Path
) -> None:
    def fails() -> None:
        raise OSError("the disk is full")

    before, after = pieces(2)
    with pytest.raises(OSError, match="the disk is full"):
        crew.run("samples", [before, Piece("bad", tmp_path / "bad", fails), after])
    assert before.path.is_file() and not after.path.exists() and not (tmp_path / "bad").exists()
    crew.run("samples", [before, after])  # the crew itself is none the worse
    assert [before.path.read_text(), after.path.read_text()] == ["I", "I"]


def test_gradients_can_be_taken_within_a_piece(crew: Crew, tmp_path: Path) -> None:
    def slope() -> None:
        with torch.enable_grad():  # under inference_mode, Lightning's default, this would not help
            x = torch.tensor(3.0, requires_grad=True)
            (gradient,) = torch.autograd.grad(x**2, x)
        (tmp_path / "slope").write_text(str(float(gradient)))

    crew.run("samples", [Piece("slope", tmp_path / "slope", slope)])
    assert (tmp_path / "slope").read_text() == "6.0"


def test_progress_tells_what_is_going_on(
    crew: Crew, pieces: Callable[[int], list[Piece]], capsys: pytest.CaptureFixture[str]
) -> None:
    crew.run("samples", pieces(2))
    told = capsys.readouterr().err
    assert "samples: 100%" in told and "2/2" in told and "a kind" in told


def test_pieces_that_tell_of_themselves_have_no_bar(
    crew: Crew, pieces: Callable[[int], list[Piece]], capsys: pytest.CaptureFixture[str]
) -> None:
    crew.run("samples", pieces(2), shown=False)
    assert all(piece.path.is_file() for piece in pieces(2)) and capsys.readouterr().err == ""


def test_the_time_that_is_left_is_that_of_each_kind() -> None:
    progress = Progress("samples", [], shown=False)
    progress.seconds.update(quick=4.0, slow=60.0)
    progress.done.update(quick=2, slow=1)
    progress.left.update(quick=2, slow=1)
    assert progress.time_left() == "1:04"
    progress.left["new"] = 1  # as slow as the others on average, (2 + 60) / 2
    assert progress.time_left() == "1:35"
    progress.left.clear()
    assert progress.time_left() == "0:00"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "`devices` must be at least 1, got 0"),
        ({"nodes": -1}, "`nodes` must be at least 1, got -1"),
        ({"devices": 99, "accelerator": "gpu"}, "`ranks` asks for 99 GPUs, this machine has"),
    ],
)
def test_ranks_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ranks(**options)


def test_a_rank_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ranks(accelerator="cpu").device == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Ranks(devices=4, accelerator="gpu").device == torch.device("cuda", 2)
