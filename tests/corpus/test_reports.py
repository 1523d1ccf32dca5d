"""Whatever stands in the files of a finished run, its report is written or says what is wrong; nothing else is raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detkd.errors import DataError
from detkd.report.html.report import write_report
from tests.corpus.test_parsers import refused_by, values
from tests.report.html.folders import write_classifier, write_comparison, write_run

WRITERS: dict[str, Callable[[Path], Path]] = {
    "run": write_run,
    "classifier": write_classifier,
    "comparison": write_comparison,
}
ODD = st.sampled_from([None, True, 0, -1, 1e30, -1e-30, 1e300, float("nan"), float("inf"), "", "\ud800", "../x", [], {}])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write(tmp_path_factory.mktemp(kind) / "found") for kind, write in WRITERS.items()}


def places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a tree; of long lists, which are alike, to the first three."""
    yield above
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from places(value, (*above, key))


def changed(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value in one place."""
    if not place:
        return value
    copy = tree.copy()
    copy[place[0]] = changed(tree[place[0]], place[1:], value)
    return copy


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("run", "results.json"),
        ("run", "curves.json"),
        ("run", "pictures/index.json"),
        ("classifier", "results.json"),
        ("classifier", "curves.json"),
        ("comparison", "comparison.json"),
        ("comparison", "pkd-0/results.json"),
    ],
)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_one_value_that_is_another(whole: dict[str, Path], kind: str, name: str, data: st.DataObject) -> None:
    path = whole[kind] / name
    content = path.read_text()
    tree = json.loads(content)
    there = list(places(tree))
    place = data.draw(st.sampled_from(there))
    value = data.draw(st.one_of(ODD, values, st.just(tree)))
    try:
        path.write_text(json.dumps(changed(tree, place, value)))
        refused_by(DataError, lambda: write_report(whole[kind]))
    finally:
        path.write_text(content)
