"""Edits of several people in one evaluation of the networks: source i as request i asks.

    eps_hat(z_t)_i = eps_theta(z_t, t)_i - sigma_t grad [w log P(edits_i | z_t) + kept_i + source_i](z_t)_i

A step on one latent spends its time on reading the networks' weights, a step on several reads them once. Rows know
nothing of each other, so every row is what `GuidedEditor.edit` makes of it alone, but for rounding: matrices of another
shape are summed in another order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lcg.editing.contract import EditRequest
from lcg.editing.guided import GuidedEditor, formula_of
from lcg.guidance import BeliefReadout, ClassifierTerm, EachRow, FormulaReadout, GuidedDenoiser
from lcg.guidance.formula import Near
from lcg.guidance.terms import PriorTerm, Readout, Term


def may_share(editor: GuidedEditor, request: EditRequest) -> bool:
    """Whether a request can be answered together with others: it draws no noise and asks for no number."""
    numbers = isinstance(editor.weight, int | float) and isinstance(editor.keep_weight, int | float)
    plain = editor.start == "inversion" and not editor.free and editor.layers is None
    return numbers and plain and not any(isinstance(f, Near) for edit in request.edits for f, _ in edit.conjuncts)


def edit_each(
    editors: Sequence[GuidedEditor], sources: Sequence[Tensor], requests: Sequence[EditRequest]
) -> list[Tensor]:
    """Edits every source as its own request asks.

    Args:
        editors: one for each source, which remembers its inversion; with the same networks and settings.
        sources: z_0 (1, *latent) each.
        requests: of each, all with `may_share`.

    Returns:
        The edited latents (1, *latent) of each.
    """
    first, z_0 = editors[0], torch.cat(list(sources))
    rows = list(zip(editors, sources, requests, strict=True))
    far = [float(editor.strength if request.strength is None else request.strength) for editor, _, request in rows]
    strength = torch.tensor(far, dtype=z_0.dtype, device=z_0.device)
    terms: list[Term | PriorTerm] = [ClassifierTerm(first.classifier, _readouts(rows))]
    if bool((strength < 1).any()):
        terms.append(first.source_term(z_0, requests[0], strength))
    guided = GuidedDenoiser(first.denoiser, terms, first.sampler.schedule, max_step=first.max_step)
    start = torch.cat([editor.noised(source) for editor, source, _ in rows])
    edited = first.sampler.sample(guided, start, None, t_start=first.t_start)
    untouched = (strength == 0).reshape(-1, *(1,) * (z_0.ndim - 1))
    return list(torch.where(untouched, z_0, edited).split(1))


def _readouts(rows: Sequence[tuple[GuidedEditor, Tensor, EditRequest]]) -> list[tuple[Readout, float | Tensor]]:
    """What is asked of each row, equal formulas read together, and what is kept of each."""
    first = rows[0][0]
    wanted = [formula for _, _, request in rows if (formula := formula_of(request.edits)) is not None]
    numbers = {formula: number for number, formula in enumerate(dict.fromkeys(wanted))}
    which = torch.tensor([numbers[formula] for formula in wanted], device=rows[0][1].device)
    formulas = EachRow([FormulaReadout(formula, first.dependence) for formula in numbers], which)
    readouts: list[tuple[Readout, float | Tensor]] = [(formulas, first.weight)]
    kept = [editor.kept(source, request) for editor, source, request in rows]
    asked = torch.cat([asked for _, asked in kept])
    if first.keep_weight and bool(asked.any()):
        beliefs = {name: torch.cat([own[name] for own, _ in kept]) for name in kept[0][0]}
        readouts.append((BeliefReadout(first.schema, beliefs, asked), first.keep_weight))
    return readouts
