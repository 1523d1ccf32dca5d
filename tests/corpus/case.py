"""One thing that can be wrong, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Change = Callable[[Path], Any]
# The command that trains on each kind of data.
COMMANDS = {
    "yolo": "train-det",
    "coco": "train-det",
    "voc": "train-det",
    "instances": "train-seg",
    "semantic": "train-seg",
    "pictures": "train-cls",
    "sentences": "train-cls",
}


@dataclass(frozen=True)
class Case:
    """A call that must be refused.

    Attributes:
        what: What is wrong; its name in the report.
        on: Kind of the data beside it, as `data/`, and of the run's configuration, `run.yaml`.
        says: What the message must hold: the file, key or argument that is wrong.
        change: Breaks something in the folder.
        arguments: Of the command, behind --config where it is none of its own; HERE stands for the folder.
        command: Another command than the one that trains on such data.
    """

    what: str
    on: str
    says: str
    change: Change = lambda _: None
    arguments: tuple[str, ...] = ()
    command: str | None = None

    def line(self, here: Path) -> list[str]:
        """The command line, in a folder."""
        given = [argument.replace("HERE", str(here)) for argument in self.arguments]
        if self.command is not None:
            return [self.command, *given]
        return [COMMANDS[self.on], "--config", str(here / "run.yaml"), *given]


def write(name: str, text: str | bytes) -> Change:
    """Give a file another content."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return lambda here: (here / name).write_bytes(content)


def cut(name: str, share: float = 0.5) -> Change:
    """Cut a file off."""

    def change(here: Path) -> None:
        content = (here / name).read_bytes()
        (here / name).write_bytes(content[: int(len(content) * share)])

    return change


def remove(name: str) -> Change:
    """Remove a file."""
    return lambda here: (here / name).unlink()


def folder_instead(name: str) -> Change:
    """Put a folder where a file is expected."""

    def change(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        (here / name).mkdir()

    return change


def keys(name: str, /, **changes: Any) -> Change:
    """Change keys of a YAML mapping; None removes one."""

    def change(here: Path) -> None:
        tree = {**yaml.safe_load((here / name).read_text()), **changes}
        (here / name).write_text(yaml.safe_dump({key: value for key, value in tree.items() if value is not None}))

    return change
