from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from detkd.engines.lightning.sharding import all_whole, are_mixed, blocks, clip_gradients, is_sharded
from tests.engines.lightning.detectors import faster_rcnn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Weighing(nn.Module):
    """Reads the weight of a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.layer.weight


def paths(model: nn.Module, found: Sequence[nn.Module]) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in found]


def test_blocks_are_the_smallest_modules_of_a_thirty_second() -> None:
    def two(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU())

    # Of 413 numbers 13 make a block: the 4 of one inside another go with it, and the list itself is never called.
    model = nn.Sequential(
        nn.ModuleList([two(10), two(10)]), nn.Sequential(two(2), nn.Linear(10, 10, bias=False)), Weighing(), nn.Linear(2, 3)
    )
    assert paths(model, blocks(model)) == ["0.0", "0.1", "1", "2"]


def test_parameters_of_two_modules_are_in_no_block() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared), nn.Sequential(nn.Linear(4, 4)))
    assert paths(model, blocks(model)) == ["2"]


def test_blocks_of_a_detector_hold_most_of_it_once() -> None:
    model = faster_rcnn()
    found = blocks(model)
    assert paths(model, found) == ["backbone", "rpn.head.conv.0", "roi_heads.box_head", "roi_heads.box_predictor"]
    held = [parameter for block in found for parameter in block.parameters()]
    assert len(set(held)) == len(held)
    assert sum(p.numel() for p in held) > 0.95 * sum(p.numel() for p in model.parameters())
    assert not is_sharded(model)


def test_whole_gradients_are_clipped_as_ever() -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    clip_gradients(weights, 2.5)
    torch.testing.assert_close(weights[0].grad, torch.tensor([1.5, 0.0]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([2.0]))
    clip_gradients(weights, 2.6)
    torch.testing.assert_close(weights[1].grad, torch.tensor([2.0]))
    clip_gradients([], 1.0)
    assert not are_mixed(weights)


def test_trees_of_whole_tensors_are_left_as_they_are() -> None:
    tensor = torch.ones(2)
    tree = {"a": [tensor, (1, None)], "b": {"c": tensor}}
    found = all_whole(tree, keep=False)
    assert found["a"][0] is found["b"]["c"] is tensor
    assert found["a"][1] == (1, None)
