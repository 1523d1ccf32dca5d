"""Where marks are drawn, and what they say."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from detkd.report.html import lines, rows
from detkd.report.html.lines import Curve, line_chart, reliability_chart
from detkd.report.html.rows import Mark, Row, heat_map, row_chart
from detkd.report.html.svg import LETTER, Scale, element, scale_for, ticked, told_apart
from detkd.report.html.training import training_charts, validation_chart


def test_ticks_are_round_and_within_the_scale() -> None:
    assert Scale(0, 1, 0, 100).ticks(5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Scale(0.47, 0.58, 0, 100).ticks(4) == pytest.approx([0.5, 0.55])
    assert Scale(-0.064, 0.11, 0, 100).ticks(4) == pytest.approx([-0.05, 0, 0.05, 0.1])
    assert Scale(1, 2, 0, 100).ticks(5, whole=True) == [1, 2]
    assert Scale(1, 12, 0, 100).ticks(5, whole=True) == [2, 4, 6, 8, 10, 12]
    assert [ticked(value) for value in (0.0, 0.1 + 0.2, 1500.0, 2e-5)] == ["0", "0.3", "1500", "2e-05"]


def test_a_scale_maps_its_ends_and_has_room_for_a_single_value() -> None:
    assert Scale(2, 4, 10, 30)(3) == 20
    scale = scale_for([5.0, math.nan], 0, 100)
    assert scale.low < 5 < scale.high
    assert scale_for([], 0, 100, zero=True).high > 0
    assert scale_for([2.0, 4.0], 0, 100, zero=True).low == 0


def test_a_curve_runs_from_corner_to_corner_and_leaves_out_what_is_not_finite() -> None:
    curve = Curve("a", "student", [(0.0, 0.0), (0.5, math.nan), (1.0, 1.0)])
    root = ElementTree.fromstring(line_chart([curve], label="l", x="x", y="y", x_range=(0, 1), y_range=(0, 1)))
    (line,) = root.iter("polyline")
    left, right, top, bottom = lines.LEFT, lines.WIDTH - lines.RIGHT, lines.TOP, lines.HEIGHT - lines.BOTTOM
    assert line.get("points") == f"{left:.1f},{bottom:.1f} {right:.1f},{top:.1f}"
    assert [title.text for title in root.iter("title")] == ["a: 0 at 0", "a: 1 at 1"]
    names = [text.text for text in root.iter("text") if text.get("class") == "name"]
    assert names == ["x", "y"]


def test_a_single_epoch_is_a_dot_and_no_point_is_no_mark() -> None:
    for points, expected in (([(1.0, 2.0)], 1), ([], 0)):
        root = ElementTree.fromstring(line_chart([Curve("a", "student", points)], label="l", x="x", y="y"))
        assert not list(root.iter("polyline"))
        assert len([dot for dot in root.iter("circle") if "mark" in dot.get("class", "")]) == expected


def test_intervals_reach_as_far_as_they_do() -> None:
    row = Row("a", [Mark(0.5, "teacher", "half", (0.25, 1.0)), Mark(math.nan, "student", "none")])
    root = ElementTree.fromstring(row_chart([row], label="l", x="x", x_range=(0, 1), references=[(0.0, "zero", "none")]))
    span = next(line for line in root.iter("line") if line.get("class") == "span teacher")
    width = rows.WIDTH - rows.LEFT - rows.RIGHT
    assert float(span.get("x1", 0)) == pytest.approx(rows.LEFT + width / 4, abs=0.1)
    assert float(span.get("x2", 0)) == pytest.approx(rows.LEFT + width, abs=0.1)
    assert len(list(root.iter("polygon"))) == 1
    assert not list(root.iter("circle"))


def test_bars_are_as_high_as_the_accuracy_and_empty_bins_have_none() -> None:
    root = ElementTree.fromstring(reliability_chart([0, 0.5, 1], [0.25, 0.0], [4, 0], label="l"))
    (bar,) = root.iter("rect")
    full = lines.HEIGHT - lines.BOTTOM - lines.TOP
    assert float(bar.get("height", 0)) == pytest.approx(full / 4, abs=0.1)
    assert bar[0].text == "confidence 0.00 to 0.50: 25.0% of 4 right"


def test_a_heat_map_has_a_cell_for_each_pair_darker_where_it_is_more() -> None:
    root = ElementTree.fromstring(heat_map([[0.0, 1.0, 0.5]], label="l", x="teacher", y="student"))
    shades = [float(cell.get("fill-opacity", 0)) for cell in root.iter("rect")]
    assert len(shades) == 3
    assert shades[0] < shades[2] < shades[1]


def test_words_of_an_element_are_escaped_and_elements_are_not() -> None:
    assert element("g", element("title", "<b>"), class_='"x"') == ('<g class="&#34;x&#34;"><title>&lt;b&gt;</title></g>')


def test_labels_of_long_names_differ_where_the_names_do() -> None:
    grid = [f"score_threshold-{one}_background_weight-{two}" for one in ("0.25", "0.5") for two in (1, 2)]
    labels = told_apart(["alone", *grid], 24 * LETTER)
    assert labels["alone"] == "alone"
    assert labels[grid[0]] == "score_threshold-0.25…t-1"
    assert len(set(labels.values())) == len(labels)
    assert max(map(len, labels.values())) == 24
    assert told_apart(["a long name of a class"], 60) == {"a long name of a class": "a lo…ass"}
    # What differs at more places than a label has letters gets a number.
    parted = [f"a{first}bbbbbbbb{second}bbbbbbbb{third}c" for first in "xy" for second in "xy" for third in "xy"]
    labels = told_apart(parted, 8 * LETTER)
    assert len(set(labels.values())) == len(parted)
    assert max(map(len, labels.values())) == 8


def test_rows_of_long_names_have_room_for_them_and_the_full_name_at_the_pointer() -> None:
    names = ["temperature-2_weight-1", "temperature-2_weight-2"]
    long = [f"distill.terms.soft_kl.{name}" for name in names]
    for own, fits in ((names, True), (long, False)):
        root = ElementTree.fromstring(row_chart([Row(name, [Mark(1.0, "student", "m")]) for name in own], label="l", x="x"))
        labels = [(text.text or "", float(text.get("x", 0))) for text in root.iter("text") if text.get("class") == "label"]
        assert ([label for label, _ in labels] == own) == fits
        assert len({label for label, _ in labels}) == 2
        assert all(LETTER * len(label) <= x <= rows.WIDEST for label, x in labels)
        assert [title.text for title in root.iter("title") if title.text != "m"] == own
    short = ElementTree.fromstring(row_chart([Row("pkd", [Mark(1.0, "student", "m")])], label="l", x="x"))
    assert next(line for line in short.iter("line") if line.get("class") == "axis").get("x1") == str(rows.LEFT)


def test_the_name_of_an_axis_stays_within_the_plot() -> None:
    x = "difference of accuracy from temperature-1_weight-1"
    root = ElementTree.fromstring(row_chart([Row("temperature-2_weight-1")], label="l", x=x))
    middle = next(float(text.get("x", 0)) for text in root.iter("text") if text.text == x)
    assert middle + LETTER * len(x) / 2 <= rows.WIDTH


def test_a_training_has_a_plot_for_each_term_and_the_metric_first() -> None:
    history: list[dict[str, float | None]] = [
        {"train/box": 1.0, "train/pkd": 2.0, "metrics/AP": None},
        {"train/box": 0.5, "train/pkd": 1.0, "metrics/AP": 0.3},
    ]
    plots, weights = training_charts(history, [{"pkd": 1.0}], "segment")
    assert [title for title, _ in plots] == ["validation mask AP", "box", "pkd"]
    assert [title for title, _ in weights] == ["weight of pkd"]
    assert training_charts([], [], "segment") == ([], [])


def test_the_mean_of_seeds_is_taken_at_common_epochs() -> None:
    def seed(*values: float) -> list[dict[str, float | None]]:
        return [{"metrics/accuracy": value} for value in values]

    plot = validation_chart({"alone": ("baseline", [seed(0.2, 0.4, 0.9), seed(0.4, 0.6)])}, "classify")
    assert plot is not None
    titles = [title.text for title in ElementTree.fromstring(plot[1]).iter("title")]
    assert titles == ["alone: 0.3 at 1", "alone: 0.5 at 2"]
    assert validation_chart({"alone": ("baseline", [[]])}, "classify") is None
