"""Sessions: what the list means, that nothing is lost on the way back, and that files from strangers do no harm."""

import base64
import gc
import itertools
import json
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.diffusion import DDIM, CosineSchedule, MixtureDenoiser
from lcg.editing import Editor, EditRequest, EditResult, GuidedEditor
from lcg.editing.session import CACHED, MAX_CHARACTERS, MAX_STATES, MAX_STEPS, EditSession, Step
from lcg.guidance import Atom, Formula, Not, parse_edit
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute, Schema

NAN = float("nan")
TEXTS = ("+hat", "-glasses", "top=cap", "eyes=closed", "frame=round")


class Arithmetic(Editor):
    """z_0 + strength * sum_i w_i s_i d_i with fixed directions, summed in the order of the request."""

    strengths = (0.0, 0.5, 1.0)

    def __init__(self, schema: Schema) -> None:
        self.directions = torch.randn(len(schema), 4, generator=torch.Generator().manual_seed(0))
        self.calls = 0

    def direction(self, literal: Formula) -> Tensor:
        sign = 1.0
        while isinstance(literal, Not):
            literal, sign = literal.operand, -sign
        assert isinstance(literal, Atom)
        return sign * self.directions[literal.column]

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        self.calls += 1
        strength = torch.as_tensor(1.0 if request.strength is None else request.strength).expand(len(z_0))
        z = z_0.clone()
        for edit in request.edits:
            for literal, weight in edit.conjuncts:
                z = z + weight * strength[:, None] * self.direction(literal)
        if request.labels is not None:  # known labels shift what they are known of
            z = z + 0.1 * request.labels.nan_to_num().sum(1, keepdim=True)
        return EditResult(z, request)


class Averaging(Arithmetic):
    """Half of the joint edit and half of the mean of what each edit does by itself."""

    keeps_details = True

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        z = super().edit(z_0, request).z_0
        if len(request.edits) == 1:
            return EditResult(z, request)
        assert request.alone is not None and len(request.alone) == len(request.edits)
        for edit, alone in zip(request.edits, request.alone, strict=True):
            single = EditRequest((edit,), request.labels, request.strength)
            assert torch.equal(alone, super().edit(z_0, single).z_0)  # of this edit, in this order, as it is weighted
            self.calls -= 1
        return EditResult((z + torch.stack(request.alone).mean(0)) / 2, request)


