"""Guidance: what samples should satisfy, as log-probabilities whose gradients steer the prior's denoiser.

Formulas over attributes (`parse`) and labels to keep become readouts of a classifier of noised latents; the source of
an edit becomes an observation; `GuidedDenoiser` adds their scores to the prior's, eps_hat = eps_theta - sigma_t G.
"""

from lcg.guidance.consistency import GuidedConsistency
from lcg.guidance.feynman_kac import FeynmanKac
from lcg.guidance.formula import And, Atom, Formula, Not, Or, Weighted
from lcg.guidance.guided import GuidedDenoiser
from lcg.guidance.logic import FormulaError, parse, parse_edit
from lcg.guidance.particles import Particles
from lcg.guidance.probability import CompiledFormula, log_probability
from lcg.guidance.rows import EachRow
from lcg.guidance.source import SourceMode, SourceTerm
from lcg.guidance.support import Support, assess, without_weights
from lcg.guidance.terms import (
    BeliefReadout,
    Classifier,
    ClassifierTerm,
    Dependence,
    FormulaReadout,
    LabelReadout,
    LayeredTerm,
    PriorTerm,
    Readout,
    Term,
)
from lcg.guidance.twisted import TwistedSMC

__all__ = [
    "And",
    "Atom",
    "BeliefReadout",
    "Classifier",
    "ClassifierTerm",
    "CompiledFormula",
    "Dependence",
    "EachRow",
    "FeynmanKac",
    "Formula",
    "FormulaError",
    "FormulaReadout",
    "GuidedConsistency",
    "GuidedDenoiser",
    "LabelReadout",
    "LayeredTerm",
    "Not",
    "Or",
    "Particles",
    "PriorTerm",
    "Readout",
    "SourceMode",
    "SourceTerm",
    "Support",
    "Term",
    "TwistedSMC",
    "Weighted",
    "assess",
    "log_probability",
    "parse",
    "parse_edit",
    "without_weights",
]
