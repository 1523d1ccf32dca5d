"""Classifiers of sentences: a small Transformer and an LSTM, trained from scratch, and BERT by transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from detkd.adapters.classifier import PADDING, Taps
from detkd.errors import DetkdError
from detkd.models.classifier import Classifier

if TYPE_CHECKING:
    from detkd.models.classifier import ClassifierArchitecture

DROPOUT = 0.1
HEAD_WIDTH = 32  # numbers of an attention head


class Attention(nn.Module):
    """Scaled dot-product attention of several heads, which also says its probabilities.

    Args:
        width: Numbers of a token, a multiple of `heads`.
        heads: Number of heads.

    Source:
        Vaswani et al.: Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to the real tokens.

        Args:
            x: [B, L, D].
            real: Which tokens are no padding, [B, L].

        Returns:
            The attended tokens [B, L, D], and the probabilities [B, H, L, L].
        """
        query, key, value = self.inward(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        probabilities = scores.masked_fill(~real[:, None, None], torch.finfo(scores.dtype).min).softmax(-1)
        return self.outward((probabilities @ value).transpose(1, 2).flatten(2)), probabilities


class Layer(nn.Module):
    """Attention and two linear layers, with norms before them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width, width // HEAD_WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Tokens [B, L, D] to tokens."""
        x = x + self.dropout(self.attention(self.norms[0](x), real)[0])
        attended: Tensor = x + self.dropout(self.feed(self.norms[1](x)))
        return attended


class Embedding(nn.Module):
    """Words, and where they stand."""

    def __init__(self, architecture: ClassifierArchitecture, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(architecture.vocabulary, width, padding_idx=PADDING)
        self.places = nn.Embedding(architecture.imgsz, width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(DROPOUT)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to [B, L, D]."""
        embedded: Tensor = self.dropout(self.norm(self.words(ids) + self.places.weight[: ids.shape[1]]))
        return embedded


class TransformerClassifier(Classifier):
    """A Transformer's encoder, the mean of its tokens, and a linear layer."""

    def __init__(self, architecture: ClassifierArchitecture, tokenizer: str | None) -> None:
        width = _width(128 * architecture.width)
        count = _layers(2, architecture)
        taps = Taps(
            ("embedding", *(f"layers.{index}" for index in range(count))),
            "head",
            (1, 1, architecture.imgsz),
            tuple(f"layers.{index}.attention" for index in range(count)),
        )
        super().__init__(architecture, taps, tokenizer)
        self.embedding = Embedding(architecture, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(count))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(architecture.class_names))

    @property
    def most_tokens(self) -> int:
        """Places that were learnt."""
        return self.architecture.imgsz

    def classify(self, inputs: Tensor) -> Tensor:
        """Class logits [B, C] of token ids [B, 1, 1, L]."""
        ids = inputs.flatten(1)
        real = ids != PADDING
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, real)
        logits: Tensor = self.head(mean_of_tokens(self.norm(x), real))
        return logits


class BothWays(nn.Module):
    """One layer of an LSTM that reads a sentence from both ends, and no padding (Hochreiter and Schmidhuber 1997)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Tokens [B, L, D] to tokens; 0 where there is padding."""
        lengths = real.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class LSTMClassifier(Classifier):
    """Word embeddings, layers of an LSTM, the mean of its tokens, and a linear layer."""

    def __init__(self, architecture: ClassifierArchitecture, tokenizer: str | None) -> None:
        width = _width(128 * architecture.width)
        count = _layers(1, architecture)
        levels = ("words", *(f"layers.{index}" for index in range(count)))
        super().__init__(architecture, Taps(levels, "head", (1, 1, architecture.imgsz)), tokenizer)
        self.words = nn.Embedding(architecture.vocabulary, width, padding_idx=PADDING)
        self.layers = nn.ModuleList(BothWays(width) for _ in range(count))
        self.head = nn.Linear(width, len(architecture.class_names))

    def classify(self, inputs: Tensor) -> Tensor:
        """Class logits [B, C] of token ids [B, 1, 1, L]."""
        ids = inputs.flatten(1)
        real = ids != PADDING
        x = self.words(ids)
        for layer in self.layers:
            x = layer(F.dropout(x, DROPOUT, self.training), real)
        logits: Tensor = self.head(F.dropout(mean_of_tokens(x, real), DROPOUT, self.training))
        return logits


class BertClassifier(Classifier):
    """BERT for sequence classification, by the library transformers.

    Args:
        architecture: What it is built as; its sizes are those of `config` where that is given.
        tokenizer: What makes its tokens, as JSON.
        config: A configuration of transformers; None takes one of the architecture's width and depth.

    Source:
        Devlin et al.: BERT, NAACL 2019, arXiv:1810.04805.
    """

    def __init__(self, architecture: ClassifierArchitecture, tokenizer: str | None, config: Any = None) -> None:
        library = import_transformers()
        pretrained = config is not None
        config = config or _bert_config(architecture)
        count = config.num_hidden_layers
        taps = Taps(
            ("bert.bert.embeddings", *(f"bert.bert.encoder.layer.{index}" for index in range(count))),
            "bert.classifier",
            (1, 1, architecture.imgsz),
            tuple(f"bert.bert.encoder.layer.{index}.attention.self" for index in range(count)),
        )
        super().__init__(architecture, taps, tokenizer)
        self.pretrained = pretrained  # its sizes are not the architecture's
        # Only written out does attention say its probabilities; dropout would fall on them, too.
        config._attn_implementation = "eager"
        config.attention_probs_dropout_prob = 0.0
        self.bert = library.BertForSequenceClassification(config)

    @property
    def most_tokens(self) -> int:
        """Places that were learnt."""
        most: int = self.bert.config.max_position_embeddings
        return most

    def classify(self, inputs: Tensor) -> Tensor:
        """Class logits [B, C] of token ids [B, 1, 1, L]."""
        ids = inputs.flatten(1)
        logits: Tensor = self.bert(input_ids=ids, attention_mask=(ids != PADDING).long()).logits
        return logits


def _bert_config(architecture: ClassifierArchitecture) -> Any:
    width = _width(256 * architecture.width)
    return import_transformers().BertConfig(
        vocab_size=architecture.vocabulary,
        hidden_size=width,
        num_hidden_layers=_layers(4, architecture),
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        max_position_embeddings=architecture.imgsz,
        num_labels=len(architecture.class_names),
        pad_token_id=PADDING,
    )


def import_transformers() -> Any:
    """Import transformers.

    Raises:
        DetkdError: If it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise DetkdError("BERT needs transformers: pip install 'detkd[text]'.") from error
    return transformers


def mean_of_tokens(x: Tensor, real: Tensor) -> Tensor:
    """Mean of the real tokens of [B, L, D], [B, D]."""
    return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)


def _width(count: float) -> int:
    """Numbers of a token: a multiple of an attention head's."""
    return max(HEAD_WIDTH, round(count / HEAD_WIDTH) * HEAD_WIDTH)


def _layers(count: int, architecture: ClassifierArchitecture) -> int:
    return max(1, round(count * (1.0 if architecture.depth is None else architecture.depth)))
