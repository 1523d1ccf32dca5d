"""What the checkpoints of all families that detkd builds have in common: tensors, and in the header what they are of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from detkd.errors import ConfigError, WeightsError, one_line
from detkd.files import replacing
from detkd.weights import METADATA, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from detkd.model_config import ModelConfig

CHECKPOINT = ".safetensors"
Architecture = TypeVar("Architecture")


def given_checkpoint(spec: ModelConfig, role: str) -> Path | None:
    """The checkpoint that brings its own architecture, where no other is named; None where one is.

    Raises:
        ConfigError: If neither an architecture nor weights are given.
    """
    if spec.model is not None and not spec.model.endswith(CHECKPOINT):
        return None
    path = spec.weights if spec.model is None else Path(spec.model)
    if path is None:
        raise ConfigError(f"{role}: expected `model` (a name), `weights`, or both, but got neither.")
    return path


def write_checkpoint(model: nn.Module, path: Path, header: Mapping[str, str] | None = None) -> None:
    """Write a model's tensors as safetensors, whole or not at all.

    Args:
        model: The model.
        path: The file.
        header: What else to say of it.

    Raises:
        ConfigError: If the file cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=dict(header) if header is not None else None)


def read_header(
    path: Path, parse: Callable[[str], Architecture], what: str = "its architecture"
) -> tuple[Architecture, dict[str, str]]:
    """What a checkpoint says that it is of, and all of its header.

    Args:
        path: The file.
        parse: Reads the architecture out of its JSON; it raises ValueError or TypeError where it is none.
        what: What the header should say, for messages.

    Raises:
        WeightsError: If the file is missing, unreadable, or none of these.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"Expected a checkpoint file, but there is none at {path}.")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        return parse(header[METADATA]), header
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"Expected a checkpoint that says {what} (detkd's student.safetensors), but {path} does not. Give "
            "`model` (a name) beside `weights` for a plain state dict."
        ) from error


def load_tensors(model: nn.Module, path: Path, name: str) -> None:
    """Fill a model with all tensors of a checkpoint.

    Args:
        model: The model.
        path: The file.
        name: Its architecture's name, for messages.

    Raises:
        WeightsError: If they are unreadable, or others than the model's.
    """
    try:
        model.load_state_dict(read_state_dict(path) or {})
    except RuntimeError as error:
        raise WeightsError(f"Expected {path} to hold the tensors of a {name}, but: {one_line(error)}") from error


def plain_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a plain state dict, or of a checkpoint of detkd.

    Raises:
        WeightsError: If the file holds something else.
    """
    state = read_state_dict(path)
    if state is None:
        raise WeightsError(
            f"Expected a plain state dict or a checkpoint of detkd, but {path} is a pickled object. Write what it holds "
            "with torch.save(model.state_dict(), path)."
        )
    return state
