"""The formula language: text to `Formula`, with errors that point at the column.

    formula  := term ('|' term)*                        least binding
    term     := conjunct ('&' conjunct)*
    conjunct := negation ['^' NUMBER]                   a weight; only for conjuncts of the whole formula
    negation := '~' negation | '(' formula ')' | atom   most binding
    atom     := NAME                                    binary:      glasses
              | NAME '=' VALUE                          categorical: hair=blond
              | NAME 'in' '{' VALUE (',' VALUE)* '}'    categorical: hair in {blond, red}
              | NAME ('>=' | '>' | '<=' | '<') VALUE    ordinal:     size>=large
              | NAME ('>' | '<') NUMBER                 continuous:  age>0.6, in the attribute's own unit
              | GROUP '=' MEMBER                        a group:     accessory=hat, the same as accessory_hat
              | GROUP 'in' '{' MEMBER (',' MEMBER)* '}'              accessory in {hat, scarf}, at least one of them
              | GROUP '=' '{' [MEMBER (',' MEMBER)*] '}'             accessory={hat}, these and no others of the group
    VALUE    := WORD | NUMBER | "any text"              quoted as in JSON

Names and words are Python's identifiers, in any script; words may begin with a digit. The parser is recursive descent,
one method per rule. `str(formula)` is canonical text, which parses to an equal formula (unless that was built in Python
and is nested deeper than `MAX_DEPTH`, which no text may be).
Edits are single literals with a sign, `+glasses`, `-hat`, `hair=blond` (`parse_edit`).
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from lcg.guidance.formula import And, Atom, Beyond, Formula, Has, Near, Not, OneOf, Or, Weighted
from lcg.guidance.pasted import advice_on, typed
from lcg.schema import Attribute, Schema, unknown_name

__all__ = ["And", "Atom", "Formula", "FormulaError", "Not", "Or", "Weighted", "parse", "parse_edit"]

Spelled = TypeVar("Spelled")
COMPARISONS = ("<", "<=", ">", ">=")
MAX_DEPTH = 32  # of nested parentheses and negations; deeper text is a mistake, and would end in a RecursionError

TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<text>"(?:[^"\\\n]|\\.)*")
      | (?P<foreign>&&|\|\||==|!=|<>|=>|=<|!|\*\*|\*|:)
      | (?P<symbol>>=|<=|[&|~^(){},=<>])""",
    re.VERBOSE,
)

ADVICE = {
    "&&": "write `&`",
    "and": "write `&`",
    "||": "write `|`",
    "or": "write `|`",
    "!": "write `~`",
    "not": "write `~`",
    "==": "write `=`",
    ":": "write `=`",
    "!=": "write ~NAME=VALUE",
    "<>": "write ~NAME=VALUE",
    ">=": "write `>`; a continuous attribute equals its threshold with probability 0",
    "=>": "write `>`; a continuous attribute equals its threshold with probability 0",
    "<=": "write `<`; a continuous attribute equals its threshold with probability 0",
    "=<": "write `<`; a continuous attribute equals its threshold with probability 0",
    "**": "write `^`",
    "*": "a weight stands behind its conjunct, such as glasses^2.0",
    ",": "write `&`; or, for several values of one attribute, NAME in {VALUE, VALUE}",
    "no": "write `~`",
    "without": "write `~`",
    "with": "write attributes only, such as glasses & ~hat",
}
"""What to write for the operators of other languages."""


class FormulaError(ValueError):
    """A formula that cannot be read.

    Attributes:
        problem: what is wrong and what to write instead, in one line.
        text: the formula.
        column: where, counted from 0.
    """

    def __init__(self, problem: str, text: str, column: int) -> None:
        self.problem, self.text, self.column = problem, text, column
        line = re.sub(r"\s", " ", text)  # one character each, so that the caret stays under its column
        super().__init__(f"{problem}\n  {line}\n  {' ' * column}^")


def parse(text: str, schema: Schema) -> Formula:
    """Reads a formula.

    Args:
        text: for example `glasses & ~beard & (hair=blond | hair=red) & age>0.6 & smile^2.0`.
        schema: the attributes that the formula may speak of.

    Returns:
        The formula, bound to the schema's label columns.

    Raises:
        FormulaError: a ValueError with the column marked: a syntax error, an unknown name (with the nearest ones), an
            atom that does not fit the attribute's kind, or a weight inside `~` or `|`.

    Example:
        >>> schema = Schema((Attribute("glasses"), Attribute("beard"), Attribute("age", "continuous")))
        >>> formula = parse("glasses & ~beard & age>0.6", schema)
        >>> formula
        Formula('glasses & ~beard & age>0.6')
        >>> formula.attributes
        ('glasses', 'beard', 'age')
        >>> parse("glases & beard", schema)
        Traceback (most recent call last):
            ...
        lcg.guidance.logic.FormulaError: unknown attribute 'glases'; did you mean 'glasses'? the schema has: ...
          glases & beard
          ^
    """
    if not text.strip():
        raise FormulaError("the formula is empty; leave it out to sample whatever the prior makes", text, 0)
    return _Parser(text, schema).whole()