def sources(n: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.fixture
def editor(schema: Schema) -> Arithmetic:
    return Arithmetic(schema)


@pytest.fixture
def session(schema: Schema) -> EditSession:
    return EditSession(sources(), schema)


def texts(session: EditSession) -> list[str]:
    return [step.text for step in session.steps]


def asked(session: EditSession) -> list[str]:
    return [str(edit) for edit in session.edits]


# --- the list ---------------------------------------------------------------------------------------------------------


def test_steps_can_be_added_weighed_moved_and_removed(session: EditSession) -> None:
    session.add("+hat").add("-glasses", 0.5).add("eyes=open")
    assert session.steps == (Step("+hat"), Step("-glasses", 0.5), Step("eyes=open"))
    session.move(0, 2)
    assert texts(session) == ["-glasses", "eyes=open", "+hat"]
    session.move(2, 1).adjust(1, 3)
    assert session.steps == (Step("-glasses", 0.5), Step("+hat", 3.0), Step("eyes=open"))
    session.remove(0)
    assert texts(session) == ["+hat", "eyes=open"]


def test_of_steps_on_one_attribute_the_last_stands(session: EditSession) -> None:
    session.add("+hat").add("+glasses").add("-hat", 2.0)
    assert texts(session) == ["+hat", "+glasses", "-hat"] and asked(session) == ["glasses", "~hat^2.0"]
    session.move(2, 0)
    assert asked(session) == ["glasses", "hat"]
    session.move(0, 2).remove(2)
    assert asked(session) == ["glasses", "hat"]
    session.add("hat", 0.25)  # the same literal again, with another weight
    assert asked(session) == ["glasses", "hat^0.25"]


def test_a_weight_multiplies_and_zero_asks_for_nothing(session: EditSession, editor: Arithmetic) -> None:
    z_0, hat, glasses = sources(), editor.directions[0], editor.directions[2]
    session.add("+hat", 0.5).add("-glasses", 2.0)
    assert (session.result(editor) - (z_0 + 0.5 * hat - 2 * glasses)).abs().max() < 1e-6
    session.adjust(0, 0)
    assert asked(session) == ["~glasses^2.0"]
    session.add("+glasses", 0.0)  # hides what was asked of the glasses before
    assert asked(session) == [] and torch.equal(session.result(editor), z_0)


def test_a_session_without_weights_asks_as_a_plain_request_does(
    schema: Schema, session: EditSession, editor: Arithmetic
) -> None:
    """Not for `hat^1.0`: a weight that is written takes part in what a formula means."""
    session.add("-glasses").add("+hat")
    request = EditRequest((parse_edit("hat", schema), parse_edit("~glasses", schema)))
    assert session.edits == request.edits
    assert torch.equal(session.result(editor), editor.edit(sources(), request).z_0)


def test_the_strength_goes_with_the_whole_request_and_can_be_undone(session: EditSession, editor: Arithmetic) -> None:
    session.add("+hat")
    session.strength = 0.5
    assert (session.result(editor) - (sources() + 0.5 * editor.directions[0])).abs().max() < 1e-6
    session.strength = 0
    assert torch.equal(session.result(editor), sources())
    assert session.undo().strength == 0.5 and session.undo().strength is None


def test_every_kind_of_edit_is_a_step() -> None:
    schema = Schema((Attribute("hat"), Attribute("age", "continuous"), Attribute("hair", "categorical", ("red", "no"))))
    session = EditSession(sources(), schema).add("age=0.7").add("-hat").add("hair=red").add("age>0.5", 2.0)
    assert asked(session) == ["age>0.5^2.0", "hair=red", "~hat"]
    assert asked(session.remove(3)) == ["age=0.7", "hair=red", "~hat"]
    assert asked(EditSession.from_json(session.to_json(), schema)) == asked(session)


def test_labels_reach_the_editor(schema: Schema, editor: Arithmetic) -> None:
    labels = torch.tensor([[1.0, NAN, 0.0, NAN, 1.0]]).repeat(3, 1)
    with_labels, without = (EditSession(sources(), schema, y).add("+hat").result(editor) for y in (labels, None))
    assert (with_labels - without - 0.2).abs().max() < 1e-6


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Arithmetic, Averaging])
def test_sessions_in_another_order_give_the_same_bits(schema: Schema, kind: type[Arithmetic]) -> None:
    made = []
    for order in itertools.permutations(TEXTS):
        session = EditSession(sources(), schema)
        for text in order:
            session.add(text, 0.5 + 0.1 * TEXTS.index(text))
        made.append(session.result(kind(schema)))
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_the_editor_by_itself_does_depend_on_the_order(schema: Schema, editor: Arithmetic) -> None:
    """The negative control: sums of floats do, so the canonical order is what makes sessions equal."""
    edits = [parse_edit(text, schema) for text in TEXTS]
    made = [editor.edit(sources(), EditRequest(order)).z_0 for order in itertools.permutations(edits)]
    assert not all(torch.equal(made[0], other) for other in made[1:])


# --- history ----------------------------------------------------------------------------------------------------------


def test_undo_and_redo_walk_among_states(session: EditSession) -> None:
    assert not session.can_undo and not session.can_redo
    session.add("+hat").add("-glasses").adjust(0, 2.0)
    assert session.undo().steps == (Step("+hat"), Step("-glasses")) and session.can_redo
    assert texts(session.undo()) == ["+hat"] and session.undo().steps == ()
    assert not session.can_undo
    assert session.redo().redo().redo().steps == (Step("+hat", 2.0), Step("-glasses"))
    session.undo().undo().add("eyes=open")  # what had been undone is gone
    assert texts(session) == ["+hat", "eyes=open"] and not session.can_redo
    assert texts(session.undo()) == ["+hat"] and session.undo().steps == () and not session.can_undo


