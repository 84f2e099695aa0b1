"""The exact log-probability of a formula, given what a classifier says about the attributes.

When distinct attributes are independent given z_t, the formula's probability is a weighted model count

    P(F | z_t) = sum_{v satisfies F} prod_j p(v_j | z_t)

over joint values v of the attributes used. Each attribute's values are first cut into the finitely many cells that F
can tell apart (yes and no, the categories, the intervals between thresholds). Shannon's expansion, one attribute after
the other,

    P(F) = sum_c P(j in c) P(F | j in c),

then ends in a reduced ordered decision diagram (Bryant 1986, "Graph-based algorithms for Boolean function
manipulation"; Chavira & Darwiche 2008 for counting on it), in which equal sub-formulas are shared. A reduced diagram
depends on the formula's meaning and the order of attributes only, so De Morgan duals, double negations and other
rewritings give the same numbers and the same gradients. All of it is in log space and only ever adds probabilities:
`~F` exchanges the diagram's leaves and is never computed as log(1 - P). Conjuncts without a common attribute have a
diagram each, and their logarithms add up: a plain conjunction of distinct attributes is the sum of its atoms'
log-probabilities, as in the paper (Shi et al. 2023, arXiv:2304.12536).

Independence given z_t is an approximation. A joint head is a mixture of products, and the formula's probability under
it is the mixture of what independence gives within each component,

    P(F | z_t) = sum_k pi_k(z_t) P_k(F | z_t),

as exact as the head, at the price of K evaluations of diagrams that cost next to nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lcg.guidance.formula import And, Atom, Beyond, Formula, Not, Or, Weighted
from lcg.nets.heads import JointOutputs
from lcg.schema import Attribute, unknown_name

FALSE, TRUE = 0, 1  # the leaves of every diagram
MAX_NODES = 20_000  # a diagram this large comes from a formula that nobody wants to evaluate at every step


def log_probability(formula: Formula, outputs: Mapping[str, Tensor] | JointOutputs) -> Float[Tensor, " batch"]:
    """log P(formula | z_t), exact for the distribution of the attributes that the outputs stand for.

    To evaluate one formula often, compile it once: `CompiledFormula(formula)(outputs)`.

    Args:
        formula: what should hold. Weighted conjuncts count w_i log P(conjunct_i); the others are taken jointly.
        outputs: a classifier's raw outputs by attribute: binary (B,) logits, categorical (B, C) logits, continuous (B,
            2) = (mean, log-variance), independent; or a joint head's.

    Returns:
        (B,), at most 0 up to rounding; -inf for a formula that can never hold. Float64 for float64 outputs, else
        float32.

    Raises:
        ValueError: an output is missing or has the wrong shape, or the formula is too large (see `CompiledFormula`).
    """
    return CompiledFormula(formula)(outputs)


class CompiledFormula:
    """A formula made ready to be evaluated at every step.

    Args:
        formula: what should hold.

    Raises:
        ValueError: the decision diagram has more than `MAX_NODES` nodes.

    Attributes:
        satisfiable: False if the formula can never hold, whatever the labels: its log-probability is -inf.
        tautological: True if its log-probability is 0 everywhere: it always holds, or nothing in it has a weight.

    Example:
        >>> from lcg.guidance import parse
        >>> from lcg.schema import Schema
        >>> schema = Schema((Attribute("hat"), Attribute("smile")))
        >>> outputs = {"hat": torch.tensor([0.8]).logit(), "smile": torch.tensor([0.5]).logit()}
        >>> for text in ("hat & smile", "hat | smile", "~(~hat & ~smile)"):
        ...     print(text, round(float(CompiledFormula(parse(text, schema))(outputs).exp()), 4))
        ...
        hat & smile 0.4
        hat | smile 0.9
        ~(~hat & ~smile) 0.9
        >>> CompiledFormula(parse("hat & ~hat", schema)).satisfiable
        False
    """

    def __init__(self, formula: Formula) -> None:
        self.formula = formula
        # Weights do not make a contradiction possible, not even one between conjuncts of different weights.
        every = _independent(part for part, _ in formula.conjuncts)
        self.satisfiable = all(Diagram(group).root != FALSE for group in every)
        self.literals: dict[float, list[tuple[Attribute, bool]]] = {}  # by weight; binary attributes, wanted or not
        self.diagrams: list[tuple[float, Diagram]] = []
        joint = [part for part, weight in formula.conjuncts if weight == 1.0]
        weighted = [([part], weight) for part, weight in formula.conjuncts if weight != 1.0]
        for group, weight in [*((group, 1.0) for group in _independent(joint)), *weighted]:
            self._add(Diagram(group), weight)

    def _add(self, diagram: "Diagram", weight: float) -> None:
        if (literal := diagram.literal) is not None:
            self.literals.setdefault(weight, []).append(literal)
        elif diagram.root not in (FALSE, TRUE):
            self.diagrams.append((weight, diagram))

    @property
    def tautological(self) -> bool:
        """Whether it holds whatever the labels are, so that there is nothing to guide by."""
        asked = any(self.literals.keys()) or any(weight for weight, _ in self.diagrams)
        return self.satisfiable and not asked

    def __call__(self, outputs: Mapping[str, Tensor] | JointOutputs) -> Float[Tensor, " batch"]:
        """The log-probability (B,); see `log_probability`."""
        independent: Mapping[str, Tensor]
        if isinstance(outputs, JointOutputs):
            independent, mix = outputs.rows(), outputs.mix
        else:
            independent, mix = outputs, _as_it_is
        heads = {a.attribute.name: _head(a.attribute, independent) for a in self.formula.atoms()}
        # Conjuncts without a weight hold together, in one component; one with a weight is climbed by itself.
        together, apart = [], []
        for weight, literals in self.literals.items():
            signed = torch.stack([heads[a.name] if wanted else -heads[a.name] for a, wanted in literals], dim=-1)
            log_p = functional.logsigmoid(signed)  # all of them in one kernel
            if weight == 1.0:
                together.append(log_p.sum(-1))
            else:
                apart.append(weight * mix(log_p).sum(-1))
        for weight, diagram in self.diagrams:
            if weight == 1.0:
                together.append(diagram.log_probability(heads))
            else:
                apart.append(weight * mix(diagram.log_probability(heads)))
        if together:
            apart.append(mix(_sum(together)))
        if not apart or not self.satisfiable:
            head = next(iter(heads.values()))
            certain = mix(head.new_zeros(len(head)))
            return certain if self.satisfiable else certain - math.inf
        return _sum(apart)


@dataclass(frozen=True)
class Domain:
    """The cells of one attribute that a formula can tell apart."""

    attribute: Attribute
    thresholds: tuple[float, ...]

    @property
    def size(self) -> int:
        """The number of cells."""
        return {"binary": 2, "categorical": len(self.attribute.values), "continuous": len(self.thresholds) + 1}[
            self.attribute.kind
        ]

    def log_probability(self, cells: frozenset[int], head: Tensor) -> Float[Tensor, " batch"]:
        """log P(the attribute's value lies in these cells), (B,); neither none of the cells nor all."""
        if self.attribute.kind == "binary":
            return functional.logsigmoid(head if 1 in cells else -head)
        if self.attribute.kind == "categorical":
            return log_among(head, cells)
        runs = []
        for first in sorted(c for c in cells if c - 1 not in cells):  # unions of neighbouring intervals are intervals
            last = next(c for c in range(first, self.size) if c + 1 not in cells)
            lower = self.thresholds[first - 1] if first > 0 else None
            upper = self.thresholds[last] if last < self.size - 1 else None
            runs.append(log_between(head[:, 0], head[:, 1], lower, upper))
        return _log_sum(runs)


class Diagram:
    """The reduced ordered decision diagram of a conjunction.

    A node asks for the cell of one attribute and leads to one child per cell; attributes are asked in order of first
    use. Nodes are numbered, leaves first, children before parents. Equal nodes are one node, and a node whose children
    are all the same is that child; so equivalent formulas over the same order have the same diagram.

    Args:
        conjuncts: at least one formula.

    Raises:
        ValueError: more than `MAX_NODES` nodes.
    """

    def __init__(self, conjuncts: Iterable[Formula]) -> None:
        self.nodes: list[tuple[int, tuple[int, ...]]] = [(-1, ()), (-1, ())]  # (level, children); the leaves have none
        self._numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        self._memo: dict[tuple[int, ...], int] = {}
        conjuncts = tuple(conjuncts)
        self.domains = _domains(atom for conjunct in conjuncts for atom in conjunct.atoms())
        self._levels = {domain.attribute.name: level for level, domain in enumerate(self.domains)}
        self.root = self._all(conjuncts)
        self.steps = self._plan()

    @property
    def literal(self) -> tuple[Attribute, bool] | None:
        """(attribute, wanted) if all that is asked is whether one binary attribute holds."""
        level, children = self.nodes[self.root]
        if level < 0 or self.domains[level].attribute.kind != "binary" or max(children) > TRUE:
            return None
        return self.domains[level].attribute, children == (FALSE, TRUE)

    def log_probability(self, heads: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
        """Sums the paths that lead to TRUE, in log space, from the leaves up."""
        cells: dict[tuple[int, frozenset[int]], Tensor] = {}
        values: dict[int, Tensor] = {}
        for number, level, branches in self.steps:
            paths = []
            for chosen, child in branches:
                if (level, chosen) not in cells:
                    domain = self.domains[level]
                    cells[level, chosen] = domain.log_probability(chosen, heads[domain.attribute.name])
                step = cells[level, chosen]
                paths.append(step if child == TRUE else step + values[child])
            values[number] = _log_sum(paths)
        return values[self.root]

    def _plan(self) -> list[tuple[int, int, list[tuple[frozenset[int], int]]]]:
        """(node, level, [(cells, child)]) for every node under the root, children first, without the way to FALSE."""
        reachable, open_ = set(), [self.root]
        while open_:
            number = open_.pop()
            if number not in reachable and number > TRUE:
                reachable.add(number)
                open_.extend(self.nodes[number][1])
        steps = []
        for number in sorted(reachable):
            level, children = self.nodes[number]
            by_child: dict[int, set[int]] = {}
            for cell, child in enumerate(children):
                by_child.setdefault(child, set()).add(cell)
            branches = [(frozenset(cells), child) for child, cells in by_child.items() if child != FALSE]
            steps.append((number, level, branches))
        return steps

    # --- the algebra of diagrams: formulas to nodes ---

    def _build(self, formula: Formula) -> int:
        if isinstance(formula, Atom):
            level = self._levels[formula.name]
            true = formula.cells(self.domains[level].thresholds)
            return self._node(level, tuple(int(cell in true) for cell in range(self.domains[level].size)))
        if isinstance(formula, Not):
            return self._negation(self._build(formula.operand))
        if isinstance(formula, And):
            return self._all(formula.operands)
        if isinstance(formula, Or):  # De Morgan; the diagram is the same by whatever way it was built
            return self._negation(self._all(map(Not, formula.operands)))
        if isinstance(formula, Weighted):
            return self._build(formula.operand)
        raise TypeError(f"`formula` must be built from Atom, Not, And, Or and weights, got {type(formula).__name__}")

    def _all(self, formulas: Iterable[Formula]) -> int:
        result = TRUE
        for formula in formulas:
            result = self._conjunction(result, self._build(formula))
        return result

    def _node(self, level: int, children: tuple[int, ...]) -> int:
        if min(children) == max(children):
            return children[0]
        key = (level, children)
        if key not in self._numbers:
            if len(self.nodes) >= MAX_NODES:
                raise ValueError(
                    f"the formula's decision diagram must have at most {MAX_NODES} nodes, got more; "
                    "use fewer attributes, or name those that belong together next to each other"
                )
            self._numbers[key] = len(self.nodes)
            self.nodes.append(key)
        return self._numbers[key]

    def _negation(self, number: int) -> int:
        if number <= TRUE:
            return TRUE - number
        if (number,) not in self._memo:
            level, children = self.nodes[number]
            self._memo[number,] = self._node(level, tuple(map(self._negation, children)))
        return self._memo[number,]

    def _conjunction(self, a: int, b: int) -> int:
        if FALSE in (a, b):
            return FALSE
        if a == b or b == TRUE:
            return a
        if a == TRUE:
            return b
        key = (min(a, b), max(a, b))
        if key not in self._memo:
            (level_a, children_a), (level_b, children_b) = self.nodes[a], self.nodes[b]
            level = min(level_a, level_b)
            size = self.domains[level].size
            children_a = children_a if level_a == level else (a,) * size
            children_b = children_b if level_b == level else (b,) * size
            self._memo[key] = self._node(level, tuple(map(self._conjunction, children_a, children_b)))
        return self._memo[key]


# --- probabilities of sets of values ---


def log_among(logits: Float[Tensor, "batch values"], chosen: frozenset[int]) -> Float[Tensor, " batch"]:
    """log P(the category is one of `chosen`), (B,), under softmax(logits).

    P = sigmoid(lse(chosen) - lse(others)) with lse = log-sum-exp, accurate where P is near 1 as well as where it is
    near 0.
    """
    inside = [logits[:, c] for c in range(logits.shape[1]) if c in chosen]
    outside = [logits[:, c] for c in range(logits.shape[1]) if c not in chosen]
    return functional.logsigmoid(_log_sum(inside) - _log_sum(outside))


def log_between(
    mean: Float[Tensor, " batch"], log_variance: Float[Tensor, " batch"], lower: float | None, upper: float | None
) -> Float[Tensor, " batch"]:
    """log P(lower < y < upper) for y ~ N(mean, exp(log_variance)), (B,); None is no bound, not both.

    A tail is log Phi, accurate arbitrarily far out. Between two bounds, in units of the standard deviation,
    log(Phi(b) - Phi(a)) = log Phi(b) + log(1 - Phi(a)/Phi(b)), mirrored into the lower tail where both factors are
    accurate; for intervals so narrow that the quotient rounds to 1 it is the density at the middle times the width.
    """
    scale = torch.exp(-0.5 * log_variance)
    if upper is None:
        if lower is None:
            raise ValueError("`lower` and `upper` must not both be None, got no bound; the probability would be 1")
        return log_ndtr((mean - lower) * scale)
    if lower is None:
        return log_ndtr((upper - mean) * scale)
    a, b, width = (lower - mean) * scale, (upper - mean) * scale, (upper - lower) * scale
    mirror = a + b > 0
    a, b = torch.where(mirror, -b, a), torch.where(mirror, -a, b)
    middle = 0.5 * (a + b)
    density = -0.5 * middle.square() - 0.5 * math.log(2 * math.pi) + torch.log(width)
    narrow = width * (1 + middle.abs()) < 1e-2  # the density's relative error there is below 1e-5
    log_a, log_b = log_ndtr(a), log_ndtr(b)
    quotient = torch.where(narrow, -torch.ones_like(log_a), log_a - log_b)  # in logarithms, and < 0 in either branch
    return torch.where(narrow, density, log_b + _log1mexp(quotient))


def log_ndtr(x: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """log Phi(x), (B,), Phi the standard normal distribution function; in value and in slope accurate far out.

    Phi'/Phi = sqrt(2 / pi) / erfcx(-x / sqrt 2). The gradient of `torch.special.log_ndtr` is exp of a difference of
    large numbers instead, which in float32 is off by 4 % at x = -1e3 and by a factor of 6 at x = -1e4.
    """
    return _LogNdtr.apply(x)


class _LogNdtr(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.log_ndtr(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * math.sqrt(2 / math.pi) / torch.special.erfcx(-x * math.sqrt(0.5))


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 (Maechler 2012); each branch is kept away from where its gradient is infinite."""
    near = x > -math.log(2)
    log_of_expm1 = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    log1p_of_exp = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, log_of_expm1, log1p_of_exp)


def _log_sum(logs: list[Tensor]) -> Tensor:
    """log sum_i exp(logs_i)."""
    if len(logs) == 1:
        return logs[0]
    return torch.logaddexp(*logs) if len(logs) == 2 else torch.logsumexp(torch.stack(logs), dim=0)


def _as_it_is(log_p: Tensor) -> Tensor:
    return log_p


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _domains(atoms: Iterable[Atom]) -> list[Domain]:
    """The attributes in order of first use, each with the thresholds that atoms put on it."""
    attributes: dict[str, Attribute] = {}
    thresholds: dict[str, set[float]] = {}
    for atom in atoms:
        attributes[atom.name] = atom.attribute
        thresholds.setdefault(atom.name, set()).update({atom.threshold} if isinstance(atom, Beyond) else ())
    return [Domain(attribute, tuple(sorted(thresholds[name]))) for name, attribute in attributes.items()]


def _independent(conjuncts: Iterable[Formula]) -> list[list[Formula]]:
    """Groups of conjuncts such that no attribute occurs in two groups."""
    groups: list[list[Formula]] = []
    for conjunct in conjuncts:
        used = set(conjunct.attributes)
        touched = [group for group in groups if any(used & set(member.attributes) for member in group)]
        groups = [group for group in groups if group not in touched]
        groups.append([*(member for group in touched for member in group), conjunct])
    return groups


def _head(attribute: Attribute, outputs: Mapping[str, Tensor]) -> Tensor:
    """The attribute's output in float32 at least, checked."""
    if attribute.name not in outputs:
        raise unknown_name("attribute", attribute.name, outputs, "the classifier")
    head = outputs[attribute.name]
    shape = head.shape[1:]
    if head.ndim == 0 or shape != (() if attribute.kind == "binary" else (attribute.outputs,)):
        expected = "(batch,)" if attribute.kind == "binary" else f"(batch, {attribute.outputs})"
        raise ValueError(
            f"the output of {attribute.kind} attribute {attribute.name!r} must have shape {expected}, got "
            f"{tuple(head.shape)}; use a classifier trained with the same schema"
        )
    return head if head.dtype == torch.float64 else head.float()