def parse_edit(text: str, schema: Schema) -> Formula:
    """Reads an edit: `+glasses`, `-hat`, `hair=blond`, `age>0.6`; the sign + may be left out, and - means `~`.

    A continuous attribute may be given a target too, `age=0.7`.

    Returns:
        A literal: an atom, or an atom negated.

    Raises:
        FormulaError: a ValueError with the column marked, as for `parse`, or the text is more than one literal.

    Example:
        >>> schema = Schema((Attribute("hat"), Attribute("age", "continuous")))
        >>> [str(parse_edit(text, schema)) for text in ("+hat", "-hat", "age=0.7")]
        ['hat', '~hat', 'age=0.7']
    """
    sign = re.match(r"\s*([+-])", text)
    begun = text.lstrip()[:1]
    if begun not in "+-" and typed(begun) in ("+", "-"):
        raise FormulaError(f"cannot read {begun!r}; write `{typed(begun)}`", text, text.index(begun))
    parser = _Parser(text, schema, start=sign.end() if sign else 0, targets=True)
    literal = parser.literal(signed=sign is not None)
    negated = sign is not None and sign[1] == "-"
    if isinstance(literal.operand if isinstance(literal, Not) else literal, Near) and (
        negated or isinstance(literal, Not)
    ):
        raise FormulaError("a target cannot be negated; write another one, or a range such as age>0.7", text, 0)
    return Not(literal) if negated else literal


@dataclass(frozen=True)
class Token:
    """A piece of the text; kind is that of `TOKEN`, or `end`."""

    kind: str
    text: str
    column: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


