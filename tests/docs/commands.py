"""Command lines as the documentation shows them: taken apart, and read by the tools' own parsers without running them."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detkd.config import load_config
from tests.docs.pages import ROOT
from tests.tools.calling import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detkd.config import RunConfig

ELSEWHERE = {
    "source": "activates the environment that make builds",
}  # commands that are not detkd's, and what they do there
VARIABLE = re.compile(r"[A-Z_]+=")


class _ParsedError(Exception):
    """Ends a tool once its command line is read."""

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
    """Refuse a command that names what is not there: a tool, an option, a key, a recipe, a target, an extra.

    Args:
        words: The command.
        files: Folder with a stand-in for each file that a reader would have.
    """
    command, *rest = words
    if command == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in rest), words
    elif command == "pip":
        _check_install(rest)
    elif command == "torchrun":
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(rest)
        _check_tool([launched.training_script, *launched.training_script_args], files)
    elif command == "python":
        _check_tool(rest, files)
    else:
        assert command in ELSEWHERE, words


def parse(tool: str, arguments: Sequence[str]) -> argparse.Namespace:
    """What a tool's own parser makes of a command line; it fails where the tool would refuse it."""
    kept = {name: getattr(argparse.ArgumentParser, name) for name in ("parse_args", "parse_intermixed_args")}

    def stopping(name: str) -> Any:
        def parse_and_stop(self: Any, *given: Any, **options: Any) -> None:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(argparse.ArgumentParser, "parse_args", kept["parse_args"])  # the other calls it
                namespace = kept[name](self, *given, **options)
            raise _ParsedError(namespace)

        return parse_and_stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{tool}.py", *arguments])
        for name in kept:
            patch.setattr(argparse.ArgumentParser, name, stopping(name))
        with pytest.raises(_ParsedError) as found:
            load(tool).main()
    return found.value.namespace


def _check_tool(words: Sequence[str], files: Path) -> None:
    script, *arguments = words
    assert (ROOT / script).is_file(), script
    tool = script.removeprefix("tools/").removesuffix(".py")
    given = vars(parse(tool, [_stand_in(word, files) for word in arguments]))
    if "config" not in given:
        return
    config = load_config(ROOT / given["config"], given["overrides"])
    check_trainer(config)
    if tool.startswith("train_"):
        assert {"detect": "train_det", "segment": "train_seg", "classify": "train_cls"}[config.task] == tool
    if tool == "compare":
        from detkd.engines.compare import plan_comparison

        recipes = given["recipes"] or load("compare").recipes_for(config.student)
        plan_comparison(given["config"], recipes, seeds=given["seeds"], only=given["only"], overrides=given["overrides"])


def check_trainer(config: RunConfig) -> None:
    """Refuse arguments that the trainer of the student's engine does not have."""
    if config.family == "yolo":
        from detkd.engines import ultralytics

        ultralytics.trainer_arguments(config, Path("data.yaml"), Path("run"))
    else:
        from detkd.engines.lightning.arguments import trainer_arguments

        trainer_arguments(config)


def _stand_in(word: str, files: Path) -> str:
    """A file that the reader has, where there is a stand-in for it."""
    return str(files / word) if (files / word).is_file() else word


def _check_install(words: Sequence[str]) -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    extras = [extra for group in re.findall(r"detkd\[(.*?)\]", " ".join(words)) for extra in group.split(",")]
    assert extras, words
    assert all(re.search(rf"^{extra} = \[", declared, re.MULTILINE) for extra in extras), words
