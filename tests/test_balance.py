"""Weights of the terms against the task loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detkd.balance import FixedWeights, GradientRatio, Uncertainty
from detkd.errors import AdapterError


def losses(feature: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of norm 2·√n, 6·√n and 0.5·√n at a feature of n ones."""
    return (feature**2).sum(), {"a": 3 * (feature**2).sum(), "b": 0.5 * feature.sum()}


def at(*features: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Both terms are weighed there."""
    return dict.fromkeys("ab", features)


@pytest.fixture
def feature() -> Tensor:
    return torch.ones(4, requires_grad=True)


def test_gradient_ratio_holds_each_gradient_at_its_share(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5, "b": 0.25})
    task, terms = losses(feature)
    weights = balance(task, terms, at(feature))
    pulls = {
        name: torch.autograd.grad(weights[name] * value, feature, retain_graph=True)[0].norm()
        for name, value in terms.items()
    }
    (own,) = torch.autograd.grad(task, feature)
    assert pulls["a"] == pytest.approx(0.5 * own.norm())
    assert pulls["b"] == pytest.approx(0.25 * own.norm())
    assert balance.pull("a", 1.0) == pytest.approx(3)


def test_each_term_is_weighed_where_it_and_the_task_meet() -> None:
    """One further down than the other; the task's gradient is taken once for both."""
    below = torch.ones(4, requires_grad=True)
    above = 3 * below
    calls = []
    task = above.square().sum()  # its gradient has norm 12 above, 36 below
    task.register_hook(calls.append)
    weights = GradientRatio({"a": 0.5, "b": 0.5})(
        task, {"a": above.sum(), "b": below.sum()}, {"a": (above,), "b": (below,)}
    )
    assert weights == {"a": pytest.approx(3.0), "b": pytest.approx(9.0)}
    assert len(calls) == 1


def test_a_term_that_comes_later_is_measured_when_it_comes(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5, "b": 0.25}, interval=100)
    task, terms = losses(feature)
    assert set(balance(task, {"a": terms["a"]}, at(feature))) == {"a"}
    assert balance(task, terms, at(feature))["b"] == pytest.approx(1.0)  # .25 · 4 / 1


def test_a_faint_gradient_does_not_blow_a_weight_up(feature: Tensor) -> None:
    weights = GradientRatio({"a": 0.5})((feature**2).sum(), {"a": feature.sum() * 1e-9}, at(feature))
    assert weights["a"] == pytest.approx(500)


def test_a_term_that_the_first_batch_cannot_teach_has_no_weight_until_it_is_measured(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5}, interval=3)
    task, terms = losses(feature)
    found = [balance(task, {"a": feature.sum() * 0}, at(feature))["a"]]
    found += [balance(task, {"a": terms["a"]}, at(feature))["a"] for _ in range(4)]
    assert found == pytest.approx([0, 0, 0, 1 / 6, 1 / 6])


def test_an_overflow_leaves_the_average_alone(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5, "b": 0.25}, interval=1)
    task, terms = losses(feature)
    before = balance(task, terms, at(feature))
    after = balance(task, {**terms, "a": terms["a"] * float("inf")}, at(feature))
    assert after["a"] == before["a"]


def test_steady_gradients_are_measured_ever_more_rarely_until_they_move(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5, "b": 0.25}, interval=2, longest=8)

    def measured(steps: range, factor: float) -> list[int]:
        found = []
        for step in steps:
            task, terms = losses((1 + 1e-3 * step) * feature)  # so that the averages show each measurement
            before = balance.norms.clone()
            balance(task, {**terms, "a": factor * terms["a"]}, at(feature))
            if not torch.equal(balance.norms, before):
                found.append(step)
        return found

    assert measured(range(40), 1.0) == [0, 2, 6, 14, 22, 30, 38]
    # Beside averages of 1, 1.16, 1.29, 1.39 and 1.47 a proportion of 1.8 is unsteady, beside 1.54 no more.
    assert measured(range(40, 70), 1.8) == [46, 48, 50, 52, 54, 56, 60, 68]


def test_a_resumed_run_measures_when_an_uninterrupted_one_does(feature: Tensor) -> None:
    def step(balance: GradientRatio, scale: float) -> float:
        task, terms = losses(feature)
        return float(balance(task, {"a": scale * terms["a"], "b": terms["b"]}, at(feature))["a"])

    balance = GradientRatio({"a": 0.5, "b": 0.25}, interval=3)
    for scale in (1.0, 2.0):
        step(balance, scale)
    again = GradientRatio({"a": 0.5, "b": 0.25}, interval=3)
    again.load_state_dict(balance.state_dict())
    weights = [(step(balance, scale), step(again, scale)) for scale in (3.0, 4.0, 5.0)]
    assert all(one == other for one, other in weights)
    assert weights[0][0] != weights[1][0] == weights[2][0]  # the fourth step of all is the next that measures


def test_norms_are_averaged_and_survive_a_checkpoint(feature: Tensor) -> None:
    balance = GradientRatio({"a": 1.0, "b": 1.0}, interval=1, momentum=0.5)
    task, terms = losses(feature)
    balance(task, terms, at(feature))
    balance(task, {**terms, "a": terms["a"] / 3}, at(feature))
    assert balance.norms.tolist() == [pytest.approx([4, 4]), pytest.approx([8, 1])]
    again = GradientRatio({"a": 1.0, "b": 1.0})
    again.load_state_dict(balance.state_dict())
    assert torch.equal(again.norms, balance.norms)


