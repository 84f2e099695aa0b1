"""An editing session: steps that can be added, weighed, moved, taken back and saved; the source is never lost.

    session = EditSession(z_0, schema, editor=editor).add("+glasses").add("smile").add("-hat")
    z = session.result()
    session.adjust(1, weight=0.5).remove(0).undo()

A session holds the original source and a list of steps, and asks for all steps that still stand of the original source
at once (see `lcg.editing.contract`): errors do not add up over a long session, and what is taken back leaves no trace.
Of several steps on one attribute the last stands; otherwise their order means nothing, so the request lists them in the
order of their canonical text, and sessions that differ in order only give the same bits.

A step's weight w >= 0 multiplies its guidance, as the weight of a conjunct in a formula (w log P(step)); a step of
weight 0 asks for nothing, and still hides what an earlier step asked of its attribute. The strength says how far to go
with all of them, in the editor's own unit.

Every change makes a new immutable state. `undo` and `redo` walk among states, and a state that an editor has answered
before is answered from memory. That, and that a session read from a file gives the bits it gave before, is for
editors that answer alike when asked alike, as `GuidedEditor` does.
"""

import base64
import binascii
import json
import math
import reprlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from lcg.editing.contract import Editor, EditRequest, standing
from lcg.guidance import Formula, parse_edit
from lcg.results.display import block, code, quiet, strong, table
from lcg.schema import Schema

FORMAT, VERSION = "lcg.edit_session", 1
KEYS = ("format", "version", "schema", "z_0", "labels", "history", "position")
OPTIONAL = ("code",)

# What a file may hold: enough for every true session, little enough that a stranger's file does no harm.
MAX_CHARACTERS = 16 * 2**20
"""Of the whole text: room for three million numbers."""

MAX_STATES = 1000
"""States that are remembered; the oldest are forgotten."""
MAX_STEPS = 100
MAX_TEXT = 200
MAX_DIMENSIONS = 8
MAX_SIZE = 2**31  # of one dimension

