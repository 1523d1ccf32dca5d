"""at, cwd, fitnet, fgd and mgd: values worked by hand, and formulas written out with loops."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import AT, CWD, FGD, MGD, FitNet, at, cwd, fitnet, object_weights


def test_modules_equal_their_functions() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(AT(p=1.5)(student, teacher), at(student, teacher, p=1.5))
    torch.testing.assert_close(CWD(temperature=3.0)(student, teacher), cwd(student, teacher, temperature=3.0))
    torch.testing.assert_close(FitNet()(student, teacher), fitnet(student, teacher))


def test_at_by_hand() -> None:
    # Maps of squares: (9, 16) and (0, 1) at length 1: (9, 16)/sqrt(337) and (0, 1).
    student = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    teacher = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    length = math.sqrt(337)
    expected = ((9 / length) ** 2 + (16 / length - 1) ** 2) / 2
    assert at(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_cwd_by_hand() -> None:
    # One channel, logits (ln 3, 0) against (0, 0): KL of (1/2, 1/2) from (3/4, 1/4), the other channel agrees.
    student = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    expected = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2
    assert cwd(student, torch.zeros(1, 2, 1, 2)).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ArgumentError, match=r"\[N, C, H, W\]"):
        cwd(torch.zeros(2, 3), torch.zeros(2, 3))


def test_a_channel_is_judged_by_where_it_is_strong() -> None:
    student = torch.randn(2, 3, 5, 5)
    assert cwd(student, student + 7).item() == pytest.approx(0, abs=1e-6)


def test_fitnet_by_hand() -> None:
    assert fitnet(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 2.0]])).item() == (4 + 9) / 2


def test_object_weights_by_hand() -> None:
    # At stride 4 the first box covers columns 1 to 3 and rows 0 to 1, its ends included; the second one a part of it.
    boxes = torch.tensor([[[4.0, 0.0, 12.0, 4.0], [8.0, 0.0, 12.0, 4.0], [0.0, 0.0, 0.0, 0.0]]])
    foreground, background = object_weights(boxes, (3, 5), 4.0)
    expected = torch.tensor([[0, 1 / 6, 1 / 4, 1 / 4, 0], [0, 1 / 6, 1 / 4, 1 / 4, 0], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(foreground, expected[None])
    torch.testing.assert_close(background, (expected == 0)[None] / 9)
    none, everywhere = object_weights(torch.zeros(2, 0, 4), (2, 2), 4.0)
    assert not none.any()
    torch.testing.assert_close(everywhere, torch.full((2, 2, 2), 0.25))


def test_fgd_is_its_formula() -> None:
    loss = FGD(3, foreground_gain=0.5, background_gain=0.25, attention_gain=0.125, relation_gain=2.0, temperature=0.7)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    labels = torch.tensor([[[1.0, 1.0, 9.0, 9.0]], [[0.0, 0.0, 0.0, 0.0]]])
    foreground, background = object_weights(labels, (4, 5), 4.0)
    total = 0.0
    for n in range(2):
        space, depth = {}, {}
        for role, maps in (("s", student), ("t", teacher)):
            strength = maps[n].double().abs()
            space[role] = 20 * torch.softmax(strength.mean(0).flatten() / 0.7, 0)
            depth[role] = 3 * torch.softmax(strength.mean((1, 2)) / 0.7, 0)
        weight = (0.5 * foreground + 0.25 * background)[n].double().flatten() * space["t"]
        gap = (student[n].double() - teacher[n].double()).flatten(1).square()
        total += (gap * weight * depth["t"][:, None]).sum().item()
        total += 0.125 * ((space["s"] - space["t"]).abs().sum() + (depth["s"] - depth["t"]).abs().sum()).item()
    with torch.no_grad():
        relations = (loss.student_relations(student) - loss.teacher_relations(teacher)).square().sum().item()
        assert loss(student, teacher, labels, 4.0).item() == pytest.approx((total + 2 * relations) / 2, rel=1e-4)


def test_the_relation_block_adds_one_vector_to_every_position() -> None:
    block = FGD(4).student_relations
    feature = torch.randn(2, 4, 3, 5)
    added = block(feature) - feature
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added))
    weights = block.attention(feature).flatten(2).softmax(2)
    context = torch.einsum("ncp,np->nc", feature.flatten(2), weights[:, 0])
    torch.testing.assert_close(added[:, :, 0, 0], block.transform(context[..., None, None])[..., 0, 0])


def test_the_parts_with_parameters_learn() -> None:
    student, teacher = torch.randn(2, 8, 4, 5), torch.randn(2, 8, 4, 5)
    labels = torch.tensor([1.0, 1.0, 9.0, 9.0]).expand(2, 1, 4)
    for loss, rest in ((FGD(8), (labels, 4.0)), (MGD(8), ())):
        loss(student, teacher, *rest).backward()
        for name, parameter in loss.named_parameters():
            # An offset of the attention before its softmax changes nothing.
            assert parameter.grad.any() or name.endswith("attention.bias"), name


def test_mgd_is_the_squared_error_of_what_it_generates_from_what_is_left() -> None:
    student, teacher = torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    whole = MGD(3, mask_ratio=0.0)
    expected = (whole.generation(student) - teacher).square().sum() / 2
    torch.testing.assert_close(whole(student, teacher), expected)

    masked = MGD(3, mask_ratio=0.65)
    seen = []
    masked.generation.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    masked(torch.ones(8, 3, 40, 40), torch.zeros(8, 3, 40, 40))
    assert (1 - seen[0].mean()).item() == pytest.approx(0.65, abs=0.02)
    assert torch.equal(seen[0][:, :1].expand_as(seen[0]), seen[0])  # all channels of a position alike
    with pytest.raises(ArgumentError, match="mask_ratio"):
        MGD(3, mask_ratio=1.0)
