"""Guidance: what samples should satisfy, as log-probabilities whose gradients steer the prior's denoiser.

Formulas over attributes (`parse`) and labels to keep become readouts of a classifier of noised latents; the source of
an edit becomes an observation; `GuidedDenoiser` adds their scores to the prior's, eps_hat = eps_theta - sigma_t G.
"""

from lcg.guidance.formula import And, Atom, Formula, Not, Or, Weighted
from lcg.guidance.guided import GuidedDenoiser
from lcg.guidance.logic import FormulaError, parse, parse_edit
from lcg.guidance.probability import CompiledFormula, log_probability
from lcg.guidance.source import SourceMode, SourceTerm
from lcg.guidance.terms import Classifier, ClassifierTerm, FormulaReadout, LabelReadout, PriorTerm, Readout, Term

__all__ = [
    "And",
    "Atom",
    "Classifier",
    "ClassifierTerm",
    "CompiledFormula",
    "Formula",
    "FormulaError",
    "FormulaReadout",
    "GuidedDenoiser",
    "LabelReadout",
    "Not",
    "Or",
    "PriorTerm",
    "Readout",
    "SourceMode",
    "SourceTerm",
    "Term",
    "Weighted",
    "log_probability",
    "parse",
    "parse_edit",
]
