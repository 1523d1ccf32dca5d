"""Distillation losses: a function and a module for each method, on tensors alone.

The parameter names of a module's ``forward`` are its contract with :class:`detkd.distiller.Distiller`, which passes each
the tensor of that name. See there for the vocabulary.
"""

from torch import nn

from detkd.losses.bckd import BCKD, bckd
from detkd.losses.ld import LD, ld, valuable_region
from detkd.losses.pkd import PKD, pkd
from detkd.losses.score_l2 import ScoreL2, score_l2
from detkd.losses.soft_kl import SoftKL, soft_kl

LOSSES: dict[str, type[nn.Module]] = {
    "bckd": BCKD,
    "ld": LD,
    "pkd": PKD,
    "score_l2": ScoreL2,
    "soft_kl": SoftKL,
}

__all__ = [
    "BCKD",
    "LD",
    "LOSSES",
    "PKD",
    "ScoreL2",
    "SoftKL",
    "bckd",
    "ld",
    "pkd",
    "score_l2",
    "soft_kl",
    "valuable_region",
]
