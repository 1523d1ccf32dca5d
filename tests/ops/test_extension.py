"""The ops where the extension is not built."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, warnings
sys.modules["detkd._C"] = None  # as if it had not been built
import torch
from detkd.errors import BackendError
from detkd import ops

torch.manual_seed(0)
student, teacher = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5)
low = torch.ops.detkd
calls = {
    "kl_div": ((1, 2.0, None, None, "mean"), dict(dim=1, temperature=2.0)),
    "binary_kl": ((2.0, 1.0, "bce", None, "mean"), dict(temperature=2.0, beta=1.0, kind="bce")),
    "attention_transfer": ((2.0,), {}),
    "attention_mse": ((None, 0.5, 0.1), dict(attention_gain=0.1)),
    "standardized_mse": ((1e-6,), {}),
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, (positional, named) in calls.items():
        op = getattr(ops, name)
        expected = op(student, teacher, **named, backend="reference")
        (slope,) = torch.autograd.grad(expected, student)
        torch.testing.assert_close(op(student, teacher, **named), expected)
        loss, gradient = getattr(low, name)(student, teacher, *positional, True)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, slope)
        torch.testing.assert_close(torch.autograd.grad(loss, student)[0], slope)
        assert getattr(low, name)(student.detach(), teacher, *positional, False)[1].numel() == 0
        try:
            op(student, teacher, **named, backend="fused")
        except BackendError as error:
            assert "detkd._C" in str(error)
        else:
            raise AssertionError(name)
assert [w.category for w in caught] == [RuntimeWarning], caught
"""


def test_without_the_extension_the_same_ops_exist_and_one_warning_says_so() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
