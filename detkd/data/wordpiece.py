"""A WordPiece vocabulary that is the same in every process; tokenizers' own trainer breaks ties as its hashes fall."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTINUED = "##"  # before a piece that does not begin a word
MIN_FREQUENCY = 2  # of a pair that becomes a piece


def learn_vocabulary(words: Mapping[str, int], size: int, special: Sequence[str]) -> list[str]:
    """Merge the most frequent pair of neighbouring pieces into a new piece, again and again.

    Of pairs that are as frequent, the one that comes first in the alphabet is merged.

    Args:
        words: How often each word occurs.
        size: Most pieces.
        special: Tokens that come first.

    Returns:
        The pieces: `special`, all characters, and the merged ones in the order of their making.

    Source:
        Sennrich, Haddow and Birch: Neural Machine Translation of Rare Words with Subword Units, ACL 2016, arXiv:1508.07909.
    """
    ordered = sorted(words)
    counts = [words[word] for word in ordered]
    split = [[word[0], *(CONTINUED + letter for letter in word[1:])] for word in ordered]
    vocabulary = dict.fromkeys([*special, *sorted({piece for pieces in split for piece in pieces})])
    frequency: Counter[tuple[str, str]] = Counter()
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for index, pieces in enumerate(split):
        for pair in pairwise(pieces):
            frequency[pair] += counts[index]
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapq.heapify(heap)
    while heap and len(vocabulary) < size:
        count, pair = heapq.heappop(heap)
        if -count != frequency[pair]:  # it has changed since, and lies in the heap again
            continue
        if -count < MIN_FREQUENCY:
            break
        merged = pair[0] + pair[1].removeprefix(CONTINUED)
        vocabulary[merged] = None
        changed = set()
        for index in places.pop(pair):
            changed |= _merge(split[index], pair, merged, counts[index], frequency, places, index)
        for other in changed - {pair}:
            heapq.heappush(heap, (-frequency[other], other))
        frequency[pair] = 0
    return list(vocabulary)[:size]


def _merge(
    pieces: list[str],
    pair: tuple[str, str],
    merged: str,
    count: int,
    frequency: Counter[tuple[str, str]],
    places: defaultdict[tuple[str, str], set[int]],
    index: int,
) -> set[tuple[str, str]]:
    """Merge a pair wherever it is in a word, and return the pairs whose frequency that changes."""
    before = Counter(pairwise(pieces))
    place = 0
    while place < len(pieces) - 1:
        if (pieces[place], pieces[place + 1]) == pair:
            pieces[place : place + 2] = [merged]
        place += 1
    after = Counter(pairwise(pieces))
    changed = {other for other in before | after if before[other] != after[other]}
    for other in changed:
        frequency[other] += count * (after[other] - before[other])
        if after[other]:
            places[other].add(index)
        else:
            places[other].discard(index)
    return changed