def test_a_change_that_changes_nothing_is_none(session: EditSession) -> None:
    session.add("+hat").add("-glasses").adjust(0, 1).move(1, 1)
    session.strength = None
    assert texts(session.undo()) == ["+hat"]


def test_undo_gives_the_same_bits_without_asking_again(session: EditSession, editor: Arithmetic) -> None:
    first = session.add("+hat").result(editor)
    second = session.add("-glasses").result(editor)
    assert editor.calls == 2 and not torch.equal(first, second)
    assert torch.equal(session.undo().result(editor), first) and torch.equal(session.redo().result(editor), second)
    session.move(0, 1).result(editor)  # means the same
    session.remove(0).add("~ glasses").result(editor)  # written in another way
    assert editor.calls == 2


def test_what_a_caller_does_to_a_result_stays_with_the_caller(schema: Schema, editor: Arithmetic) -> None:
    z_0 = sources()
    session = EditSession(z_0, schema)
    z_0 += 1
    session.result(editor).zero_()
    assert torch.equal(session.result(editor), sources())
    session.add("+hat")
    expected = session.result(editor).clone()
    session.result(editor).zero_()
    assert torch.equal(session.result(editor), expected)


def test_results_belong_to_their_editor_and_go_with_it(schema: Schema, session: EditSession) -> None:
    one, two = Arithmetic(schema), Arithmetic(schema)
    two.directions = -two.directions
    session.add("+hat")
    assert (session.result(one) + session.result(two) - 2 * sources()).abs().max() < 1e-6
    gone = weakref.ref(two)
    del two
    gc.collect()
    assert gone() is None


def test_a_session_may_have_an_editor_of_its_own(schema: Schema, session: EditSession, editor: Arithmetic) -> None:
    own = EditSession(sources(), schema, editor=editor).add("+hat").add("-glasses")
    session.add("+hat").add("-glasses")
    assert torch.equal(own.result(), session.result(editor)) and torch.equal(own.strip([0.5]), own.strip([0.5], editor))
    assert all(torch.equal(one, other) for one, other in zip(own.frames(), session.frames(editor), strict=True))
    opposite = Arithmetic(schema)
    opposite.directions = -opposite.directions
    assert (own.result(opposite) + own.result() - 2 * sources()).abs().max() < 1e-6  # one that is named comes first
    assert "editor" not in json.loads(own.to_json()) and EditSession.from_json(own.to_json(), schema).editor is None


def test_what_each_edit_brings_by_itself_is_asked_once(schema: Schema, session: EditSession) -> None:
    editor = Averaging(schema)
    session.add("+hat").add("-glasses").result(editor)
    assert editor.calls == 3  # two alone, one together
    session.add("eyes=open", 0.5).result(editor)
    assert editor.calls == 5
    session.adjust(2, 0.75).result(editor)  # another weight is another edit
    assert editor.calls == 7
    session.remove(1).remove(1).result(editor)  # +hat by itself was known
    assert editor.calls == 7


def test_old_states_and_results_are_forgotten(schema: Schema, session: EditSession, editor: Arithmetic) -> None:
    session.add("+hat").result(editor)
    for k in range(MAX_STATES + 5):
        session.adjust(0, 2.0 + k)
        if k < CACHED:
            session.result(editor)
    assert len(session._history) == MAX_STATES and len(session._made[editor]) == CACHED
    for _ in range(MAX_STATES - 1):
        session.undo()
    assert not session.can_undo and session.steps == (Step("+hat", 7.0),)


