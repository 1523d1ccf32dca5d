"""Sentences with a class each, from tab-separated files, and the WordPiece tokenizer that is trained on them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from detkd.data.class_splits import ClassSplits
from detkd.data.wordpiece import learn_vocabulary
from detkd.errors import DataError, DetkdError, one_line
from detkd.seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

FILES = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
COLUMNS = ("sentence", "label")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BERT's; the padding's id is 0


class Sentence(NamedTuple):
    """The token ids of a sentence, and the index of its class."""

    ids: npt.NDArray[np.int64]
    label: int

    def picture_bytes(self) -> bytes:
        """The tokens, to take a digest of."""
        return self.ids.tobytes()

    def label_bytes(self) -> bytes:
        """The class, to take a digest of."""
        return str(self.label).encode()


@dataclass(frozen=True)
class Sentences:
    """Sentences as token ids.

    Attributes:
        ids: Token ids of each sentence, without padding.
        labels: Index of the class, [N].
        texts: The sentences.
    """

    ids: tuple[npt.NDArray[np.int64], ...]
    labels: npt.NDArray[np.int64]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sentence]:
        return map(Sentence, self.ids, self.labels.tolist())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sentence, [N]."""
        return np.array([len(ids) for ids in self.ids], np.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest sentence."""
        return int(self.lengths.max())

    def by_length(self, places: Sequence[int]) -> npt.NDArray[np.int64]:
        """The order in which chosen sentences go from short to long: batches of it need little filling, [N]."""
        return np.argsort(self.lengths[list(places)], kind="stable")

    def batch(self, chosen: Sequence[int]) -> Tensor:
        """Some sentences, filled up with 0 to the longest of them, [B, 1, 1, L]."""
        rows = [torch.from_numpy(self.ids[index]) for index in chosen]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)[:, None, None]


@dataclass(frozen=True)
class TextDataset(ClassSplits[Sentences]):
    """Splits of classified sentences.

    Attributes:
        names: Names of the classes, in alphabetical order.
        parts: The sentences of each split.
        tokenizer: What made the tokens, as JSON in the format of the library tokenizers.
    """

    tokenizer: str

    def images(self, split: str) -> Sequence[str]:
        """A split's sentences."""
        return self.parts[split].texts

    @classmethod
    def load(
        cls, root: Path, length: int, *, subset: int | None = None, vocabulary: int = 8000, tokenizer: str | None = None
    ) -> TextDataset:
        """Read `train.tsv`, `dev.tsv` (the split `val`) and `test.tsv` below a folder, with columns `sentence` and `label`.

        Args:
            root: The folder.
            length: Most tokens of a sentence; longer ones are cut.
            subset: Most training sentences of a class, chosen by their text alone; None takes all.
            vocabulary: Most tokens of the tokenizer, which is trained on the training sentences.
            tokenizer: One that was trained before, as JSON.

        Raises:
            DataError: If a file is missing, has other columns or classes, or the tokenizer is none.
        """
        found = {split: _read(root / name) for split, name in FILES.items()}
        names = tuple(sorted({label for _, label in found["train"]}))
        for split, rows in found.items():
            foreign = {label for _, label in rows} - set(names)
            if foreign:
                raise DataError(f"{root / FILES[split]}: expected labels out of {list(names)}, but got {sorted(foreign)}.")
        if subset is not None:
            found["train"] = _subset(found["train"], subset)
        text = train_tokenizer([sentence for sentence, _ in found["train"]], vocabulary) if tokenizer is None else tokenizer
        encoder = _encoder(text, length)
        return cls(names, {split: _encode(rows, names, encoder) for split, rows in found.items()}, text)


def train_tokenizer(sentences: Sequence[str], vocabulary: int) -> str:
    """Make a WordPiece tokenizer of sentences that puts [CLS] before and [SEP] behind a sentence, and return it as JSON.

    Args:
        sentences: What it is trained on.
        vocabulary: Most tokens.

    Source:
        Wu et al.: Google's Neural Machine Translation System, 2016, arXiv:1609.08144, as BERT uses it.
    """
    library = import_tokenizers()
    normalizer = library.normalizers.BertNormalizer(lowercase=True)
    words = library.pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(word for word, _ in words.pre_tokenize_str(normalizer.normalize_str(sentence)))
    pieces = learn_vocabulary(counts, vocabulary, SPECIAL)
    ids = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = library.Tokenizer(library.models.WordPiece(vocab=ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, words
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    text: str = tokenizer.to_str()
    return text


def import_tokenizers() -> Any:
    """Import the library tokenizers.

    Raises:
        DetkdError: If it is not installed.
    """
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise DetkdError("Sentences need tokenizers: pip install 'detkd[text]'.") from error
    return tokenizers


def _encoder(text: str, length: int) -> Any:
    library = import_tokenizers()
    try:
        tokenizer = library.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        reason = one_line(error)
        raise DataError(f"Expected a tokenizer in the format of tokenizers (tokenizer.json), but: {reason}") from error
    if tokenizer.token_to_id("[PAD]") != 0:
        raise DataError("Expected a tokenizer whose token [PAD] has the id 0, which fills up short sentences.")
    tokenizer.encode_special_tokens = True  # a sentence that says "[PAD]" means the word
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def _encode(rows: Sequence[tuple[str, str]], names: Sequence[str], tokenizer: Any) -> Sentences:
    texts = tuple(sentence for sentence, _ in rows)
    ids = tuple(np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch(list(texts)))
    return Sentences(ids, np.array([names.index(label) for _, label in rows], np.int64), texts)


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: expected the columns {list(COLUMNS)}, but got {reader.fieldnames}.")
            names, longer, rows = reader.fieldnames or (), None, []
            for number, row in enumerate(reader, 2):
                rows.append((row["sentence"], row["label"]))
                longer = number if longer is None and None in row else longer
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected tab-separated sentences and labels, but: {one_line(error)}.") from error
    broken = next((number for number, row in enumerate(rows, 2) if not row[0] or not row[1]), None)
    if broken is not None or not rows:
        raise DataError(f"{path}: expected a sentence and a label in each line, but line {broken or 2} has none.")
    if longer is not None:
        raise DataError(f"{path}: expected {len(names)} columns in each line, but line {longer} has more.")
    return rows


def _subset(rows: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """The first `count` of each label in an order that goes by the sentences alone."""
    taken: dict[str, int] = {}
    chosen = []
    for sentence, label in sorted(rows, key=lambda row: (seed_of(row[0]), row)):
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= count:
            chosen.append((sentence, label))
    return chosen
