"""Sphinx's notation in docstrings becomes Markdown."""

from __future__ import annotations

import docs_losses
import pytest
from docs_docstrings import canonical, to_markdown

from detkd import losses
from detkd.losses import fgd


def test_formulas_and_references_are_rewritten() -> None:
    docstring = r"""The mean, :math:`\mathrm{KL}(p \| q)`, see
:func:`other`.

.. math::
    a
    + b

    Args:
        x: As

            .. math:: c
"""
    expected = r"""The mean, $\mathrm{KL}(p \Vert q)$, see
<other>.

```math
a
+ b
```

    Args:
        x: As

            ```math
            c
            ```
"""
    assert to_markdown(docstring, lambda name: f"<{name}>") == expected


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("detkd.losses.bckd", "detkd.losses.bckd.bckd"),
        ("object_weights", "detkd.losses.fgd.object_weights"),
        ("FGD.forward", "detkd.losses.fgd.FGD.forward"),
        ("detkd.distiller.Distiller", "detkd.distiller.Distiller"),
        ("nobody.knows", "nobody.knows"),
    ],
)
def test_a_reference_leads_to_where_its_object_is_defined(name: str, place: str) -> None:
    assert canonical(name, fgd) == place


def test_a_block_says_what_the_code_says() -> None:
    block = docs_losses.loss_block("soft_kl").splitlines()
    assert (
        "| `temperature` | `4.0` | Softening T > 0; the factor T² keeps gradients of the size of the hard-label loss. |"
        in block
    )
    assert (
        "| `reduction` | `'mean'` | ``none``, ``sum``, ``mean`` (÷ positions) or ``batchmean`` (÷ size of dimension 0). |"
        in block
    )
    assert f"Weight with `balance: none`: {losses.SoftKL.default_weight:g}." in block
    assert "Source: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531." in block