# --- strips and frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Arithmetic, Averaging])
def test_a_strip_is_one_result_per_strength(schema: Schema, kind: type[Arithmetic]) -> None:
    labels = torch.arange(15.0).reshape(3, 5)
    session, editor = EditSession(sources(), schema, labels).add("+hat", 0.5).add("-glasses"), kind(schema)
    strip = session.strip((0.0, 0.3, 1.0, 2.0), editor)
    assert strip.shape == (3, 4, 4) and editor.calls == (1 if kind is Arithmetic else 3)
    for s, strength in enumerate((0.0, 0.3, 1.0, 2.0)):
        session.strength = strength
        assert (strip[:, s] - session.result(editor)).abs().max() < 1e-6


def test_a_strip_of_no_edits_repeats_the_sources(session: EditSession, editor: Arithmetic) -> None:
    assert torch.equal(session.strip([0, 1], editor), sources()[:, None].expand(3, 2, 4)) and editor.calls == 0


def test_frames_are_the_source_and_the_result_after_each_step(session: EditSession, editor: Arithmetic) -> None:
    session.add("+hat").add("-glasses", 0.5).add("-hat")
    frames, hat, glasses = session.frames(editor), editor.directions[0], editor.directions[2]
    expected = [torch.zeros(4), hat, hat - 0.5 * glasses, -hat - 0.5 * glasses]
    assert len(frames) == 4 and torch.equal(frames[0], sources()) and torch.equal(frames[-1], session.result(editor))
    for frame, shift in zip(frames, expected, strict=True):
        assert (frame - sources() - shift).abs().max() < 1e-6


# --- lcg's own editor -------------------------------------------------------------------------------------------------


SCHEDULE = CosineSchedule()
CORNERS = Schema((Attribute("right"), Attribute("up")))
MEANS = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
PRIOR = MixtureDenoiser(torch.zeros(4), MEANS, 0.16 * torch.eye(2, dtype=torch.float64).expand(4, 2, 2), SCHEDULE)


def corner(z_t: Tensor, t: Tensor) -> HeadOutputs:
    """The exact noisy posterior of `right` (components 0, 1) and `up` (0, 2)."""
    log_r = PRIOR.responsibilities(z_t, t)
    return {
        name: log_r[:, holds].logsumexp(1) - log_r[:, fails].logsumexp(1)
        for name, holds, fails in (("right", [0, 1], [2, 3]), ("up", [0, 2], [1, 3]))
    }


@pytest.fixture
def guided() -> GuidedEditor:
    return GuidedEditor(PRIOR, corner, CORNERS, DDIM(SCHEDULE, 12, t_start=0.98), 1.5, 1.0, strength=1.0)


def upper_left() -> Tensor:
    return MEANS[2] + 0.4 * torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def signs(z_0: Tensor) -> list[list[float]]:
    return z_0.sign().unique(dim=0).tolist()


def test_with_lcg_s_editor_order_history_and_files_give_the_same_bits(guided: GuidedEditor) -> None:
    session = EditSession(upper_left(), CORNERS).add("+right", 1.25).add("-up")
    result = session.result(guided)
    assert signs(upper_left()) == [[-1, 1]] and signs(result) == [[1, -1]]
    other = EditSession(upper_left(), CORNERS).add("-up").add("-right").add("+right", 1.25)
    assert torch.equal(other.result(guided), result)
    assert torch.equal(session.add("+up").undo().result(guided), result)
    assert torch.equal(EditSession.from_json(session.to_json(), CORNERS).result(guided), result)


def test_with_lcg_s_editor_what_is_taken_back_leaves_no_trace(guided: GuidedEditor) -> None:
    session = EditSession(upper_left(), CORNERS).add("-up").add("+right")
    assert [signs(frame) for frame in session.frames(guided)] == [[[-1, 1]], [[-1, -1]], [[1, -1]]]
    assert signs(session.remove(0).result(guided)) == [[1, 1]]


def test_with_lcg_s_editor_a_strip_is_one_result_per_strength(guided: GuidedEditor) -> None:
    session = EditSession(upper_left(), CORNERS, strength=0.5).add("+right").add("-up")
    strip = session.strip((0.0, 0.5), guided)
    assert torch.equal(strip[:, 0], upper_left()) and (strip[:, 1] - session.result(guided)).abs().max() < 1e-9