def test_a_term_that_grows_pulls_no_harder_than_its_share(feature: Tensor) -> None:
    """Neither between two measurements nor at one of them does a term wait for an average to follow."""
    balance = GradientRatio({"a": 0.5}, interval=4)
    for step in range(9):
        factor = (1.0, 30.0)[step > 1]
        task, terms = losses(feature)
        weight = balance(task, {"a": factor * terms["a"]}, at(feature))["a"]
        assert float(weight) * factor * 6 / 2 == pytest.approx(0.5), step  # gradients of 6 and 2


def test_a_term_that_fades_is_held_back_but_never_raised(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5, "b": 0.25}, most={"a": 0.1})
    task, terms = losses(feature)
    assert balance(task, terms, at(feature)) == {"a": pytest.approx(0.1), "b": pytest.approx(1.0)}
    balance = GradientRatio({"a": 0.5}, most={"a": 0.1})
    assert balance(task, {"a": 10 * terms["a"]}, at(feature))["a"] == pytest.approx(0.5 * 2 / 60)


def test_a_term_that_had_nothing_to_teach_has_not_grown(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5}, interval=2)
    task, terms = losses(feature)
    weights = [float(balance(task, {"a": factor * terms["a"]}, at(feature))["a"]) for factor in (1, 1, 0, 1)]
    assert weights[3] == weights[2] > 0


def test_processes_agree_on_what_has_grown(feature: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(balance: GradientRatio, factor: float) -> float:
        task, terms = losses(feature)
        return float(balance(task, {"a": factor * terms["a"]}, at(feature))["a"])

    alone, shared = GradientRatio({"a": 0.5}, interval=9), GradientRatio({"a": 0.5}, interval=9)
    step(alone, 1)
    step(shared, 1)
    assert step(alone, 3) < step(alone, 1)
    with monkeypatch.context() as patch:  # two others, whose terms did not grow
        patch.setattr("detkd.balance.mean_over_processes", lambda values: (values + 2 * values / 3) / 3)
        assert step(shared, 3) == step(alone, 1)


def test_noise_is_averaged(feature: Tensor) -> None:
    balance = GradientRatio({"a": 0.5}, interval=100)
    task, terms = losses(feature)
    first = balance(task, {"a": terms["a"]}, at(feature))["a"]
    assert balance(task, {"a": 1.9 * terms["a"]}, at(feature))["a"] == first
    assert balance(task, {"a": 0.1 * terms["a"]}, at(feature))["a"] == first


def test_fixed_weights_are_what_was_given(feature: Tensor) -> None:
    task, terms = losses(feature)
    assert FixedWeights({"a": 2.0, "b": 3.0})(task, terms, at(feature)) == {"a": 2.0, "b": 3.0}


def test_a_balance_that_learns_nothing_adds_nothing_to_the_loss(feature: Tensor) -> None:
    for balance in (FixedWeights({"a": 2.0, "b": 3.0}), GradientRatio({"a": 0.5, "b": 0.25})):
        balance(*losses(feature), at(feature))
        assert [balance.penalty(name) for name in ("a", "b")] == [0.0, 0.0]


def test_only_what_is_held_below_its_published_weight_is_named(feature: Tensor) -> None:
    published = {"a": 2.0, "b": 4.0}  # pulls of 6 and 1 times the task's
    balance = GradientRatio({"a": 0.5, "b": 0.25})
    assert balance.held_back(published) == []  # nothing has been measured
    balance(*losses(feature), at(feature))
    (line,) = balance.held_back(published)
    assert line.startswith("a: at its published weight 2 it would pull 6.0 times")
    assert FixedWeights(published).held_back(published) == Uncertainty(published).held_back(published) == []


def test_uncertainty_learns_one_over_the_loss() -> None:
    balance = Uncertainty({"a": 2.0, "b": 1.0})
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    terms = {"a": torch.tensor(4.0), "b": torch.tensor(0.5)}
    first = balance(torch.zeros(()), terms, {})
    assert [first[name].item() for name in terms] == [2.0, 1.0]
    for _ in range(400):
        optimizer.zero_grad()
        weights = balance(torch.zeros(()), terms, {})
        sum(weights[name] * terms[name] + balance.penalty(name) for name in terms).backward()
        optimizer.step()
    assert balance(torch.zeros(()), terms, {})["a"].item() == pytest.approx(2 / 4, rel=1e-2)
    assert balance(torch.zeros(()), terms, {})["b"].item() == pytest.approx(1 / 0.5, rel=1e-2)


def test_gradients_are_weighed_at_features_that_train(feature: Tensor) -> None:
    task, terms = losses(feature)
    frozen = torch.ones(4)
    weights = [
        GradientRatio({"a": 0.5})(task, {"a": terms["a"]}, features) for features in (at(feature), at(frozen, feature))
    ]
    assert weights[0] == weights[1]
    with pytest.raises(AdapterError, match="all of them are frozen"):
        GradientRatio({"a": 0.5})(task, {"a": terms["a"]}, at(frozen))


def test_faint_gradients_in_half_precision_are_measured() -> None:
    feature = torch.ones(64, dtype=torch.float16, requires_grad=True)
    balance = GradientRatio({"a": 1.0})
    balance(feature.float().sum() * 1e-4, {"a": feature.float().sum() * 2e-8}, at(feature))
    assert balance.norms.flatten().tolist() == pytest.approx([8e-4, 1.6e-7], rel=0.05)
