"""Folders of runs and comparisons whose files are cut off, or of something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.corpus.case import Case, Change, cut, folder_instead, write
from tests.report.html.folders import write_comparison, write_run

Tree = dict[str, Any]


def told(what: str, says: str, broken: Change, *arguments: str, make: Callable[[Path], Path] = write_run) -> Case:
    """A report of a folder that was whole before."""

    def change(here: Path) -> None:
        make(here / "found")
        broken(here)

    return Case(f"report: {what}", "pictures", says, change, ("HERE/found", *arguments), "report")


def compared(what: str, says: str, broken: Change, *arguments: str) -> Case:
    """The same of a comparison."""
    return told(what, says, broken, *arguments, make=write_comparison)


def changed(name: str, change: Callable[[Tree], Any]) -> Change:
    """Change the tree in a JSON of the folder."""

    def work(here: Path) -> None:
        path = here / "found" / name
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return work


def configured(here: Path) -> None:
    """A distilled run's configuration that is one, and another run whose is none."""
    tree = yaml.safe_load((here / "run.yaml").read_text())
    tree["distill"] = {"teacher": {"weights": "teacher.pt"}, "terms": {"pkd": {}}}
    (here / "found" / "config.yaml").write_text(yaml.safe_dump(tree))
    write_run(here / "alone", taught=False)


def untaught(here: Path) -> None:
    """The configuration of a run that is not distilled."""
    shutil.copy(here / "run.yaml", here / "found" / "config.yaml")


RESULTS, CURVES, TABLE, INDEX = "results.json", "curves.json", "comparison.json", "pictures/index.json"
FOUND = "HERE/found/"

CASES = [
    Case("report: no folder", "pictures", "HERE/nowhere", arguments=("HERE/nowhere",), command="report"),
    told("results cut off", f"{FOUND}{RESULTS}: expected what detkd writes there", cut(f"found/{RESULTS}")),
    told("empty results", f"{FOUND}{RESULTS}", write(f"found/{RESULTS}", "")),
    told("results of bytes", f"{FOUND}{RESULTS}", write(f"found/{RESULTS}", b"\xff\xfe\x00")),
    told("results nested too deeply", "nested too deeply", write(f"found/{RESULTS}", "[" * 100_000)),
    told("results that are a list", f"{FOUND}{RESULTS}", write(f"found/{RESULTS}", "[]")),
    told("results of coco", "`task` is missing", write(f"found/{RESULTS}", '{"images": [], "annotations": []}')),
    told("results without a student", "`student` is missing", changed(RESULTS, lambda tree: tree.pop("student"))),
    told("results of no split", "student.metrics", changed(RESULTS, lambda tree: tree["student"].update(metrics={}))),
    told("results of an unknown task", "`task`", changed(RESULTS, lambda tree: tree.update(task="paint"))),
    told("a history of words", "`history.0.epoch`", changed(RESULTS, lambda tree: tree["history"][0].update(epoch="one"))),
    told("a size in words", "`student.parameters`", changed(RESULTS, lambda tree: tree["student"].update(parameters="1"))),
    told("half a character", "surrogates", changed(RESULTS, lambda tree: tree["host"].update(machine="\ud800"))),
    told("a command of numbers", "`command.0`", changed(RESULTS, lambda tree: tree.update(command=[1, 2]))),
    told("curves cut off", f"{FOUND}{CURVES}: expected what detkd writes there", cut(f"found/{CURVES}")),
    told("curves of one point", "Delete it", changed(CURVES, lambda tree: _points(tree, [0.5]))),
    told("curves of words", f"{FOUND}{CURVES}", changed(CURVES, lambda tree: _points(tree, ["a", "b"]))),
    told("an index cut off", f"{FOUND}{INDEX}: expected what detkd writes there", cut(f"found/{INDEX}")),
    told(
        "a picture of another kind of file",
        f"{FOUND}{INDEX}",
        changed(INDEX, lambda tree: tree["pictures"][0]["views"].update(student="../../secret.txt")),
    ),
    compared("a comparison cut off", f"{FOUND}{TABLE}: expected what detkd writes there", cut(f"found/{TABLE}")),
    compared("a comparison of a list", f"{FOUND}{TABLE}", write(f"found/{TABLE}", "[1]")),
    compared("a comparison without baseline", "lacks the baseline", changed(TABLE, lambda t: t["recipes"].pop("alone"))),
    compared("a seed too few", "recipes.pkd.AP", changed(TABLE, lambda t: t["recipes"]["pkd"].update(AP=[0.1]))),
    compared("a recipe of words", "`recipes.pkd`", changed(TABLE, lambda t: t["recipes"].update(pkd="better"))),
    compared("a run of a comparison cut off", f"{FOUND}pkd-1/{RESULTS}", cut(f"found/pkd-1/{RESULTS}")),
    compared("a run's curves cut off", f"{FOUND}alone-0/{CURVES}", cut(f"found/alone-0/{CURVES}")),
    told("a baseline that is nowhere", "HERE/nowhere/config.yaml", configured, "--baseline", "HERE/nowhere"),
    told("a baseline of no known keys", "HERE/alone/config.yaml: data: required", configured, "--baseline", "HERE/alone"),
    told("a run that is alone itself", "not distilled itself", untaught, "--baseline", "HERE/found"),
    told("a run of no known keys", f"{FOUND}config.yaml: data: required", lambda _: None, "--baseline", "HERE/found"),
    compared("a baseline of a comparison", "HERE/found/config.yaml", lambda _: None, "--baseline", "HERE/found/alone-0"),
    told("results that are a folder", "neither", folder_instead(f"found/{RESULTS}")),
]


def _points(tree: Tree, values: list[Any]) -> None:
    tree["precision_recall"]["student"]["by_overlap"]["0.5"] = values
