"""BERTs of transformers: their folders, and the sizes of one that was trained on from there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from detkd.errors import WeightsError, one_line
from detkd.models.text_classifiers import import_transformers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST = {  # of each size that is read from somebody else's file
    "vocab_size": 2**20,
    "hidden_size": 2**13,
    "num_hidden_layers": 2**8,
    "num_attention_heads": 2**8,
    "intermediate_size": 2**15,
    "max_position_embeddings": 2**16,
    "type_vocab_size": 2**8,
}
ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new")


def read_folder(folder: Path, classes: int, *, new_head: bool) -> tuple[Any, bool]:
    """Read a BERT for classification; nothing is downloaded, and no pickle read.

    Args:
        folder: With config.json and model.safetensors.
        classes: Number of classes.
        new_head: Whether it may lack the last layer, or have it for other classes: it gets a new one then.

    Returns:
        The model, of transformers, and whether its last layer is new.

    Raises:
        WeightsError: If the folder holds no such model.
    """
    library = import_transformers()
    how = {"local_files_only": True, "use_safetensors": True, "attn_implementation": "eager", "output_loading_info": True}
    if new_head:
        how |= {"num_labels": classes, "ignore_mismatched_sizes": True}
    try:
        model, info = library.BertForSequenceClassification.from_pretrained(folder, **how)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"Expected {folder} to hold a BERT for classification as safetensors, but: {one_line(error)}"
        ) from error
    new = {key if isinstance(key, str) else key[0] for part in ("missing_keys", "mismatched_keys") for key in info[part]}
    # A BERT that was trained for something else, such as masked words, may also lack the pooling before the last layer.
    absent = sorted(name for name in new if not name.startswith(("classifier.", "bert.pooler.")))
    if absent or (new and not new_head):
        raise WeightsError(
            f"Expected {folder} to hold a BERT for classification, but it lacks {(absent or sorted(new))[:3]}."
        )
    if model.config.num_labels != classes:
        raise WeightsError(f"Expected a BERT of {classes} classes, but {folder} has {model.config.num_labels}.")
    return model, bool(new)


def own_names(config: Any, names: Sequence[str]) -> tuple[str, ...]:
    """What a BERT calls its classes, in its order: the data's names where it has none of its own, or they have none.

    Args:
        config: Of transformers, which writes LABEL_0 and so on where nobody said names.
        names: The data's.
    """
    own = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    nameless = all(name.startswith("LABEL_") for name in own) or all(name.isdecimal() for name in names)
    return tuple(names) if nameless else own


def config_to_json(config: Any) -> str:
    """The sizes of a BERT, which build it again."""
    kept = {name: getattr(config, name) for name in (*MOST, "hidden_act", "layer_norm_eps")}
    return json.dumps(kept)


def config_from_json(text: str, classes: int, path: Path) -> Any:
    """What :func:`config_to_json` wrote, as transformers' configuration.

    Args:
        text: The JSON.
        classes: Number of classes.
        path: Whose it is, for messages.

    Raises:
        WeightsError: If nothing can be built with it.
    """
    try:
        fields = json.loads(text)
        sizes = {name: fields[name] for name in MOST}
        epsilon, activation = fields["layer_norm_eps"], fields["hidden_act"]
        sound = all(type(size) is int and 0 < size <= MOST[name] for name, size in sizes.items())
        sound = sound and sizes["hidden_size"] % sizes["num_attention_heads"] == 0
        sound = sound and activation in ACTIVATIONS and isinstance(epsilon, float) and 0 < epsilon < 1
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"Expected the sizes of a BERT in the header of {path}, but got {text[:80]!r}.") from error
    if not sound:
        raise WeightsError(f"Expected sizes that a BERT can have in the header of {path}, but got {text[:80]!r}.")
    return import_transformers().BertConfig(
        **sizes, hidden_act=activation, layer_norm_eps=epsilon, num_labels=classes, pad_token_id=0
    )
