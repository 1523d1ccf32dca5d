"""Distillation losses: a function and a module for each method, on tensors alone.

The parameter names of a module's ``forward`` are its contract with :class:`detkd.distiller.Distiller`, which passes each
the tensor of that name. See :mod:`detkd.vocabulary` for the names.
"""

from torch import nn

from detkd.losses.adversarial import Adversarial, adversarial
from detkd.losses.at import AT, at
from detkd.losses.attention_map import AttentionMap, attention_map
from detkd.losses.bckd import BCKD, bckd
from detkd.losses.bounded_box import BoundedBox, bounded_box
from detkd.losses.byot import BYOT, byot
from detkd.losses.class_label import ClassLabel, class_label
from detkd.losses.consistency import Consistency, consistency
from detkd.losses.cross_kd import CrossKD
from detkd.losses.cwd import CWD, cwd
from detkd.losses.detection_label import DetectionLabel, detection_label
from detkd.losses.dist import DIST, dist
from detkd.losses.dkd import DKD, dkd
from detkd.losses.fgd import FGD, object_weights
from detkd.losses.fitnet import FitNet, fitnet
from detkd.losses.hard_label import HardLabel, hard_label
from detkd.losses.hidden_state import HiddenState, hidden_state
from detkd.losses.ld import LD, box_ld, ld, valuable_region
from detkd.losses.mask_kd import MaskKD, mask_kd
from detkd.losses.mgd import MGD
from detkd.losses.pairwise import Pairwise, pairwise
from detkd.losses.pixel_cwd import PixelCWD, pixel_cwd
from detkd.losses.pixel_dist import PixelDIST, pixel_dist
from detkd.losses.pixel_kl import PixelKL, pixel_kl
from detkd.losses.pixel_label import PixelLabel, pixel_label
from detkd.losses.pkd import PKD, pkd
from detkd.losses.region_label import RegionLabel, region_label
from detkd.losses.region_mask import RegionMask, region_mask
from detkd.losses.rkd import RKD, rkd
from detkd.losses.score_l2 import ScoreL2, score_l2
from detkd.losses.soft_kl import SoftKL, soft_kl
from detkd.losses.sp import SP, sp

LOSSES: dict[str, type[nn.Module]] = {
    "adversarial": Adversarial,
    "at": AT,
    "attention_map": AttentionMap,
    "bckd": BCKD,
    "bounded_box": BoundedBox,
    "byot": BYOT,
    "class_label": ClassLabel,
    "consistency": Consistency,
    "cross_kd": CrossKD,
    "cwd": CWD,
    "detection_label": DetectionLabel,
    "dist": DIST,
    "dkd": DKD,
    "fgd": FGD,
    "fitnet": FitNet,
    "hard_label": HardLabel,
    "hidden_state": HiddenState,
    "ld": LD,
    "mask_kd": MaskKD,
    "mgd": MGD,
    "pairwise": Pairwise,
    "pixel_cwd": PixelCWD,
    "pixel_dist": PixelDIST,
    "pixel_kl": PixelKL,
    "pixel_label": PixelLabel,
    "pkd": PKD,
    "region_label": RegionLabel,
    "region_mask": RegionMask,
    "rkd": RKD,
    "score_l2": ScoreL2,
    "soft_kl": SoftKL,
    "sp": SP,
}

__all__ = [
    "AT",
    "BCKD",
    "BYOT",
    "CWD",
    "DIST",
    "DKD",
    "FGD",
    "LD",
    "LOSSES",
    "MGD",
    "PKD",
    "RKD",
    "SP",
    "Adversarial",
    "AttentionMap",
    "BoundedBox",
    "ClassLabel",
    "Consistency",
    "CrossKD",
    "DetectionLabel",
    "FitNet",
    "HardLabel",
    "HiddenState",
    "MaskKD",
    "Pairwise",
    "PixelCWD",
    "PixelDIST",
    "PixelKL",
    "PixelLabel",
    "RegionLabel",
    "RegionMask",
    "ScoreL2",
    "SoftKL",
    "adversarial",
    "at",
    "attention_map",
    "bckd",
    "bounded_box",
    "box_ld",
    "byot",
    "class_label",
    "consistency",
    "cwd",
    "detection_label",
    "dist",
    "dkd",
    "fitnet",
    "hard_label",
    "hidden_state",
    "ld",
    "mask_kd",
    "object_weights",
    "pairwise",
    "pixel_cwd",
    "pixel_dist",
    "pixel_kl",
    "pixel_label",
    "pkd",
    "region_label",
    "region_mask",
    "rkd",
    "score_l2",
    "soft_kl",
    "sp",
    "valuable_region",
]
