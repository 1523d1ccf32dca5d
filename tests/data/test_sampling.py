from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from detkd.data.annotations import AnnotatedImage, AnnotatedObject
from detkd.data.sampling import AddressSampler, repeat_factors


def image(*labels: int, crowd: tuple[int, ...] = ()) -> AnnotatedImage:
    objects = [AnnotatedObject(label, (0, 0, 4, 4)) for label in labels]
    return AnnotatedImage.of(Path("x"), 8, 8, [*objects, *(AnnotatedObject(c, (0, 0, 4, 4), crowd=True) for c in crowd)])


def test_repeat_factors_are_those_of_the_paper() -> None:
    images = [image(0), image(0, 0), image(0), image(0, 1), image(crowd=(1,)), image(), image(0), image(0)]
    # Class 0 is in 6 of 8 pictures, class 1 in 1 of 8: √(0.5 / 0.125) = 2. A crowd does not count.
    np.testing.assert_allclose(repeat_factors(images, 0.5), [1, 1, 1, 2, 1, 1, 1, 1])
    assert (repeat_factors(images, 0.1) == 1).all()


def test_pictures_are_shown_as_often_as_their_factors_say() -> None:
    sampler = AddressSampler(np.array([1.0, 1.0, 2.5, 1.0, 1.2]), 7, seed=0)
    counts: Counter[int] = Counter()
    for epoch in range(1000):
        sampler.set_epoch(epoch)
        counts.update(address[0] for address in list(sampler)[:7])  # behind them the epoch's beginning fills the batch
    # Of 6.7 pictures at most 7 are drawn: a batch is filled up three times in ten.
    found = np.array([counts[index] for index in range(5)]) / 1000
    np.testing.assert_allclose(found, np.array([1.0, 1.0, 2.5, 1.0, 1.2]) * 7 / 6.7, atol=0.07)


def test_chance_decides_also_where_the_factors_sum_up_to_whole_numbers() -> None:
    sampler = AddressSampler(np.array([1.5, 1.5, 1.0, 1.0]), 5, seed=0)
    twice = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        counts = np.bincount([image for image, _ in sampler], minlength=4)
        assert counts.sum() == 5
        twice.add(int(counts.argmax()))
    assert twice == {0, 1}


def test_plain_epochs_show_each_picture_once_in_another_order() -> None:
    sampler = AddressSampler(np.ones(10), 5, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(index for index, _ in orders[-1]) == list(range(10))
    assert [index for index, _ in orders[0]] != [index for index, _ in orders[1]]
    assert len({address for order in orders for address in order}) == 30  # no picture is ever seen again
    again = AddressSampler(np.ones(10), 5, seed=1)
    again.set_epoch(2)
    assert list(again) == orders[2]
    assert list(AddressSampler(np.ones(10), 5, seed=2)) != orders[0]


def test_the_last_batch_is_filled_and_views_go_in_turn() -> None:
    sampler = AddressSampler(np.ones(6), 4, seed=0, views=3)
    assert len(sampler) == 8
    seen: dict[int, list[int]] = {index: [] for index in range(6)}
    for epoch in range(3):
        sampler.set_epoch(epoch)
        addresses = list(sampler)
        assert len(addresses) == 8
        assert addresses[6:] == [(index, (epoch + 1) % 3) for index, _ in addresses[:2]]  # shown twice: the next view
        for index, view in addresses[:6]:
            seen[index].append(view)
    assert all(views == [0, 1, 2] for views in seen.values())


@pytest.mark.parametrize("views", [None, 2])
def test_processes_share_the_batches_of_one(views: int | None) -> None:
    whole = list(AddressSampler(np.full(9, 1.3), 4, seed=3, views=views))
    shares = [list(AddressSampler(np.full(9, 1.3), 4, seed=3, views=views, rank=rank, processes=2)) for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(whole) / 2
    batches = zip(*(zip(*[iter(share)] * 2, strict=True) for share in shares), strict=True)
    assert [address for first, second in batches for address in (*first, *second)] == whole


def test_batches_of_sentences_are_alike_in_length_and_else_left_to_chance() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1003)
    sampler = AddressSampler(np.ones(1003), 8, seed=0, lengths=lengths)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append([index for index, _ in sampler])
        assert len(orders[-1]) == 1008
        assert set(orders[-1]) == set(range(1003))
    filling = [np.sum(lengths[batch].max() - lengths[batch]) for batch in np.array(orders[0]).reshape(-1, 8)]
    by_chance = [np.sum(lengths[batch].max() - lengths[batch]) for batch in np.arange(1000).reshape(-1, 8)]
    assert sum(filling) < 0.15 * sum(by_chance)
    means = np.array([lengths[batch].mean() for batch in np.array(orders[0]).reshape(-1, 8)])
    assert abs(np.corrcoef(np.arange(50), means[:50])[0, 1]) < 0.4  # short batches do not come first
    assert {frozenset(batch) for batch in np.array(orders[0]).reshape(-1, 8).tolist()}.isdisjoint(
        {frozenset(batch) for batch in np.array(orders[1]).reshape(-1, 8).tolist()}
    )


def test_processes_share_batches_that_are_alike_in_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 50)
    whole = list(AddressSampler(np.ones(50), 4, seed=3, lengths=lengths))
    shares = [list(AddressSampler(np.ones(50), 4, seed=3, lengths=lengths, rank=rank, processes=2)) for rank in range(2)]
    for start in range(0, len(whole), 4):
        parts = [share[start // 2 : start // 2 + 2] for share in shares]
        assert whole[start : start + 4] == parts[0] + parts[1]