CACHED = 256
"""Results that are remembered for each editor; the oldest are forgotten."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Step:
    """One edit.

    Attributes:
        text: such as `+glasses`, `-hat`, `hair=blond`; see `lcg.guidance.parse_edit`.
        weight: w >= 0 of its guidance; 0 asks for nothing.

    Raises:
        TypeError: text or weight is something else than text and a number.
        ValueError: the text is longer than `MAX_TEXT`, or the weight is negative or not finite.
    """

    text: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"`text` of a step must be text such as '+glasses', got {_brief(self.text)}")
        if len(self.text) > MAX_TEXT:
            raise ValueError(f"`text` of a step must have at most {MAX_TEXT} characters, got {len(self.text)}")
        object.__setattr__(self, "weight", _number("weight", self.weight))


@dataclass(frozen=True)
class State:
    """What a session asks for at one point of its history."""

    steps: tuple[Step, ...] = ()
    strength: float | None = None


Key = tuple[tuple[tuple[str, float], ...], float | None]
"""What determines a result: the canonical texts of the edits with their weights, in order, and the strength."""


class EditSession:
    """A source, or a batch of them, and an editable list of edits.

    Methods that change the session return the session, so that calls can be chained. Positions count from 0.

    Args:
        z_0: (B, *latent) standardised latents of the sources, float32 or float64; copied.
        schema: the attributes that edits may name.
        labels: known labels of the sources (B, A), NaN where unknown; None when editors shall find them out.
        strength: how far to go, in the editor's own unit; None for its default.
        editor: the method, where none is named; may be set later. It is not part of a file.
        code: (B, *code) what the latents leave out of the sources' images, if there is anything; kept for who decodes
            the results, copied.

    Raises:
        TypeError: z_0, labels or code are neither float32 nor float64, or the strength is no number.
        ValueError: their shapes do not fit each other or the schema, z_0 or code is not finite, labels are infinite, or
            the strength is negative or not finite.

    Example:
        >>> from lcg.schema import Attribute
        >>> schema = Schema((Attribute("hat"), Attribute("smile")))
        >>> session = EditSession(torch.zeros(1, 4), schema).add("+hat").add("+smile").adjust(1, weight=0.5)
        >>> session
        EditSession(1 source: +hat, +smile x0.5)
        >>> session.remove(0).undo().can_redo
        True
        >>> EditSession.from_json(session.to_json(), schema).steps[1]
        Step(text='+smile', weight=0.5)
    """

    def __init__(
        self,
        z_0: Tensor,
        schema: Schema,
        labels: Tensor | None = None,
        strength: float | None = None,
        editor: Editor | None = None,
        code: Tensor | None = None,
    ) -> None:
        _check_source(z_0, schema, labels, code)
        self.schema, self.editor = schema, editor
        self.z_0 = _copied(z_0)
        self.labels = None if labels is None else _copied(labels)
        self.code = None if code is None else _copied(code)
        self._history, self._position = [State(strength=_strength(strength))], 0
        self._literals: dict[str, Formula] = {}
        self._made: WeakKeyDictionary[Editor, OrderedDict[Key, Tensor]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        steps = ", ".join(step.text if step.weight == 1 else f"{step.text} x{step.weight:g}" for step in self.steps)
        return f"EditSession({self._count}: {steps or 'no steps yet'})"

    def _repr_html_(self) -> str:
        rows = [(str(k), code(step.text), f"{step.weight:g}") for k, step in enumerate(self.steps)]
        state = "the editor's own strength" if self.strength is None else f"strength {self.strength:g}"
        state += "".join(f", can {what}" for what, can in (("undo", self.can_undo), ("redo", self.can_redo)) if can)
        steps = table(("", "step", "weight"), rows) if rows else quiet("no steps yet: session.add('+glasses')")
        return block(f"{strong('Session')} {quiet(f'{self._count}, {state}')}", steps)

    @property
    def _count(self) -> str:
        return "1 source" if len(self.z_0) == 1 else f"{len(self.z_0)} sources"

    # --- the list ---

    @property
    def state(self) -> State:
        """What is asked for now."""
        return self._history[self._position]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, those that no longer stand included."""
        return self.state.steps

    @property
    def strength(self) -> float | None:
        """How far to go with all steps; None for the editor's default. Setting it is a change that can be undone."""
        return self.state.strength

    @strength.setter
    def strength(self, strength: float | None) -> None:
        self._become(replace(self.state, strength=_strength(strength)))

    @property
    def edits(self) -> tuple[Formula, ...]:
        """What the current state asks for: the steps that stand, weighted, in the order of their canonical text."""
        return self._edits(self.steps)

    def add(self, text: str, weight: float = 1.0) -> Self:
        """Appends a step.

        Raises:
            TypeError, ValueError: see `Step`.
            ValueError: the text is no edit of an attribute of the schema, or there are `MAX_STEPS` already.
        """
        step = Step(text, weight)
        self._literal(text)
        if len(self.steps) >= MAX_STEPS:
            raise ValueError(f"a session has at most {MAX_STEPS} steps; remove one before adding {text!r}")
        return self._become(replace(self.state, steps=(*self.steps, step)))

    def adjust(self, position: int, weight: float) -> Self:
        """Gives a step another weight. Raises as `Step`, or ValueError when there is no such step."""
        steps = list(self.steps)
        steps[self._at(position)] = replace(steps[position], weight=weight)
        return self._become(replace(self.state, steps=tuple(steps)))

    def remove(self, position: int) -> Self:
        """Takes a step out. Raises ValueError when there is no such step."""
        steps = list(self.steps)
        del steps[self._at(position)]
        return self._become(replace(self.state, steps=tuple(steps)))

    def move(self, position: int, to: int) -> Self:
        """Takes a step out and puts it in again where it will be step `to`.

        This changes results only where two steps speak of one attribute, of which the last stands.

        Raises:
            ValueError: there is no such step or place.
        """
        steps, to = list(self.steps), self._at(to, "to")
        steps.insert(to, steps.pop(self._at(position)))
        return self._become(replace(self.state, steps=tuple(steps)))

    # --- the history ---

    @property
    def can_undo(self) -> bool:
        """Whether there is a state before this one."""
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        """Whether a change has been undone."""
        return self._position + 1 < len(self._history)

    def undo(self) -> Self:
        """Goes back to the state before the last change. Raises ValueError when there is none."""
        if not self.can_undo:
            raise ValueError("there is no change to undo; ask `can_undo` first")
        self._position -= 1
        return self

    def redo(self) -> Self:
        """Makes the change again that was undone last. Raises ValueError when there is none."""
        if not self.can_redo:
            raise ValueError("there is no change to redo; ask `can_redo` first")
        self._position += 1
        return self

    def _become(self, state: State) -> Self:
        """Enters a new state; what had been undone is forgotten. A change that changes nothing is none."""
        if state != self.state:
            self._history = [*self._history[: self._position + 1], state][-MAX_STATES:]
            self._position = len(self._history) - 1
        return self

    def _at(self, position: int, name: str = "position") -> int:
        if not 0 <= position < len(self.steps):
            there = f"0 to {len(self.steps) - 1}" if self.steps else "none, as the session has no steps"
            raise ValueError(f"`{name}` must be that of a step, {there}, got {position}")
        return position

    # --- results ---

    def result(self, editor: Editor | None = None) -> Tensor:
        """The sources with all steps that stand, (B, *latent); the sources themselves where none asks for anything.

        Args:
            editor: the method; None for the session's own. It is supposed to stay as it is: after a change of its
                settings, use a new one.

        Raises:
            ValueError: the editor has no answer to an edit, or there is no editor.
        """
        return self._result(self._editor(editor), self._edits(self.steps), self.strength)

    def frames(self, editor: Editor | None = None) -> list[Tensor]:
        """The sources, then the result after each step of the list, len(steps) + 1 times (B, *latent)."""
        editor = self._editor(editor)
        return [self._result(editor, self._edits(self.steps[:k]), self.strength) for k in range(len(self.steps) + 1)]

    def strip(self, strengths: Sequence[float], editor: Editor | None = None) -> Tensor:
        """The current steps at several strengths, in one call of the editor.

        Args:
            strengths: in the editor's own unit; such as `editor.strengths`, or 0 to that of the session.
            editor: the method, one that takes any number of rows; None for the session's own.

        Returns:
            (B, S, *latent).

        Raises:
            TypeError: a strength is no number.
            ValueError: no strengths, one that is negative or not finite, or as `result`.
        """
        editor = self._editor(editor)
        values = [_number("strengths", value) for value in strengths]
        if not values:
            raise ValueError("`strengths` must hold at least one, got none; such as 0, 0.5, 1")
        count, z_0, labels = len(values), self.z_0, self.labels
        z_0 = z_0.repeat_interleave(count, dim=0)
        labels = None if labels is None else labels.repeat_interleave(count, dim=0)
        strength = torch.tensor(values, dtype=z_0.dtype, device=z_0.device).repeat(len(self.z_0))

        def alone(edit: Formula) -> Tensor:
            return editor.edit(z_0, EditRequest((edit,), labels, strength)).z_0

        made = _edited(editor, z_0, labels, self.edits, strength, alone)
        return made.unflatten(0, (len(self.z_0), count)).clone()

    def _editor(self, editor: Editor | None) -> Editor:
        chosen = self.editor if editor is None else editor
        if chosen is None:
            raise ValueError("`editor` must be given, as the session has none of its own; name it, or set `.editor`")
        return chosen

    def _result(self, editor: Editor, edits: tuple[Formula, ...], strength: float | None) -> Tensor:
        made = self._made.setdefault(editor, OrderedDict())
        key = tuple((str(literal), weight) for edit in edits for literal, weight in edit.conjuncts), strength
        if key not in made:

            def alone(edit: Formula) -> Tensor:
                return self._result(editor, (edit,), strength)

            made[key] = _edited(editor, self.z_0, self.labels, edits, strength, alone)
            while len(made) > CACHED:
                made.popitem(last=False)
        made.move_to_end(key)
        return made[key].clone()  # what a caller does to it stays with the caller

    def _edits(self, steps: tuple[Step, ...]) -> tuple[Formula, ...]:
        """Those of some steps that stand and ask for something, in canonical order, weighted unless the weight is 1."""
        literals = tuple(self._literal(step.text) for step in steps)
        # One literal per attribute stands, so the last weight that was given to a literal is that of the one.
        weights = dict(zip(literals, (step.weight for step in steps), strict=True))
        wanted = sorted((edit for edit in standing(literals) if weights[edit] > 0), key=str)
        return tuple(edit if weights[edit] == 1 else edit ** weights[edit] for edit in wanted)

    def _literal(self, text: str) -> Formula:
        if text not in self._literals:
            self._literals[text] = parse_edit(text, self.schema)
        return self._literals[text]

    # --- files ---

    def to_json(self) -> str:
        """The session as text; `from_json` is the inverse. Sources and labels are kept bit by bit, in base64.

        Raises:
            ValueError: the text is longer than `MAX_CHARACTERS`, which `from_json` would refuse.
        """
        entries = {
            "format": FORMAT,
            "version": VERSION,
            "schema": _vocabulary(self.schema),
            "z_0": _packed(self.z_0),
            "labels": None if self.labels is None else _packed(self.labels),
            "history": [
                {"steps": [[step.text, step.weight] for step in state.steps], "strength": state.strength}
                for state in self._history
            ],
            "position": self._position,
        }
        if self.code is not None:
            entries["code"] = _packed(self.code)
        text = json.dumps(entries, allow_nan=False, separators=(",", ":"))
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"a session has at most {MAX_CHARACTERS} characters, got {len(text)}; use fewer sources or steps"
            )
        return text

    @classmethod
    def from_json(cls, text: str, schema: Schema, device: torch.device | str = "cpu") -> Self:
        """Reads what `to_json` wrote.

        The text may come from strangers: nothing in it is executed, and it is refused where it is larger than a session
        ever is (`MAX_CHARACTERS`, `MAX_STATES`, `MAX_STEPS`, `MAX_TEXT`, `MAX_SIZE`).

        Args:
            text: JSON.
            schema: the attributes; those that the session was written with.
            device: where sources and labels go.

        Raises:
            ValueError: anything but a session of this version with this schema; the message says what is wrong.
        """
        entries = _entries(text)
        if entries["schema"] != _vocabulary(schema):
            raise ValueError(
                f"the session was made with other attributes ({_brief(entries['schema'])}) than "
                f"{', '.join(schema.names)}; read it with the schema of its own model"
            )
        z_0 = _unpacked("z_0", entries["z_0"])
        labels = None if entries["labels"] is None else _unpacked("labels", entries["labels"])
        code = _unpacked("code", entries["code"]).to(device) if "code" in entries else None
        history, position = entries["history"], entries["position"]
        if not isinstance(history, list) or not 1 <= len(history) <= MAX_STATES:
            raise ValueError(f"`history` must be a list of 1 to {MAX_STATES} states, got {_brief(history)}")
        if type(position) is not int or not 0 <= position < len(history):
            raise ValueError(f"`position` must be that of a state, 0 to {len(history) - 1}, got {_brief(position)}")
        try:
            session = cls(z_0.to(device), schema, None if labels is None else labels.to(device), code=code)
            session._history = [_state(entry, session._literal) for entry in history]
        except TypeError as error:  # a number or a text where there should be another thing
            raise ValueError(f"the session is damaged: {error}") from error
        session._position = position
        return session