def test_with_lcg_s_editor_sessions_may_start_from_noise() -> None:
    sampler, options = DDIM(SCHEDULE, 12, t_start=0.98), {"start": "noising", "t_start": 0.9, "seeds": range(3)}
    one, other = (GuidedEditor(PRIOR, corner, CORNERS, sampler, 1.5, 1.0, strength=0.9, **options) for _ in range(2))
    session = EditSession(upper_left(), CORNERS, editor=one).add("+right").add("-up")
    first, strip = session.result(), session.strip((0.0, 0.9))
    assert torch.equal(EditSession.from_json(session.to_json(), CORNERS).result(other), first)
    assert torch.equal(session.remove(1).undo().result(other), first)
    assert torch.equal(strip[:, 0], upper_left()) and (strip[:, 1] - first).abs().max() < 1e-9


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_session_survives_its_file_bit_by_bit(schema: Schema, dtype: torch.dtype) -> None:
    z_0 = sources(dtype=dtype)
    z_0[0, 0], z_0[0, 1], z_0[1, 2] = -0.0, 1e-42, 1 / 3
    labels = torch.tensor([[1.0, NAN, 0.0, NAN, 1.0]]).repeat(3, 1)
    session = EditSession(z_0, schema, labels, strength=0.1).add("+hat", 1 / 3).add('top="cap"').add("-glasses")
    session.strength = 0.7
    session.undo().undo()
    text = session.to_json()
    again, editor = EditSession.from_json(text, schema), Arithmetic(schema)
    assert again.to_json() == text and json.loads(text)["version"] == 1
    assert again.z_0.dtype == dtype and again.z_0.numpy().tobytes() == z_0.numpy().tobytes()
    assert again.labels is not None and again.labels.numpy().tobytes() == labels.numpy().tobytes()
    for _ in range(3):
        assert again.steps == session.steps and again.strength == session.strength
        assert torch.equal(again.result(editor), session.result(Arithmetic(schema)))
        if session.can_redo:
            session.redo(), again.redo()
    assert not again.can_redo and texts(again) == ["+hat", 'top="cap"', "-glasses"] and again.strength == 0.7


def test_a_file_is_small_and_has_no_layout(schema: Schema) -> None:
    transposed = torch.randn(512, 18, generator=torch.Generator().manual_seed(0)).T[None]
    text = EditSession(transposed, schema).to_json()
    assert len(text) < 4 * 18 * 512 * 4 / 3 + 1000
    again = EditSession.from_json(text, schema).z_0
    assert torch.equal(again, transposed) and again.is_contiguous()


Change = Callable[[dict[str, Any]], object]


