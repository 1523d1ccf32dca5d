"""Ops: one contract each, computed by a compiled kernel where there is one and by plain PyTorch elsewhere."""

from detkd.ops._extension import build_info, load_error
from detkd.ops.attention_mse import attention_mse
from detkd.ops.attention_transfer import attention_transfer
from detkd.ops.binary_kl import binary_kl
from detkd.ops.kl_div import kl_div
from detkd.ops.standardized_mse import standardized_mse

__all__ = [
    "attention_mse",
    "attention_transfer",
    "binary_kl",
    "build_info",
    "kl_div",
    "load_error",
    "standardized_mse",
]
