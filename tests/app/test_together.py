"""Who waits at the same time is answered together, and nobody suffers from another's mistake."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import lcg
from lcg.app.together import Together, threads
from lcg.app.turns import USUAL, Turns
from lcg.editing import EditRequest
from lcg.guidance import parse_edit


@pytest.fixture(scope="module")
def pipeline() -> lcg.Pipeline:
    return lcg.load("avatars", editing=lcg.Editing(steps=5))


def held(turns: Turns) -> threading.Event:
    """Keeps the turns busy until it is set."""
    gate, entered = threading.Event(), threading.Event()
    threading.Thread(target=turns.do, args=(lambda: (entered.set(), gate.wait(20)),)).start()
    assert entered.wait(5)
    return gate


def test_what_waits_is_answered_together_as_it_would_be_alone(pipeline: lcg.Pipeline) -> None:
    turns, sizes = Turns(), list[int]()
    together = Together(lambda: pipeline.editor(range(1)), turns, USUAL)
    edited = together._edited
    together._edited = lambda asked: (sizes.append(len(asked)), edited(asked))[1]  # type: ignore[method-assign]
    sources = pipeline.sample(range(6)).split(1)
    requests = [EditRequest((parse_edit(text, pipeline.schema),)) for text in ("+glasses", "-beard", "+hat") * 2]
    gate = held(turns)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(together.edit, *pair) for pair in zip(sources, requests, strict=True)]
        while turns._waiting.qsize() < 6:
            pass
        gate.set()
        found = [answer.result(30).z_0 for answer in answers]
    assert sizes == [6]
    for z_0, request, row in zip(sources, requests, found, strict=True):
        alone = together.edit(z_0, request).z_0
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-3)
        assert alone.equal(pipeline.editor(range(1)).edit(z_0, request).z_0)  # alone it is the pipeline's, bit by bit


def test_one_mistake_is_one_persons() -> None:
    turns = Turns()

    def roots(items: list[float]) -> list[float]:
        if any(item < 0 for item in items):
            raise ValueError(f"no root of {min(items)}")
        return [item**0.5 for item in items]

    gate = held(turns)
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(turns.share, roots, item) for item in (4.0, -1.0, 9.0)]
        while turns._waiting.qsize() < 3:
            pass
        gate.set()
        assert (answers[0].result(5), answers[2].result(5)) == (2.0, 3.0)
        with pytest.raises(ValueError, match=r"no root of -1\.0"):
            answers[1].result(5)


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="within"), threads(1):
        assert torch.get_num_threads() == 1
        raise RuntimeError("within")
    assert torch.get_num_threads() == before
