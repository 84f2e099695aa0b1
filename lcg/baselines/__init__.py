"""The competing methods behind lcg's own contracts, so that the benchmark is one loop."""

from lcg.baselines.composable import ComposableDiffusion
from lcg.baselines.contract import Baseline, Training
from lcg.baselines.directions import UnsupervisedDirections
from lcg.baselines.energy import EnergyGuidance
from lcg.baselines.gradctrl import GradCtrl
from lcg.baselines.interfacegan import InterFaceGAN
from lcg.baselines.lace import LACE
from lcg.baselines.latent_arithmetic import LatentArithmetic
from lcg.baselines.potential_flow import PotentialFlowTraversal
from lcg.baselines.ppgn import PPGN
from lcg.baselines.styleflow import StyleFlow

__all__ = [
    "LACE",
    "PPGN",
    "Baseline",
    "ComposableDiffusion",
    "EnergyGuidance",
    "GradCtrl",
    "InterFaceGAN",
    "LatentArithmetic",
    "PotentialFlowTraversal",
    "StyleFlow",
    "Training",
    "UnsupervisedDirections",
]