def _edited(
    editor: Editor,
    z_0: Tensor,
    labels: Tensor | None,
    edits: tuple[Formula, ...],
    strength: float | Tensor | None,
    alone: Callable[[Formula], Tensor],
) -> Tensor:
    """The answer of an editor, given what each edit brings by itself where the editor looks at that."""
    if not edits:
        return z_0
    several = editor.keeps_details and len(edits) > 1
    results = tuple(alone(edit) for edit in edits) if several else None
    return editor.edit(z_0, EditRequest(edits, labels, strength, results)).z_0.detach()


def _check_source(z_0: Tensor, schema: Schema, labels: Tensor | None, code: Tensor | None) -> None:
    for name, tensor in (("z_0", z_0), ("labels", labels), ("code", code)):
        if tensor is not None and tensor.dtype not in DTYPES.values():
            raise TypeError(f"`{name}` must be float32 or float64, got {tensor.dtype}; use {name}.float()")
    if z_0.ndim < 2 or not z_0.numel():
        raise ValueError(f"`z_0` must be (B, *latent) with at least one source, got shape {tuple(z_0.shape)}")
    if not bool(z_0.isfinite().all()):
        raise ValueError("`z_0` must be finite, got NaN or infinity; check the encoder, or the file that it came from")
    if code is not None and (len(code) != len(z_0) or not bool(code.isfinite().all())):
        raise ValueError(
            f"`code` must be finite, a row for each of {len(z_0)} sources, got shape {tuple(code.shape)}; "
            "take it from the images that the latents are of"
        )
    if labels is None:
        return
    if tuple(labels.shape) != (len(z_0), len(schema)):
        raise ValueError(
            f"`labels` must be ({len(z_0)}, {len(schema)}), a row per source and a column per attribute, "
            f"got {tuple(labels.shape)}"
        )
    if bool(labels.isinf().any()):
        raise ValueError("`labels` must be finite or NaN, got infinity; mark what is not known by NaN")


