"""Pictures of runs, inside the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.report.gallery import FOLDER, read_index
from detkd.report.html.models import ALONE
from detkd.report.html.page import data_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRIDS = ("detections.png", "segments.png", "reliability.png", "similarity.png", "attention.png", "training.png")


@dataclass(frozen=True)
class View:
    """A picture as one model, or the truth, sees it.

    Attributes:
        role: Who.
        caption: What there is to say of it.
        source: Its content as an address.
    """

    role: str
    caption: str
    source: str


@dataclass(frozen=True)
class Compared:
    """Views of one picture, two of which are compared.

    Attributes:
        title: Name of the picture.
        views: The views.
        left: Role that is shown on the left at first.
        right: The same on the right.
    """

    title: str
    views: list[View]
    left: str
    right: str


@dataclass(frozen=True)
class Pictures:
    """All pictures of a page.

    Attributes:
        compared: What was found on each picture.
        attention: Where models look, on each picture and level.
        legend: Meaning to colour.
        note: What holds of all.
        grids: Ready-made panels by their name, of runs that kept no single pictures.
    """

    compared: list[Compared] = field(default_factory=list)
    attention: list[Compared] = field(default_factory=list)
    legend: dict[str, str] = field(default_factory=dict)
    note: str = ""
    grids: list[tuple[str, str]] = field(default_factory=list)


def pictures_of(folder: Path, baseline: Path | None = None, *, curves: bool) -> Pictures:
    """The pictures of a run; of one that has kept no single ones, and no curves, the grids that it drew.

    Args:
        folder: Of the run.
        baseline: Of the run that trained the same student alone; what that one sees is shown, too.
        curves: Whether it has kept curves.
    """
    index = read_index(folder)
    if index is None:
        there = [] if curves else [name for name in GRIDS if (folder / name).is_file()]
        return Pictures(grids=[(Path(name).stem, data_uri(folder / name)) for name in there])
    alone = {} if baseline is None else _views_alone(baseline)
    compared: list[tuple[str, list[View]]] = []
    attention: list[tuple[str, list[View]]] = []
    for entry in index["pictures"]:
        views = _views(folder, entry["views"], entry["captions"])
        own = [view for view in views if view.role == "student"]
        others = [view for view in views if view.role != "student"]
        compared.append((entry["title"], others + alone.get(entry["title"], []) + own if views else []))
        for level in entry["attention"]:
            attention.append((f"{entry['title']}, {level['level']}", _views(folder, level["views"], {})))
    return Pictures(_drawn(compared), _drawn(attention), index["legend"], index["note"])


def _drawn(found: Sequence[tuple[str, list[View]]]) -> list[Compared]:
    """Those pictures of which there is a view."""
    return [_compared(title, views) for title, views in found if views]


def merged(runs: Mapping[str, Path]) -> Pictures:
    """The same pictures as seen by the students of several runs, by the name that each is to have here.

    Args:
        runs: Folder of each run; where a run has no picture of a title, it is left out there.
    """
    indices = {name: index for name, folder in runs.items() if (index := read_index(folder)) is not None}
    if not indices:
        return Pictures()
    views: dict[str, dict[str, View]] = {}
    for name, index in indices.items():
        for entry in index["pictures"]:
            own = views.setdefault(entry["title"], {})
            for view in _views(runs[name], entry["views"], entry["captions"]):
                role = name if view.role == "student" else view.role
                if view.role != "student" and "student" in view.role:
                    continue  # what is said of one student alone
                own.setdefault(role, View(role, view.caption, view.source))
    first = next(iter(indices.values()))
    ordered = [(title, _ordered(list(own.values()), list(runs))) for title, own in views.items() if own]
    return Pictures(
        [Compared(title, own, *_ends([view.role for view in own], list(runs))) for title, own in ordered],
        legend=first["legend"],
        note=first["note"],
    )


def _views_alone(baseline: Path) -> dict[str, list[View]]:
    """What the student of a run without a teacher sees, by the title of the picture."""
    entries = (read_index(baseline) or {"pictures": []})["pictures"]
    views = {
        entry["title"]: [view for view in _views(baseline, entry["views"], entry["captions"]) if view.role == "student"]
        for entry in entries
    }
    return {title: [View(ALONE, view.caption, view.source) for view in own] for title, own in views.items()}


def _ordered(views: list[View], students: Sequence[str]) -> list[View]:
    return [view for view in views if view.role not in students] + [view for view in views if view.role in students]


def _ends(roles: Sequence[str], students: Sequence[str]) -> tuple[str, str]:
    """The baseline on the left, what was gained on the right."""
    there = [role for role in students if role in roles]
    return (there[0], there[-1]) if len(there) > 1 else (roles[0], roles[-1])


def _compared(title: str, views: list[View]) -> Compared:
    roles = [view.role for view in views]
    right = "student" if "student" in roles else roles[-1]
    others = (ALONE, *(role for role in roles if role.startswith("teacher")), "ground truth", "labels")
    left = next((role for role in others if role in roles), roles[0])
    return Compared(title, views, left, right)


def _views(folder: Path, names: Mapping[str, str], captions: Mapping[str, Any]) -> list[View]:
    """Those whose files are there; a link is none, which a page that is mailed would follow out of the folder."""
    files = {role: folder / FOLDER / Path(name).name for role, name in names.items()}
    there = {role: file for role, file in files.items() if file.is_file() and not file.is_symlink()}
    return [View(role, str(captions.get(role, "")), data_uri(file)) for role, file in there.items()]
