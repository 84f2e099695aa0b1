"""What a sequence of edits asks of an editor: everything that still stands, of the original source."""

import pytest
import torch
from torch import Tensor

from lcg.editing import Editor, EditRequest, EditResult, edit_sequence
from lcg.editing.contract import edit_together, standing
from lcg.guidance import Formula, parse_edit
from lcg.schema import Schema


class Recorder(Editor):
    """Adds 1 per edit that it is asked for, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, EditRequest]] = []

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        self.asked.append((z_0, request))
        return EditResult(z_0 + len(request.edits), request)


def edits(schema: Schema, text: str) -> tuple[Formula, ...]:
    return tuple(parse_edit(word, schema) for word in text.split())


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("+hat", "+hat"),
        ("+hat +glasses", "+hat +glasses"),
        ("+hat -hat", "-hat"),
        ("+hat +glasses -hat", "+glasses -hat"),
        ("+hat +glasses +hat", "+glasses +hat"),
        ("top=cap +hat top=turban", "+hat top=turban"),  # a detail is an attribute of its own
        ("+hat -hat +hat -hat", "-hat"),
    ],
)
def test_of_edits_of_one_attribute_the_last_stands(schema: Schema, asked: str, left: str) -> None:
    assert standing(edits(schema, asked)) == edits(schema, left)


def test_a_sequence_asks_for_everything_that_stands_of_the_original_source(schema: Schema) -> None:
    z_0, labels, recorder = torch.randn(3, 2), torch.zeros(3, 5), Recorder()
    results = edit_sequence(recorder, z_0, edits(schema, "+hat +glasses -hat"), labels, 0.5)
    assert [request.edits for _, request in recorder.asked] == [
        edits(schema, "+hat"),
        edits(schema, "+hat +glasses"),
        edits(schema, "+glasses -hat"),
    ]
    assert all(source is z_0 and request.labels is labels for source, request in recorder.asked)
    assert all(request.strength == 0.5 and request.alone is None for _, request in recorder.asked)
    assert [float((result.z_0 - z_0).max()) for result in results] == pytest.approx([1, 2, 2])


class KeepsDetails(Recorder):
    keeps_details = True


def test_a_method_that_keeps_details_is_given_the_result_of_each_edit_alone(schema: Schema) -> None:
    recorder = KeepsDetails()
    results = edit_sequence(recorder, torch.zeros(1, 2), edits(schema, "+hat +glasses eyes=open"))
    asked = {request.edits: request for _, request in recorder.asked}
    assert len(recorder.asked) == len(asked) == 5  # three alone, of which the first is the first step, and two together
    assert results[0].request.alone is None
    for result in results[1:]:
        assert result.request.alone is not None
        for edit, alone in zip(result.request.edits, result.request.alone, strict=True):
            assert asked[(edit,)].alone is None
            assert torch.equal(alone, torch.ones(1, 2))  # what one edit makes of the source


@pytest.mark.parametrize("kind", [Recorder, KeepsDetails])
def test_all_at_once_is_the_last_step_of_the_sequence(schema: Schema, kind: type[Recorder]) -> None:
    one, other, z_0 = kind(), kind(), torch.zeros(1, 2)
    wanted = edits(schema, "+hat +glasses -hat eyes=open")
    last = edit_sequence(one, z_0, wanted, None, 0.3)[-1]
    together = edit_together(other, z_0, wanted, None, 0.3)
    assert together.request.edits == last.request.edits and together.request.strength == 0.3
    assert (together.request.alone is None) == (last.request.alone is None) == (kind is Recorder)
    assert len(other.asked) == (1 if kind is Recorder else 4)


def test_no_edits_are_no_steps_but_no_request(schema: Schema) -> None:
    assert edit_sequence(Recorder(), torch.zeros(1, 2), []) == []
    with pytest.raises(ValueError, match="`edits` must hold at least one edit, got none; ask for one such as"):
        EditRequest(())


def test_a_request_names_its_attributes_once_in_order(schema: Schema) -> None:
    assert EditRequest(edits(schema, "+glasses -hat +glasses")).attributes == ("glasses", "hat")