def _copied(tensor: Tensor) -> Tensor:
    """A copy of plain layout, so that a session and the one that was read from its file compute alike."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, got {_brief(value)}")
    if not 0 <= value <= sys.float_info.max:  # `isfinite` would fail for integers beyond a float
        raise ValueError(
            f"`{name}` must be finite and >= 0, got {_brief(value)}; for the opposite of an edit, change its sign"
        )
    return float(value) + 0.0  # -0.0 is 0.0


def _strength(value: float | None) -> float | None:
    return None if value is None else _number("strength", value)


def _brief(value: object) -> str:
    text = reprlib.repr(value)  # does not walk through all of a stranger's list
    return text if len(text) <= 80 else text[:77] + "..."


# --- JSON -------------------------------------------------------------------------------------------------------------


def _vocabulary(schema: Schema) -> list[list[str]]:
    """What gives labels and texts their meaning: name, kind and values of every attribute, in order."""
    return [[a.name, a.kind, *a.values] for a in schema]


def _packed(tensor: Tensor) -> dict[str, Any]:
    """A tensor in JSON primitives: its bytes, little-endian, in base64."""
    values = tensor.cpu().numpy()
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return {"dtype": str(values.dtype), "shape": list(values.shape), "data": base64.b64encode(data).decode()}


def _unpacked(name: str, entry: object) -> Tensor:
    """The inverse of `_packed`. Raises ValueError for anything else."""
    expected = f"`{name}` must be {{dtype, shape, data}}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data"}:
        raise ValueError(f"{expected}, got {_brief(entry)}")
    dtype, shape, text = entry["dtype"], entry["shape"], entry["data"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{expected} with `dtype` one of {', '.join(DTYPES)}, got {_brief(dtype)}")
    sizes = (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 < n < MAX_SIZE for n in shape)
    )
    if not sizes:
        raise ValueError(f"{expected} with `shape` of up to {MAX_DIMENSIONS} positive sizes, got {_brief(shape)}")
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"{expected} with `data` in base64, got {_brief(text)}") from error
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != wanted:
        raise ValueError(f"{expected} with `data` of {wanted} bytes for shape {shape}, got {len(data)}")
    values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
    return torch.from_numpy(values)


def _entries(text: str) -> dict[str, Any]:
    """The top level of a session's JSON, with exactly the keys of this version."""
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise ValueError(f"a session must be text of at most {MAX_CHARACTERS} characters; it is no session of ours")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"a session must be JSON, which this is not ({error}); it is damaged, or something else"
        ) from error
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise ValueError(f"a session must be an object with format={FORMAT!r}, got {_brief(entries)}")
    if type(entries.get("version")) is not int or entries["version"] != VERSION:
        raise ValueError(
            f"`version` must be {VERSION}, got {_brief(entries.get('version'))}; read it with the lcg that wrote it"
        )
    unknown, missing = sorted(set(entries) - {*KEYS, *OPTIONAL}), sorted(set(KEYS) - set(entries))
    if unknown or missing:
        raise ValueError(
            f"a session must have the keys {', '.join(KEYS)}; unknown: {_brief(unknown)}, missing: {missing}"
        )
    return entries


def _state(entry: object, literal: Callable[[str], Formula]) -> State:
    """A state of the history; `literal` refuses what is no edit. Raises ValueError or TypeError for anything else."""
    if not isinstance(entry, dict) or set(entry) != {"steps", "strength"}:
        raise ValueError(f"a state of `history` must be {{steps, strength}}, got {_brief(entry)}")
    steps = entry["steps"]
    if not isinstance(steps, list) or len(steps) > MAX_STEPS:
        raise ValueError(f"`steps` of a state must be a list of at most {MAX_STEPS}, got {_brief(steps)}")
    if not all(isinstance(step, list) and len(step) == 2 for step in steps):
        raise ValueError(f"`steps` of a state must be pairs of text and weight, got {_brief(steps)}")
    state = State(tuple(Step(*step) for step in steps), _strength(entry["strength"]))
    for step in state.steps:
        literal(step.text)
    return state
