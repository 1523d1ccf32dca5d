"""Evaluation for a while."""

from __future__ import annotations

import pytest
from torch import nn

from detkd.modes import evaluating


def test_each_module_goes_back_to_its_own_mode_also_after_a_fault() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.Dropout()))
    model[1].eval()
    before = [module.training for module in model.modules()]
    assert before == [True, True, False, True, True]
    with pytest.raises(RuntimeError, match="fault"), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError("fault")
    assert [module.training for module in model.modules()] == before