class _Parser:
    """Recursive descent; `self.token` is the next token that no rule has taken yet."""

    def __init__(self, text: str, schema: Schema, start: int = 0, targets: bool = False) -> None:
        self.text, self.schema, self.targets = text, schema, targets
        self.tokens = self.split(start)
        self.position = 0
        self.depth = 0

    # --- tokens ---

    def split(self, start: int) -> list[Token]:
        tokens, column = [], start
        while column < len(self.text):
            match, word = TOKEN.match(self.text, column), _word_at(self.text, column)
            if len(word) > (len(match[0]) if match else 0):  # 2 is a number, 2nd is a word
                tokens.append(Token("word", word, column))
                column += len(word)
                continue
            if match is None or match.lastgroup is None:
                bad = self.text[column]
                self.fail(f"cannot read {bad!r}{self.about(bad, column)}", column)
            if match.lastgroup != "space":
                tokens.append(Token(match.lastgroup, match[0], column))
            column = match.end()
        return [*tokens, Token("end", "", len(self.text.rstrip()))]

    def about(self, bad: str, column: int) -> str:
        """What to do about a character that no token begins with."""
        before, after = re.search(r"\w*$", self.text[:column]), re.match(r"\w*", self.text[column + 1 :])
        joined = f"{before[0] if before else ''}_{after[0] if after else ''}"
        if bad == "-" and joined in self.schema:
            return f"; the attribute is spelled {joined}"
        if self.targets and column:
            return "; an edit is one attribute, give each by itself, such as --edits +glasses -hat"
        if bad == '"':
            return ", a quoted value that is not closed"
        advice = advice_on(bad)
        return f"; {advice}" if advice else ""

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def take(self, *symbols: str) -> Token | None:
        """The next token if it is one of these symbols or words, else None."""
        token = self.token
        if token.text not in symbols or token.kind not in ("symbol", "word"):
            return None
        self.position += 1
        return token

    def expect(self, symbol: str) -> Token:
        return self.take(symbol) or self.fail(f"expected {symbol!r}, got {self.token}")

    def fail(self, problem: str, column: int | None = None) -> NoReturn:
        """Raises at `column`, by default at the next token, whose operator of another language explains itself."""
        if column is None:
            advice = ADVICE.get(self.token.text.lower())
            problem, column = f"{problem}; {advice}" if advice else problem, self.token.column
        raise FormulaError(problem, self.text, column)

    # --- rules ---

    def whole(self) -> Formula:
        formula = self.formula()
        if self.token.kind != "end":
            self.fail(f"expected `&`, `|` or the end, got {self.token}")
        return formula

    def literal(self, signed: bool) -> Formula:
        negated, first = None if signed else self.take("~"), self.token
        atom = self.atom()
        if not isinstance(atom, Atom):
            self.fail(f"an edit is one literal such as +{atom.attributes[0]}, got {atom}", first.column)
        if self.token.kind != "end":
            self.fail(f"expected the end of the edit, which is one literal such as +glasses or -hat, got {self.token}")
        return Not(atom) if negated else atom

    def formula(self) -> Formula:
        first = self.position
        terms = [self.term()]
        while self.take("|"):
            terms.append(self.term())
        if len(terms) == 1:
            return terms[0]
        self.refuse_weights(first, "|")
        return Or(tuple(terms))

    def term(self) -> Formula:
        conjuncts = [self.conjunct()]
        while self.take("&"):
            conjuncts.append(self.conjunct())
        return conjuncts[0] if len(conjuncts) == 1 else And(tuple(conjuncts))

    def conjunct(self) -> Formula:
        first = self.position
        operand = self.negation()
        if self.token.text == "^":
            self.refuse_weights(first, "^")
            self.take("^")
            weight, column = self.number("a weight")
            if weight < 0:
                self.fail(f"a weight must be >= 0, got {weight}; to avoid something, negate it with `~`", column)
            if self.token.text == "^":
                self.fail("a conjunct has one weight; multiply them")
            return operand**weight
        return operand

    def negation(self) -> Formula:
        first, opening = self.position, self.token
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"parentheses and negations are nested deeper than {MAX_DEPTH}")
        if self.take("~"):
            operand = self.negation()
            self.refuse_weights(first, "~")
            formula: Formula = Not(operand)
        elif self.take("("):
            formula = self.formula()
            if not self.take(")"):
                self.fail(f"expected `&`, `|` or `)` for the `(` at column {opening.column + 1}, got {self.token}")
        else:
            formula = self.atom()
        self.depth -= 1
        return formula

    def refuse_weights(self, first: int, operator: str) -> None:
        """Weights among the tokens since `first`, which `operator` is about to take as its operand."""
        for token in self.tokens[first : self.position]:
            if token.kind == "symbol" and token.text == "^":
                self.fail(
                    f"a weight cannot stand under `{operator}`; weights belong to the conjuncts of the whole formula, "
                    "such as (a | b)^2.0 & c",
                    token.column,
                )

    def atom(self) -> Formula:
        name = self.token
        if name.kind == "number":
            self.fail(
                f"expected an attribute, `~` or `(`, got {name}; a number stands on the right, such as age>0.5, and so "
                "does a weight, such as glasses^2.0"
            )
        if name.kind == "text":
            self.fail(f"expected an attribute, `~` or `(`, got {name}; names stand without quotes")
        if name.kind != "word":
            self.fail(f"expected an attribute, `~` or `(`, got {name}")
        self.position += 1
        if name.text in self.schema.groups:
            return self.group(name)
        if name.text not in self.schema:
            names = *self.schema.names, *self.schema.groups
            problem = str(unknown_name("attribute", name.text, names, "the schema"))
            given = self.tokens[self.position + 1 : self.position + 2] if self.token.text in ("=", "==") else []
            advice = ADVICE.get(name.text.lower()) or next(
                filter(None, map(self.value_elsewhere, [name, *given])), None
            )
            self.fail(f"{problem}; {advice}" if advice else problem, name.column)
        column = self.schema.index(name.text)
        attribute = self.schema.attributes[column]
        if attribute.kind == "binary":
            return self.binary(attribute, column)
        return (self.categorical if attribute.kind == "categorical" else self.continuous)(attribute, column, name)

    def value_elsewhere(self, token: Token) -> str | None:
        """What to write for a value without its attribute, as in hair=red | blond."""
        word = token.text
        owners = [a.name for a in self.schema if word in a.values]
        owners += [group for group, members in self.schema.groups.items() if word in [a.member for a in members]]
        return f"{word!r} is a value: write {' or '.join(f'{owner}={word}' for owner in owners)}" if owners else None

    def binary(self, attribute: Attribute, column: int) -> Atom:
        if self.token.text in ("=", "==", "!=", "<", ">", "<=", ">=", "in"):
            n = attribute.name
            self.fail(f"{n!r} is binary: write {n} or ~{n}, without {self.token}", self.token.column)
        return Has(attribute, column)

    def group(self, name: Token) -> Formula:
        group = name.text
        has = {a.member: Has(a, self.schema.index(a.name)) for a in self.schema.groups[group]}

        def member() -> str:
            what = f"a member of {group!r} ({', '.join(has)})"
            return self.spelled(what, lambda text: self.schema.attributes[self.schema.member(group, text)].member)

        if self.take("="):
            if not self.take("{"):
                return has[member()]
            wanted = set() if self.take("}") else self.listed(member)
            parts: list[Formula] = [atom if key in wanted else Not(atom) for key, atom in has.items()]
            return And(tuple(parts)) if len(parts) > 1 else parts[0]
        if self.take("in"):
            self.expect("{")
            chosen = self.listed(member)
            return Or(tuple(has[key] for key in has if key in chosen)) if len(chosen) > 1 else has[chosen.pop()]
        expected = (
            f"{group!r} is a group: expected {group}=MEMBER, {group} in {{MEMBER, ...}} or {group}={{MEMBER, ...}}"
        )
        problem = f"{expected} with a member of {', '.join(has)}; got {self.token}"
        self.fail(problem, name.column if self.token.kind == "end" else self.token.column)

    def categorical(self, attribute: Attribute, column: int, name: Token) -> Atom:
        if self.take("="):
            return OneOf(attribute, column, (self.value(attribute),))
        if self.take("in"):
            self.expect("{")
            return OneOf(attribute, column, tuple(self.listed(lambda: self.value(attribute))))
        n, values = attribute.name, ", ".join(attribute.values)
        if self.token.text in (*COMPARISONS, "=>", "=<"):
            if attribute.ordered:
                return self.ordinal(attribute, column)
            self.fail(
                f"the values of {n!r} have no order: write {n}=VALUE or {n} in {{VALUE, ...}} with a value of "
                f"{values}; if they ascend, say `ordered: true` in the schema, and train the classifier anew",
                self.token.column,
            )
        compared = f", {n}>=VALUE" if attribute.ordered else ""
        expected = (
            f"{n!r} is categorical: expected {n}=VALUE{compared} or {n} in {{VALUE, ...}} with a value of {values}"
        )
        self.fail(f"{expected}; got {self.token}", name.column if self.token.kind == "end" else None)

    def ordinal(self, attribute: Attribute, column: int) -> Atom:
        relation = self.take(*COMPARISONS)
        if relation is None:
            wanted = self.token.text[::-1]
            self.fail(f"expected one of {' '.join(COMPARISONS)}, got {self.token}; write `{wanted}`", self.token.column)
        told, index, top = self.token, self.value(attribute), len(attribute.values)
        first, end = {
            "<": (0, index), "<=": (0, index + 1), ">": (index + 1, top), ">=": (index, top)
        }[relation.text]  # fmt: skip
        if first == end:
            side = "below its least" if relation.text == "<" else "above its greatest"
            self.fail(f"{attribute.name!r} is never {side} value, {attribute.values[index]!r}", told.column)
        return OneOf(attribute, column, tuple(range(first, end)))

    def listed(self, item: Callable[[], Spelled]) -> set[Spelled]:
        """What stands up to the closing brace, at least one."""
        found = {item()}
        while self.take(","):
            found.add(item())
        if not self.take("}"):
            self.fail(f"expected `,` or `}}`, got {self.token}")
        return found

    def continuous(self, attribute: Attribute, column: int, name: Token) -> Atom:
        if self.targets and self.take("="):
            return Near(attribute, column, self.number("a target")[0])
        relation = self.take(">", "<")
        if relation is None:
            n = attribute.name
            expected = f"{n!r} is continuous: expected {n}>NUMBER or {n}<NUMBER"
            self.fail(f"{expected}; got {self.token}", name.column if self.token.kind == "end" else None)
        threshold, _ = self.number("a threshold")
        return Beyond(attribute, column, threshold, relation.text == ">")

    def value(self, attribute: Attribute) -> int:
        return self.spelled(f"a value of {attribute.name!r} ({', '.join(attribute.values)})", attribute.value_index)

    def spelled(self, what: str, read: Callable[[str], Spelled]) -> Spelled:
        """What `read` makes of the next token, a word, a number or a quoted text."""
        token = self.token
        if token.kind not in ("word", "number", "text"):
            self.fail(f"expected {what}, got {token}")
        try:
            found = read(json.loads(token.text) if token.kind == "text" else token.text)
        except json.JSONDecodeError as error:
            self.fail(
                'a quoted value is written as in JSON, \\" for a quote and \\\\ for a backslash; cannot read the rest',
                token.column + error.pos,
            )
        except ValueError as error:
            self.fail(str(error), token.column)
        self.position += 1
        return found

    def number(self, what: str) -> tuple[float, int]:
        token = self.token
        if token.kind != "number":
            self.fail(f"expected {what}, a number such as 0.5, got {token}")
        value = float(token.text)
        if not math.isfinite(value):
            self.fail(f"{what} must be finite, got {token}")
        self.position += 1
        return value, token.column


def _word_at(text: str, start: int) -> str:
    """The longest run of letters, digits and whatever else continues an identifier, such as combining marks."""
    end = start
    while end < len(text) and (text[end].isalnum() or f"a{text[end]}".isidentifier()):
        end += 1
    return text[start:end]
