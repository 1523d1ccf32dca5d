"""Sentences, and the tokenizer that is trained on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detkd.data.text import Sentences, TextDataset, train_tokenizer
from detkd.data.wordpiece import learn_vocabulary
from detkd.errors import DataError
from tests.engines.classes import write_sentences


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sentences(tmp_path, {"train": 40, "dev": 6, "test": 8})


def test_the_most_frequent_pair_is_merged_first() -> None:
    # ab occurs 5 times, bc 3 times, and of the pairs that are as frequent the first in the alphabet wins.
    found = learn_vocabulary({"ab": 2, "abc": 3}, 8, ["[PAD]"])
    assert found == ["[PAD]", "##b", "##c", "a", "ab", "abc"]


def test_a_pair_that_occurs_once_becomes_no_piece() -> None:
    assert learn_vocabulary({"xy": 1}, 8, []) == ["##y", "x"]


def test_a_repeated_letter_is_merged_from_the_left() -> None:
    # a ##a ##a ##a: ##a ##a occurs twice in each word and is merged once, for its second pair overlaps.
    assert learn_vocabulary({"aaaa": 2}, 9, []) == ["##a", "a", "##aa", "##aaa", "aaaa"]


def test_splits_classes_and_tokens(root: Path) -> None:
    dataset = TextDataset.load(root, 16, vocabulary=150)
    assert dataset.names == ("bad", "good")
    assert [len(dataset.images(split)) for split in dataset.splits] == [40, 6, 8]
    part = dataset.parts["train"]
    vocabulary = json.loads(dataset.tokenizer)["model"]["vocab"]
    assert [vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 1, 2, 3]
    assert all(ids[0] == 2 and ids[-1] == 3 and 0 not in ids for ids in part.ids)
    assert max(len(ids) for ids in part.ids) <= 16
    assert len(vocabulary) <= 150


def test_a_sentence_may_say_the_name_of_a_token(root: Path) -> None:
    with (root / "test.tsv").open("a") as file:
        file.write("the [PAD] film [SEP] was\tbad\n")
    ids = TextDataset.load(root, 16, vocabulary=150).parts["test"].ids[-1]
    assert 0 not in ids
    assert (ids == 3).sum() == 1


def test_long_sentences_are_cut_to_the_length(root: Path) -> None:
    assert max(len(ids) for ids in TextDataset.load(root, 5).parts["train"].ids) == 5


def test_a_subset_is_chosen_by_class(root: Path) -> None:
    part = TextDataset.load(root, 16, subset=5).parts["train"]
    assert np.bincount(part.labels).tolist() == [5, 5]


def test_the_tokenizer_is_the_same_in_every_process(tmp_path: Path) -> None:
    sentences = ["an uneven tie of many pairs", "other pairs tie as often", "as often as not"] * 2
    code = f"from detkd.data.text import train_tokenizer; print(train_tokenizer({sentences!r}, 60))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == train_tokenizer(sentences, 60)


def test_a_tokenizer_of_before_is_used_as_it_is(root: Path) -> None:
    before = TextDataset.load(root, 16, vocabulary=80).tokenizer
    assert TextDataset.load(root, 16, vocabulary=500, tokenizer=before).tokenizer == before
    with pytest.raises(DataError, match="tokenizer"):
        TextDataset.load(root, 16, tokenizer="{}")


def test_what_is_faulty_is_named(root: Path) -> None:
    (root / "dev.tsv").write_text("text\tlabel\na\tgood\n")
    with pytest.raises(DataError, match="columns"):
        TextDataset.load(root, 16)
    (root / "dev.tsv").write_text("sentence\tlabel\na\tneutral\n")
    with pytest.raises(DataError, match="neutral"):
        TextDataset.load(root, 16)
    (root / "dev.tsv").write_text("sentence\tlabel\nfine\tgood\nnone at all\n")
    with pytest.raises(DataError, match="line 3"):
        TextDataset.load(root, 16)
    (root / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"dev\.tsv"):
        TextDataset.load(root, 16)


@pytest.mark.real_data
def test_sst2_is_read(real_data: Path) -> None:
    dataset = TextDataset.load(real_data / "sst2", 32, subset=50, vocabulary=300)
    assert [len(dataset.images(split)) for split in dataset.splits] == [100, 6735, 872]


def test_sentences_go_from_short_to_long() -> None:
    ids = tuple(np.arange(length) + 1 for length in (4, 2, 9, 2, 5))
    sentences = Sentences(ids, np.zeros(5, np.int64), tuple("abcde"))
    assert sentences.lengths.tolist() == [4, 2, 9, 2, 5]
    assert sentences.by_length(range(5)).tolist() == [1, 3, 0, 4, 2]
    assert sentences.by_length([2, 4, 1]).tolist() == [2, 1, 0]
