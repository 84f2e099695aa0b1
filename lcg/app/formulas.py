"""Formulas as a page handles them: checked while they are typed, and made from the state of controls."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping

from lcg.app.answers import Asked, Check, Control
from lcg.app.refusal import Refused, in_words, problem_of, shortened
from lcg.guidance import Formula, FormulaError, Not, parse, parse_edit
from lcg.guidance.formula import Beyond, Has, Near, OneOf
from lcg.guidance.logic import COMPARISONS
from lcg.schema import Attribute, Schema

MAX_TEXT = 2000
"""Characters of a formula."""

PIECE = re.compile(r'\w+|"(?:[^"\\]|\\.)*"?|&&|\|\||[<>=!]=|=[<>]|<>|\*\*|.', re.DOTALL)
MEANT = re.compile(r"""did you mean ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
WRITE = re.compile(r"write `([&|~=<>^]{1,2})`")


def check(text: str, schema: Schema, read: Callable[[str, Schema], Formula] = parse) -> Check:
    """Reads a formula, or with `read=parse_edit` an edit, and says what became of it; an empty text asks for nothing.

    Args:
        text: as it was typed.
        schema: the attributes.
        read: `parse` or `parse_edit`.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return Check("", problem=f"A formula has at most {MAX_TEXT} characters; leave something out.", end=1)
    if not text.strip():
        return Check(text, asked={})
    try:
        formula = read(text, schema)
    except FormulaError as error:
        start = min(error.column, len(text))
        piece = PIECE.match(text, start)
        end = piece.end() if piece else start + 1
        return Check(text, None, problem_of(error), start, end, _nearest(error.problem))
    except ValueError as error:
        return Check(text, None, problem_of(error), 0, len(text))
    return Check(text, str(formula), asked=_asked(formula))


def read_formula(text: str | None, schema: Schema) -> Formula | None:
    """The formula of a text, None for an empty one. Raises Refused with the column, counted from 1."""
    checked = check(text or "", schema)
    if checked.problem is not None:
        raise Refused(f"Column {checked.start + 1}: {checked.problem}")
    return None if checked.canonical is None else parse(checked.canonical, schema)


def formula_text(asked: Mapping[str, Asked], schema: Schema) -> str:
    """The canonical formula of a state of the controls, in the schema's order; empty where nothing is asked.

    Raises:
        Refused: an unknown attribute or value, or something that its kind of control cannot ask.
    """
    known = _known(asked, schema)
    parts = [part for a in schema if (part := _conjunct(a, known.get(a.name))) is not None]
    with in_words():
        return str(parse(" & ".join(parts), schema)) if parts else ""


def edit_text(name: str, asked: Asked, schema: Schema) -> str | None:
    """The edit that one control asks for, None for nothing. Raises as `formula_text`."""
    attribute = schema[next(iter(_known({name: asked}, schema)))]
    if attribute.kind == "continuous" and isinstance(asked, (int, float)) and not isinstance(asked, bool):
        if not math.isfinite(asked):
            raise Refused(f"{name} must be a finite number.")
        return str(parse_edit(f"{name}={float(asked)!r}", schema))
    part = _conjunct(attribute, asked)
    if part is None:
        return None
    if attribute.kind == "binary":
        return f"+{name}" if asked else f"-{name}"
    with in_words():
        return str(parse_edit(part, schema))


def controls_of(schema: Schema, ranges: Mapping[str, tuple[float, float]]) -> tuple[Control, ...]:
    """A control for every attribute.

    Args:
        schema: the attributes.
        ranges: least and greatest value of the continuous ones.
    """
    kinds = {"binary": "toggle", "categorical": "choice", "continuous": "number"}
    return tuple(
        Control(
            a.name,
            a.name.replace("_", " "),
            kinds[a.kind],  # type: ignore[arg-type] # one of the three words
            a.values,
            a.ordered,
            *ranges.get(a.name, (0.0, 1.0)),
            a.group,
            bool(a.detail_of or a.applies_if),
            applies_words(a),
        )
        for a in schema
    )


def applies_words(attribute: Attribute) -> str:
    """When an attribute applies, in words; empty for always."""
    parts = [
        f"{'with' if value else 'without'} {name.replace('_', ' ')}" for name, value in attribute.applies_if.items()
    ]
    return f"only {' and '.join(parts)}" if parts else ""


def _known(asked: Mapping[str, Asked], schema: Schema) -> dict[str, Asked]:
    if not isinstance(asked, Mapping):
        raise Refused("The controls must be given by the names of attributes.")
    with in_words():
        for name in asked:
            schema.index(name if isinstance(name, str) else repr(name))
    return dict(asked)


def _conjunct(attribute: Attribute, asked: Asked) -> str | None:
    """The text that asks this of an attribute, None for nothing."""
    name = attribute.name
    if asked is None or (isinstance(asked, (tuple, list)) and not asked):
        return None
    if attribute.kind == "binary":
        if not isinstance(asked, bool):
            raise Refused(f"{name} can be asked for or not, got {shortened(repr(asked), 60)}; choose yes, no or any.")
        return name if asked else f"~{name}"
    if attribute.kind == "continuous" or (attribute.ordered and _is_comparison(attribute, asked)):
        if not _is_comparison(attribute, asked):
            raise Refused(f"{name} takes a threshold such as {name}>0.5, got {shortened(repr(asked), 60)}.")
        relation, bound = tuple(asked)  # type: ignore[arg-type] # a pair, as was found
        return f"{name}{relation}{_quoted(bound) if attribute.ordered else repr(float(bound))}"
    values = (asked,) if isinstance(asked, str) else asked
    if not isinstance(values, (tuple, list)) or not all(isinstance(value, str) for value in values):
        raise Refused(f"{name} takes values, such as {attribute.values[0]}, got {shortened(repr(asked), 60)}.")
    with in_words():
        places = {attribute.value_index(str(value)) for value in values}
    if len(places) == len(attribute.values):
        return None
    return f"{name} in {{{', '.join(_quoted(attribute.values[place]) for place in sorted(places))}}}"


def _is_comparison(attribute: Attribute, asked: object) -> bool:
    """Whether this is a relation and what stands on its right."""
    if not isinstance(asked, (tuple, list)) or len(asked) != 2 or asked[0] not in COMPARISONS:
        return False
    if attribute.kind == "categorical":
        return isinstance(asked[1], str) and asked[0] not in attribute.values
    number = isinstance(asked[1], (int, float)) and not isinstance(asked[1], bool) and abs(asked[1]) < 1e300
    return number and asked[0] in ("<", ">")


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _asked(formula: Formula) -> dict[str, Asked] | None:
    """The state of the controls that asks for a formula; None if there is none."""
    if formula.is_weighted:
        return None
    asked: dict[str, Asked] = {}
    for part, _ in formula.conjuncts:
        atom, positive = (part.operand, False) if isinstance(part, Not) else (part, True)
        if isinstance(atom, Has):
            value: Asked = positive
        elif isinstance(atom, OneOf):
            value = tuple(v for i, v in enumerate(atom.attribute.values) if (i in atom.indices) == positive)
        elif isinstance(atom, Beyond):
            value = (">" if atom.above == positive else "<", atom.threshold)
        elif isinstance(atom, Near) and positive:
            value = atom.value
        else:
            return None
        if atom.name in asked or value == ():
            return None
        asked[atom.name] = value
    return asked


def _nearest(problem: str) -> str | None:
    """What was probably meant, as a formula writes it."""
    if meant := MEANT.search(problem):
        name = str(ast.literal_eval(meant[1]))
        return name if name.isidentifier() else _quoted(name)
    return write[1] if (write := WRITE.search(problem)) else None
