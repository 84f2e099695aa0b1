"""What is known about an image: named attributes, each binary, categorical or continuous.

A schema is the one vocabulary of the project. The latent store keeps one column of labels per attribute, the
classifier one head, the formula language one name. Labels are a float matrix (N, A): binary 0 or 1, categorical the
index into `values`, continuous the value itself, and NaN where the label is missing.

Some attributes are details of others (the style of the glasses, the colour of the beard). A detail is labelled only
where it applies, and an edit of what it belongs to sets it free.

Two refinements need no kind of their own. The values of an ordinal attribute (`ordered`), such as child, young, adult
and old, are on a scale: it is a categorical attribute whose classifier has a cumulative link and whose formulas
compare, `age>=adult`. What an image may have several of at once (`group`), such as a hat and glasses, is one binary
attribute for each: `accessory_hat` and `accessory_glasses` of the group `accessory`, in formulas also `accessory=hat`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lcg.results.display import block, code, quiet, strong, table

Kind = Literal["binary", "categorical", "continuous"]
KINDS: tuple[Kind, ...] = ("binary", "categorical", "continuous")


def unknown_name(what: str, name: str, known: Iterable[str], owner: str) -> ValueError:
    """The error for a name that does not exist, with the nearest names that do.

    Example:
        >>> print(unknown_name("colour", "rde", ["red", "blue"], "the palette"))
        unknown colour 'rde'; did you mean 'red'? the palette has: red, blue
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ";"
    return ValueError(f"unknown {what} {name!r}{hint} {owner} has: {', '.join(known)}")


def member_name(text: str) -> str:
    """How a text is spelled in the name of an attribute: `sun glasses` is sun_glasses."""
    return re.sub(r"\W+", "_", text.strip())


@dataclass(frozen=True)
class Attribute:
    """One attribute.

    Args:
        name: an identifier, as formulas spell it.
        kind: binary, categorical or continuous.
        values: the names of a categorical attribute's values, in label order; empty for the other kinds.
        detail_of: the attributes whose edit sets this one free (the colour of the beard is a detail of `beard`).
        applies_if: binary attributes and the value each must have for this one to be defined at all.
        ordered: whether `values` are in ascending order, which makes a categorical attribute an ordinal one.
        group: of a binary attribute that is one of several that an image may have; its name is GROUP_MEMBER.

    Raises:
        ValueError: the name is no identifier, the kind is unknown, or `values`, `ordered` or `group` do not fit.

    Example:
        >>> size = Attribute("size", "categorical", ("small", "large", "huge"), ordered=True)
        >>> size.outputs, size.value_index("large")
        (3, 1)
    """

    name: str
    kind: Kind = "binary"
    values: tuple[str, ...] = ()
    detail_of: tuple[str, ...] = ()
    applies_if: Mapping[str, bool] = field(default_factory=dict)
    ordered: bool = False
    group: str | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(
                f"`name` of an attribute must be an identifier such as 'long_hair', got {self.name!r}; "
                "rename the column"
            )
        if self.kind not in KINDS:
            raise unknown_name("kind", self.kind, KINDS, f"attribute {self.name!r}")
        if len(self.values) < 2 if self.kind == "categorical" else self.values:
            raise ValueError(
                f"`values` of {self.kind} attribute {self.name!r}: expected "
                f"{'at least two names' if self.kind == 'categorical' else 'none'}, got {list(self.values)}"
            )
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"`values` of attribute {self.name!r} must be distinct, got {list(self.values)}")
        if self.ordered and self.kind != "categorical":
            raise ValueError(
                f"`ordered` is for categorical attributes, got it for the {self.kind} {self.name!r}; leave it out"
            )
        if self.group is not None:
            self._check_group(self.group)

    def _check_group(self, group: str) -> None:
        if self.kind != "binary":
            raise ValueError(
                f"`group` is for binary attributes, one per member, got it for the {self.kind} {self.name!r}; leave it "
                "out, or give each member a binary attribute"
            )
        if not group.isidentifier() or not self.name.startswith(f"{group}_") or not self.member:
            raise ValueError(
                f"`group` of {self.name!r} must be an identifier that its name continues, as in accessory_hat of the "
                f"group accessory, got {group!r}; rename one of them"
            )

    @property
    def member(self) -> str:
        """What the attribute is called within its group: `hat` for accessory_hat; its name if it has no group."""
        return self.name if self.group is None else self.name[len(self.group) + 1 :]

    @property
    def outputs(self) -> int:
        """How many numbers say what is believed of it: a logit; one logit per value; or mean and log-variance."""
        return {"binary": 1, "categorical": len(self.values), "continuous": 2}[self.kind]

    def value_index(self, value: str) -> int:
        """The label of a categorical value. Raises ValueError with the nearest names."""
        if value not in self.values:
            raise unknown_name(f"value of {self.name!r}", value, self.values, "the attribute")
        return self.values.index(value)