def _set(*path: Any) -> Change:
    """Sets entries[path[0]][path[1]]... to the last of the path."""

    def change(entries: dict[str, Any]) -> None:
        for key in path[:-2]:
            entries = entries[key]
        entries[path[-2]] = path[-1]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", "another"), "must be an object with format='lcg.edit_session', got {"),
        (_set("version", 2), "`version` must be 1, got 2; read it with the lcg that wrote it"),
        (_set("version", True), "`version` must be 1, got True"),
        (_set("extra", 1), r"unknown: \['extra'\], missing: \[\]"),
        (lambda entries: entries.pop("labels"), r"unknown: \[\], missing: \['labels'\]"),
        (_set("schema", 0, 0, "cap"), "was made with other attributes .* than hat, top, glasses, frame, eyes"),
        (_set("schema", 1, 2, "turban"), "was made with other attributes"),
        (_set("schema", None), r"was made with other attributes \(None\)"),
        (_set("z_0", [1.0]), r"`z_0` must be {dtype, shape, data}, got \[1.0\]"),
        (_set("z_0", "more", 1), "`z_0` must be {dtype, shape, data}, got {"),
        (_set("z_0", "dtype", "object"), "with `dtype` one of float32, float64, got 'object'"),
        (_set("z_0", "dtype", []), r"with `dtype` one of float32, float64, got \[\]"),
        (_set("z_0", "shape", [3, -4]), r"with `shape` of up to 8 positive sizes, got \[3, -4\]"),
        (_set("z_0", "shape", [3, 2**40]), "with `shape` of up to 8 positive sizes"),
        (_set("z_0", "shape", [1] * 9), "with `shape` of up to 8 positive sizes"),
        (_set("z_0", "shape", 12), "with `shape` of up to 8 positive sizes, got 12"),
        (_set("z_0", "shape", [3, 5]), r"with `data` of 60 bytes for shape \[3, 5\], got 48"),
        (_set("z_0", "shape", [12]), r"`z_0` must be \(B, \*latent\) with at least one source, got shape \(12,\)"),
        (_set("z_0", "data", "!!!!"), "with `data` in base64, got '!!!!'"),
        (_set("z_0", "data", 7), "with `data` in base64, got 7"),
        (_set("z_0", "data", "AADAfw==" * 12), "with `data` in base64"),
        (
            _set("z_0", "data", base64.b64encode(bytes([0, 0, 192, 127] * 12)).decode()),
            "`z_0` must be finite, got NaN or infinity",
        ),
        (_set("labels", "shape", [5, 3]), r"`labels` must be \(3, 5\), a row per source"),
        (_set("history", []), r"`history` must be a list of 1 to 1000 states, got \[\]"),
        (
            _set("history", [{"steps": [], "strength": None}] * (MAX_STATES + 1)),
            "`history` must be a list of 1 to 1000",
        ),
        (_set("history", 0, []), r"a state of `history` must be {steps, strength}, got \[\]"),
        (_set("history", 0, "more", 1), "a state of `history` must be {steps, strength}, got {"),
        (_set("history", 0, "steps", "+hat"), "`steps` of a state must be a list of at most 100, got '\\+hat'"),
        (_set("history", 0, "steps", [["+hat", 1]] * (MAX_STEPS + 1)), "`steps` of a state must be a list of at most"),
        (_set("history", 0, "steps", ["+h"]), "`steps` of a state must be pairs of text and weight"),
        (_set("history", 0, "steps", [["+hat"]]), "`steps` of a state must be pairs of text and weight"),
        (_set("history", 0, "steps", [[5, 1.0]]), r"damaged: `text` of a step must be text such as '\+glasses', got 5"),
        (_set("history", 0, "steps", [["+hat", "1"]]), "damaged: `weight` must be a number, got '1'"),
        (_set("history", 0, "steps", [["+hat", NAN]]), "`weight` must be finite and >= 0, got nan"),
        (_set("history", 0, "steps", [["+hat", 10**400]]), "`weight` must be finite and >= 0, got 10000"),
        (_set("history", 0, "steps", [["+cap", 1.0]]), "unknown attribute 'cap'"),
        (_set("history", 0, "steps", [["+" + "a" * 300, 1.0]]), "must have at most 200 characters, got 301"),
        (_set("history", 0, "strength", True), "damaged: `strength` must be a number, got True"),
        (_set("history", 0, "strength", -1.0), "`strength` must be finite and >= 0, got -1.0"),
        (_set("position", 9), "`position` must be that of a state, 0 to 2, got 9"),
        (_set("position", 1.0), "`position` must be that of a state, 0 to 2, got 1.0"),
        (_set("position", -1), "`position` must be that of a state, 0 to 2, got -1"),
    ],
)
def test_a_damaged_file_is_refused(schema: Schema, change: Change, message: str) -> None:
    session = EditSession(sources(), schema, torch.zeros(3, 5)).add("+hat").add("-glasses")
    entries = json.loads(session.to_json())
    EditSession.from_json(json.dumps(entries), schema)
    change(entries)
    with pytest.raises(ValueError, match=message):
        EditSession.from_json(json.dumps(entries), schema)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", b"{}"])
