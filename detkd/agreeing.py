"""What processes that train together agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of each process's values, the same in all of them; the values themselves where one trains alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
