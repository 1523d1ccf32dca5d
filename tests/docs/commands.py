"""Command lines as the documentation shows them: taken apart, and read by their own parsers without running them."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detkd.commands import COMMANDS
from detkd.commands.compare import recipes_for
from detkd.commands.training import COMMAND_OF
from detkd.config import load_config
from detkd.engines.compare import plan_comparison
from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from detkd.config import RunConfig

ELSEWHERE = {
    "source": "activates the environment that make builds",
}  # commands that are not detkd's, and what they do there
VARIABLE = re.compile(r"[A-Z_]+=")


class _ParsedError(Exception):
    """Ends a command once its line is read."""

    def __init__(self, namespace: argparse.Namespace) -> None:
        super().__init__()
        self.namespace = namespace


def split(script: str) -> Iterator[list[str]]:
    """The words of each command, without comments and without variables in front."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and VARIABLE.match(words[0]):
            words = words[1:]
        if words:
            yield words


def check(words: Sequence[str], files: Path) -> None:
    """Refuse a command that names what is not there: a command, an option, a key, a recipe, a target, an extra.

    Args:
        words: The command.
        files: Folder with a stand-in for each file that a reader would have.
    """
    command, *rest = words
    given = [str(files / word) if (files / word).is_file() else word for word in rest]
    if command == "detkd":
        _check_detkd(given)
    elif command == "torchrun":
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(given)
        assert (launched.module, launched.training_script) == (True, "detkd"), words
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOCAL_RANK", "0")  # as torchrun sets it
            _check_detkd(launched.training_script_args)
    elif command == "python":
        script, *arguments = given
        assert script.startswith("tools/"), words
        assert (ROOT / script).is_file(), script
        parse(import_module(Path(script).stem).main, arguments)
    elif command == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in rest), words
    elif command == "pip":
        _check_install(rest)
    else:
        assert command in ELSEWHERE, words


def parse(main: Callable[[], None], arguments: Sequence[str]) -> argparse.Namespace:
    """What a command's own parser makes of its arguments; it fails where the command would refuse them."""
    kept = {name: getattr(argparse.ArgumentParser, name) for name in ("parse_args", "parse_intermixed_args")}

    def stopping(name: str) -> Any:
        def parse_and_stop(self: Any, *given: Any, **options: Any) -> None:
            raise _ParsedError(kept[name](self, *given, **options))

        return parse_and_stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *arguments])
        for name in kept:
            patch.setattr(argparse.ArgumentParser, name, stopping(name))
        with pytest.raises(_ParsedError) as found:
            main()
    return found.value.namespace


def check_trainer(config: RunConfig) -> None:
    """Refuse arguments that the trainer of the student's engine does not have."""
    if config.family == "yolo":
        from detkd.engines import ultralytics

        ultralytics.trainer_arguments(config, Path("data.yaml"), Path("run"))
    else:
        from detkd.engines.lightning.arguments import trainer_arguments

        trainer_arguments(config)


def _check_detkd(words: Sequence[str]) -> None:
    """The command, its options, and the configuration that it would read."""
    name, *arguments = words
    assert name in COMMANDS, name
    given = vars(parse(import_module(f"detkd.commands.{name.replace('-', '_')}").main, arguments))
    if "config" not in given:
        return
    config = load_config(given["config"], given["overrides"])
    check_trainer(config)
    if name.startswith("train-"):
        assert COMMAND_OF[config.task] == f"detkd {name}"
    if name == "compare":
        recipes = given["recipes"] or recipes_for(config.student)
        options = {key: given[key] for key in ("seeds", "only", "overrides", "split")}
        plan_comparison(given["config"], recipes, **options)


def _check_install(words: Sequence[str]) -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    extras = [extra for group in re.findall(r"detkd\[(.*?)\]", " ".join(words)) for extra in group.split(",")]
    assert extras, words
    assert all(re.search(rf"^{extra} = \[", declared, re.MULTILINE) for extra in extras), words