def test_what_is_no_json_is_refused(schema: Schema, text: str) -> None:
    with pytest.raises(ValueError, match="a session must be"):
        EditSession.from_json(text, schema)


def test_sizes_are_limited(schema: Schema) -> None:
    with pytest.raises(ValueError, match="must be text of at most 16777216 characters"):
        EditSession.from_json(" " * (MAX_CHARACTERS + 1), schema)
    with pytest.raises(ValueError, match=r"a session has at most 16777216 characters, got .*; use fewer sources"):
        EditSession(torch.zeros(8, 400_000), schema).to_json()
    session = EditSession(sources(), schema)
    for _ in range(MAX_STEPS):
        session.add("+hat")
    with pytest.raises(ValueError, match="a session has at most 100 steps; remove one before adding '-hat'"):
        session.add("-hat")
    assert EditSession.from_json(session.to_json(), schema).steps == session.steps


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_wrong_sources_are_refused(schema: Schema) -> None:
    for z_0 in (torch.zeros(4), torch.zeros(0, 4), torch.zeros(4, 0)):
        with pytest.raises(ValueError, match=r"`z_0` must be \(B, \*latent\) with at least one source, got shape"):
            EditSession(z_0, schema)
    with pytest.raises(TypeError, match="`z_0` must be float32 or float64, got torch"):
        EditSession(torch.zeros(1, 4, dtype=torch.int64), schema)
    with pytest.raises(ValueError, match="`z_0` must be finite, got NaN or infinity"):
        EditSession(torch.full((1, 4), math.inf), schema)
    with pytest.raises(TypeError, match="`labels` must be float32 or float64, got torch"):
        EditSession(sources(), schema, torch.zeros(3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`labels` must be \(3, 5\), a row per source .*, got \(3, 4\)"):
        EditSession(sources(), schema, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="`labels` must be finite or NaN, got infinity"):
        EditSession(sources(), schema, torch.full((3, 5), math.inf))
    with pytest.raises(ValueError, match=r"`strength` must be finite and >= 0, got -1; for the opposite"):
        EditSession(sources(), schema, strength=-1)


def test_wrong_changes_are_refused_and_leave_the_session_as_it_is(session: EditSession, editor: Arithmetic) -> None:
    with pytest.raises(
        ValueError, match=r"`position` must be that of a step, none, as the session has no steps, got 0"
    ):
        session.remove(0)
    with pytest.raises(ValueError, match="there is no change to undo; ask `can_undo` first"):
        session.undo()
    with pytest.raises(ValueError, match="there is no change to redo; ask `can_redo` first"):
        session.redo()
    session.add("+hat").add("-glasses")
    state = session.state
    for change in (lambda: session.remove(2), lambda: session.adjust(-1, 1.0), lambda: session.move(2, 0)):
        with pytest.raises(ValueError, match="`position` must be that of a step, 0 to 1, got"):
            change()
    with pytest.raises(ValueError, match="`to` must be that of a step, 0 to 1, got 2"):
        session.move(0, 2)
    with pytest.raises(ValueError, match="unknown attribute 'hut'; did you mean 'hat'"):
        session.add("+hut")
    with pytest.raises(ValueError, match="`weight` must be finite and >= 0, got -2"):
        session.adjust(0, -2)
    with pytest.raises(TypeError, match="`weight` must be a number, got True"):
        session.add("+hat", True)
    with pytest.raises(TypeError, match=r"`text` of a step must be text such as '\+glasses', got None"):
        session.add(None)
    with pytest.raises(ValueError, match="`strengths` must hold at least one, got none"):
        session.strip([], editor)
    with pytest.raises(ValueError, match="`strengths` must be finite and >= 0, got nan"):
        session.strip([1.0, NAN], editor)
    for ask in (session.result, session.frames, lambda: session.strip([1.0])):
        with pytest.raises(ValueError, match="`editor` must be given, as the session has none of its own; name it, or"):
            ask()
    with pytest.raises(TypeError, match="`strength` must be a number, got 'much'"):
        session.strength = "much"
    assert session.state is state