@dataclass(frozen=True, repr=False)
class Schema:
    """An ordered set of attributes; column j of every label matrix belongs to `attributes[j]`.

    Raises:
        ValueError: two attributes share a name, a group has the name of an attribute, or a detail refers to an
            attribute that is not there.

    Example:
        >>> hair = Attribute("hair", "categorical", ("blond", "red"))
        >>> schema = Schema((Attribute("glasses"), hair, Attribute("age", "continuous")))
        >>> schema.names, schema.index("age")
        (('glasses', 'hair', 'age'), 2)
        >>> schema["hair"].value_index("red")
        1
        >>> schema.index("glases")
        Traceback (most recent call last):
            ...
        ValueError: unknown attribute 'glases'; did you mean 'glasses'? the schema has: glasses, hair, age
    """

    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"attribute names must be distinct, got {list(self.names)}")
        for attribute in self.attributes:
            if attribute.group in self.names:
                raise ValueError(
                    f"`group` of {attribute.name!r} must not be the name of an attribute, got {attribute.group!r}; "
                    "rename one of them"
                )
            for parent in (*attribute.detail_of, *attribute.applies_if):
                if parent not in self.names:
                    raise unknown_name(f"attribute (named by {attribute.name!r})", parent, self.names, "the schema")

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes' names, in the order of the columns."""
        return tuple(a.name for a in self.attributes)

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Attribute:
        return self.attributes[self.index(name)]

    def index(self, name: str) -> int:
        """The label column of an attribute. Raises ValueError with the nearest names."""
        if name not in self.names:
            raise unknown_name("attribute", name, self.names, "the schema")
        return self.names.index(name)

    def of_kind(self, *kinds: Kind) -> tuple[Attribute, ...]:
        """The attributes of these kinds, in the order of the columns."""
        return tuple(a for a in self.attributes if a.kind in kinds)

    @property
    def groups(self) -> dict[str, tuple[Attribute, ...]]:
        """The members of each group, in the schema's order."""
        names = dict.fromkeys(a.group for a in self if a.group is not None)
        return {name: tuple(a for a in self if a.group == name) for name in names}

    def member(self, group: str, member: str) -> int:
        """The label column of a group's member. Raises ValueError with the nearest names."""
        members = {a.member: a.name for a in self.groups.get(group, ())}
        if member_name(member) not in members:
            raise unknown_name(f"member of {group!r}", member, members, "the group")
        return self.index(members[member_name(member)])

    def freed_by(self, edited: Iterable[str]) -> tuple[str, ...]:
        """The edited attributes and every detail of theirs: what an edit cannot be asked to keep."""
        edited = set(edited)
        for name in edited:
            self.index(name)
        return tuple(a.name for a in self.attributes if a.name in edited or edited & {*a.detail_of, *a.applies_if})

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.names)

    def __repr__(self) -> str:
        return f"Schema({len(self)} attributes: {', '.join(self.names)})"

    def _repr_html_(self) -> str:
        rows = [
            (code(a.name), quiet("ordinal" if a.ordered else a.kind), " ".join(map(code, a.values)), _belonging(a))
            for a in self
        ]
        head = ("attribute", "kind", "values", "")
        return block(strong(f"Schema of {len(self)} attributes"), table(head, rows))

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON primitives; `from_dict` is the inverse. What is neither ordered nor in a group does not say so."""
        plain = [asdict(a) for a in self.attributes]
        for entry in plain:
            entry.update({k: list(entry[k]) for k in ("values", "detail_of")}, applies_if=dict(entry["applies_if"]))
            for name, unset in (("ordered", False), ("group", None)):
                if entry[name] is unset:
                    del entry[name]
        return plain

    @classmethod
    def from_dict(cls, entries: Iterable[Mapping[str, Any]]) -> Schema:
        """Raises ValueError or TypeError for entries that are not attributes."""
        return cls(
            tuple(
                Attribute(
                    **{
                        **entry,
                        "values": tuple(entry.get("values", ())),
                        "detail_of": tuple(entry.get("detail_of", ())),
                    }
                )
                for entry in entries
            )
        )


def _belonging(attribute: Attribute) -> str:
    """What an attribute belongs to and when it applies, as HTML."""
    said = [f"one of {attribute.group}"] if attribute.group else []
    said += [f"a detail of {', '.join(attribute.detail_of)}"] if attribute.detail_of else []
    when = [name if wanted else f"~{name}" for name, wanted in attribute.applies_if.items()]
    said += [f"where {' & '.join(when)}"] if when else []
    return quiet("; ".join(said))
