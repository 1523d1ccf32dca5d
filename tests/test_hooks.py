"""Activations are captured by module path, and let go of."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from detkd.errors import AdapterError
from detkd.hooks import Capture


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU())


def test_inputs_and_output_of_the_latest_pass_are_kept_until_cleared() -> None:
    net, x = model(), torch.ones(1, 2)
    with Capture(net, ["0", ""]) as capture:
        assert not capture.has_run("0")
        net(torch.zeros(1, 2))
        y = net(x)
        assert capture.has_run("0")
        assert capture.inputs("0")[0] is x
        assert capture.output("") is y
        capture.clear()
        with pytest.raises(AdapterError, match="ran no forward pass"):
            capture.output("0")
    net(x)
    with pytest.raises(AdapterError, match="is not attached"):
        capture.output("0")


def test_a_pause_keeps_what_was_recorded_and_adds_nothing_also_when_it_fails() -> None:
    net, x = model(), torch.ones(1, 2)
    with Capture(net, ["0"]) as capture:
        net(x)
        with pytest.raises(RuntimeError), capture.paused():
            net(torch.zeros(1, 2))
            net(torch.zeros(1, 5))
        assert capture.inputs("0")[0] is x
        other = torch.zeros(1, 2)
        net(other)
        assert capture.inputs("0")[0] is other


def test_copies_of_a_hooked_model_come_out_empty_and_run() -> None:
    net = model()
    with Capture(net, ["0"]) as capture:
        net(torch.ones(1, 2, requires_grad=True))
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            (hook,) = twin[0]._forward_hooks.values()
            assert hook.record is None
            twin(torch.ones(1, 2))
        assert capture.has_run("0")


def test_an_unknown_path_is_refused_with_what_there_is() -> None:
    with pytest.raises(AdapterError, match=r"'head'. Its direct children are \['0', '1'\]"):
        Capture(model(), ["head"])


def test_calls_are_counted_while_hooked_and_not_paused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    capture = Capture(model, ["0"])
    model(torch.zeros(1, 2))
    with capture:
        model(torch.zeros(1, 2))
        capture.clear()
        model(torch.zeros(1, 2))
        with capture.paused():
            model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))
    assert capture.calls == {"0": 2}
