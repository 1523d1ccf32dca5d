"""What the processes of a run tell each other when they judge a model together."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import distributed

if TYPE_CHECKING:
    from torch import nn

Found = TypeVar("Found")


def share_statistics(model: nn.Module, processes: int) -> None:
    """Give all processes the first one's statistics, which are those that are kept."""
    for buffer in model.buffers() if processes > 1 else ():
        distributed.broadcast(buffer, src=0)


def gather(found: Found, processes: int) -> list[Found]:
    """What each process found, in the order of the processes; the same list in all of them."""
    if processes == 1:
        return [found]
    gathered: list[Found] = [found] * processes
    distributed.all_gather_object(gathered, found)
    return gathered
