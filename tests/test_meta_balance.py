"""Weights learned by looking one step ahead on held-out samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.multiprocessing as processes
from torch import Tensor, nn

from detkd.distances import Distances
from detkd.meta_balance import Meta

if TYPE_CHECKING:
    from pathlib import Path


def step(balance: Meta, theta: Tensor, held_out: Tensor, **terms: Tensor) -> dict[str, float]:
    """The weights of a step of a student of two parameters, whose losses are planes of the given slopes."""
    balance.look_ahead(lambda: held_out @ theta)
    found = balance(theta.sum(), {name: slope @ theta for name, slope in terms.items()}, dict.fromkeys(terms, (theta,)))
    return {name: float(weight) for name, weight in found.items()}


def test_two_parameters_by_hand() -> None:
    theta = nn.Parameter(torch.tensor([1.0, 2.0]))
    balance = Meta({"with": 1.0, "against": 0.5, "across": 0.5}, [theta], rate=0.25, interval=1)
    slopes = {"with": torch.tensor([2.0, 0.0]), "against": torch.tensor([0.0, -5.0]), "across": torch.tensor([-4.0, 3.0])}
    weights = step(balance, theta, torch.tensor([3.0, 4.0]), **slopes)
    # Cosines with (.6, .8): .6, -.8 and 0; an open gate cannot open further.
    assert balance.gates.tolist() == pytest.approx([1.0, 1 - 0.25 * 0.8, 1.0])
    # The task's gradient (1, 1) has the norm √2, the terms' 2, 5 and 5.
    root = 2**0.5
    assert weights == pytest.approx({"with": root / 2, "against": 0.8 * 0.5 * root / 5, "across": 0.5 * root / 5})
    for _ in range(9):
        weights = step(balance, theta, torch.tensor([3.0, 4.0]), **slopes)
    assert weights["against"] == 0  # after five of them, and not below
    step(balance, theta, torch.tensor([0.0, -1.0]), **slopes)  # what did harm, helps now
    assert balance.gates[1] == pytest.approx(0.25)


def test_the_gradient_that_gates_follow_is_that_of_a_step_ahead() -> None:
    """By central differences of the held-out loss behind one step of SGD, in float64."""
    generator = torch.Generator().manual_seed(0)
    theta = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
    matrices = torch.randn(4, 4, 4, generator=generator, dtype=torch.float64)

    def losses(at: Tensor) -> list[Tensor]:
        return [(matrix @ at).square().sum() for matrix in matrices]  # held out, task, two terms

    gradients = [torch.autograd.grad(loss, theta)[0] for loss in losses(theta)]

    def ahead(weights: list[float], rate: float) -> float:
        pull = gradients[1] + sum(weight * gradient for weight, gradient in zip(weights, gradients[2:], strict=True))
        return float(losses(theta.detach() - rate * pull)[0])

    rate, h = 1e-6, 1e-2
    differences = [(ahead([1 + h, 1], rate) - ahead([1 - h, 1], rate)), (ahead([1, 1 + h], rate) - ahead([1, 1 - h], rate))]
    expected = [-difference / (2 * h * rate) for difference in differences]  # <∇L_h, ∇T_i>
    balance = Meta({"a": 1.0, "b": 1.0}, [theta], rate=0.1, interval=1)
    balance.gates.fill_(0.5)
    found = losses(theta)
    balance.look_ahead(lambda: losses(theta)[0])
    balance(found[1], {"a": found[2], "b": found[3]}, dict.fromkeys("ab", (theta,)))
    norms = [float(gradients[0].norm() * gradient.norm()) for gradient in gradients[2:]]
    cosines = [product / norm for product, norm in zip(expected, norms, strict=True)]
    assert balance.gates.tolist() == pytest.approx([0.5 + 0.1 * cosine for cosine in cosines], abs=1e-3)


def test_noise_for_labels_loses_its_weight_and_a_teacher_keeps_it() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(3, 8, generator=generator)
    student = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    balance = Meta({"teacher": 0.5, "noise": 0.5}, list(student.parameters()), interval=1)
    criterion = nn.functional.cross_entropy

    def draw(count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, 8, generator=generator)
        return inputs, (inputs @ truth.T).argmax(1)

    for _ in range(300):
        inputs, labels = draw(32)
        held_out = draw(32)
        wrong = torch.randint(3, (32,), generator=generator)
        balance.look_ahead(lambda held_out=held_out: criterion(student(held_out[0]), held_out[1]))
        logits = student(inputs)
        task = criterion(logits, labels)
        terms = {"teacher": criterion(logits, (3 * inputs @ truth.T).softmax(1)), "noise": criterion(logits, wrong)}
        weights = balance(task, terms, dict.fromkeys(terms, (logits,)))
        optimizer.zero_grad()
        (task + sum(weights[name] * terms[name] for name in terms)).backward()
        optimizer.step()
    assert balance.gates.tolist() == pytest.approx([1.0, 0.0], abs=0.05)


def test_it_measures_every_few_steps_and_a_resumed_run_when_an_uninterrupted_one_does() -> None:
    theta = nn.Parameter(torch.ones(2))
    balance = Meta({"a": 1.0}, [theta], rate=0.1, interval=3)
    against = {"held_out": torch.tensor([1.0, 0.0]), "a": torch.tensor([-1.0, 0.0])}
    gates = []
    for _ in range(5):
        step(balance, theta, **against)
        gates.append(float(balance.gates))
    assert gates == pytest.approx([0.9, 0.9, 0.9, 0.8, 0.8])
    again = Meta({"a": 1.0}, [theta], rate=0.1, interval=3)
    again.load_state_dict(balance.state_dict())
    for gate in (0.8, 0.7):  # the sixth step of all measures nothing, the seventh does
        found = [step(each, theta, **against)["a"] for each in (balance, again)]
        assert found == pytest.approx([gate * 2**0.5] * 2)


def test_a_term_that_cannot_be_measured_keeps_its_gate() -> None:
    theta = nn.Parameter(torch.ones(2))
    balance = Meta({"a": 1.0, "b": 1.0}, [theta], interval=1)
    step(balance, theta, torch.tensor([1.0, 0.0]), a=torch.tensor([float("inf"), 0.0]), b=torch.zeros(2))
    assert balance.gates.tolist() == [1.0, 1.0]
    assert not list(balance.parameters())


def agree(rank: int, folder: str) -> None:
    """One of two processes, each with slopes of its own."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    theta = nn.Parameter(torch.ones(2))
    balance, distances = Meta({"a": 1.0}, [theta], rate=0.1, interval=1), Distances({"a": 1.0})
    slope = torch.tensor([[-1.0, 0.0], [0.0, -3.0]][rank])
    step(balance, theta, torch.tensor([1.0, 1.0]), a=slope)
    for value in [4.0] * 20 + [float(rank)] * 20:
        near = distances({"a": torch.tensor(value)})["a"]
    torch.save([balance.gates, near], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_same_weights(tmp_path: Path) -> None:
    processes.spawn(agree, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert [float(value) for value in first] == [float(value) for value in second]
    # Products -1 and -3, squares 2 and 2 and 1 and 9: -4 / √(4 · 10).
    assert float(first[0]) == pytest.approx(1 - 0.1 * 4 / 40**0.5)
    assert float(first[1]) == pytest.approx((4 * 0.95**20 + 0.5 * (1 - 0.95**20)) / 4, rel=1e-4)
