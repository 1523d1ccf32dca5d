"""What the pages of runs and comparisons say, and that nothing of it breaks out."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from detkd.errors import DataError
from detkd.report.html.page import command_line, count, duration, number, parted, share, signed
from detkd.report.html.report import write_report
from tests.report.html.folders import HOSTILE, QUOTED, write_classifier, write_comparison, write_results, write_run


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def words(page: str) -> str:
    """What a reader sees, without marks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


class Attributes(HTMLParser):
    """Names of all attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {name for name, _ in attrs}


@pytest.mark.parametrize("write", [write_run, write_comparison, write_classifier])
def test_names_from_data_stay_text_and_nothing_is_loaded_from_elsewhere(write, tmp_path: Path) -> None:
    page = page_of(write(tmp_path / "one"))
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    if write is not write_comparison:
        assert "&lt;script&gt;window.broken=1&lt;/script&gt;" in page
    assert all(source.startswith("data:image/webp;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r"<(link|iframe|object|base|form)\b|href=|https?:|@import|url\(", page)


def test_the_policy_allows_the_pages_own_style_and_script_alone(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "one"))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; img-src data:;")
    for kind, name in (("style", "style"), ("script", "script")):
        content = re.search(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{kind}-src &#39;sha256-{digest}&#39;" in policy[1].replace("&#43;", "+")
    parser = Attributes()
    parser.feed(page)
    assert "content" in parser.found
    assert not [name for name in parser.found if name == "style" or name.startswith("on")]


def test_a_run_says_what_was_reached_at_which_price(tmp_path: Path) -> None:
    said = words(page_of(write_run(tmp_path / "one")))
    assert "AP 0.610 0.570–0.640 0.410 0.370–0.440" in said
    assert "parameters 2.50 M 0.32 M" in said
    assert "size of the student 13% of the teacher&#39;s" in said
    assert "8 epochs in 1 min 15 s" in said
    assert "APs – –" in said
    assert "AR1 " not in said
    assert "python tools/train_det.py --config &#39;a b.yaml&#39; &#39;name=" in said


def test_the_student_alone_stands_beside_the_distilled_one_with_the_difference(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", taught=False, ap=0.38)
    page = write_report(write_run(tmp_path / "one"), alone).read_text(encoding="utf-8")
    said = words(page)
    assert "teacher student, alone student, distilled difference" in said
    assert "AP 0.610 0.570–0.640 0.380 0.340–0.410 0.410 0.370–0.440 +0.030" in said
    assert "APs – – – –" in said
    assert "parameters 2.50 M 0.32 M 0.32 M" in said
    assert "box AP gained +0.030 over the student alone, one seed" in said
    assert "box AP of the teacher 0.610" in said
    assert "size of the student 13% of the teacher&#39;s" in said
    assert "The student alone is that of the run alone, whose configuration is the same but for distillation." in said
    assert "student, alone: AP 0.380 (0.340 to 0.410)" in page
    # Each picture as both students see it, the student alone on the left; and its curve among the others.
    assert re.findall(r'<figure data-role="([^"]*)"', page)[:4] == ["ground truth", "teacher", "student, alone", "student"]
    assert page.count('data-left="student, alone" data-right="student"') == 2
    assert page.count('class="mark line baseline"') == page.count('class="mark line teacher"') > 0


def test_without_the_student_alone_no_difference_is_told(tmp_path: Path) -> None:
    said = words(page_of(write_run(tmp_path / "one")))
    assert "difference" not in said
    assert "gained +" not in said


def test_a_classifier_has_the_student_alone_in_all_its_plots(tmp_path: Path) -> None:
    alone, folder = write_classifier(tmp_path / "alone"), write_classifier(tmp_path / "one")
    page = write_report(folder, alone).read_text(encoding="utf-8")
    assert "student, alone: ECE" in page
    assert f"{HOSTILE}, student, alone: 0.900".replace("<", "&lt;").replace(">", "&gt;") in page
    assert "accuracy gained +0.000" in words(page)


def test_a_comparison_says_what_was_gained(tmp_path: Path) -> None:
    page = page_of(write_comparison(tmp_path / "table"))
    said = words(page)
    assert "pkd 0.455 0.450 · 0.460 +0.045 −0.030 to +0.110" in said
    assert "25 % 0.32 M" in said
    # Each picture as the truth, the teacher and both students of the first seed see it.
    assert re.findall(r'<figure data-role="([^"]*)"', page) == ["ground truth", "teacher", "alone", "pkd"] * 2
    assert 'data-left="alone" data-right="pkd"' in page


def test_a_comparison_whose_runs_are_gone_still_has_its_table_and_plots(tmp_path: Path) -> None:
    page = page_of(write_comparison(tmp_path / "table", runs=False))
    assert "What was gained" in page
    assert page.count('class="plot"') == 6
    assert 'id="pictures"' not in page


def test_an_older_run_without_curves_and_pictures_shows_the_grids_that_it_drew(tmp_path: Path) -> None:
    write_results(tmp_path / "old", taught=False)
    (tmp_path / "old" / "config.yaml").unlink()
    (tmp_path / "old" / "detections.png").write_bytes(b"\x89PNG")
    page = page_of(tmp_path / "old")
    assert 'src="data:image/png;base64,iVBORw=="' in page
    assert "Precision, recall" not in page
    assert "Configuration" not in page
    assert "student, alone" in page


def test_a_classifier_has_its_reliability_and_layers(tmp_path: Path) -> None:
    said = words(page_of(write_classifier(tmp_path / "one")))
    assert "accuracy 0.800 0.700–0.900" in said
    assert "Wilson" in said
    assert "Centred kernel alignment" in said


def test_every_plot_is_well_formed_and_holds_its_names(tmp_path: Path) -> None:
    for write in (write_run, write_comparison, write_classifier):
        page = page_of(write(tmp_path / write.__name__))
        plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        assert len(plots) > 5
        for plot in plots:
            ElementTree.fromstring(plot)
    titles = [node.text for plot in plots for node in ElementTree.fromstring(plot).iter("title")]
    assert any(title and HOSTILE in title for title in titles)
    assert any(title and QUOTED in title for title in titles)


def test_what_is_no_run_or_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with results\.json or comparison\.json"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"student": {}}')
    with pytest.raises(DataError, match=r"results\.json: expected .*, but `task` is missing, and \d+ more faults"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json: expected what detkd writes there, but: Expecting property name"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_numbers_are_written_for_readers() -> None:
    assert [number(0.12345), number(None), number(float("nan")), number(2, 1)] == ["0.123", "–", "–", "2.0"]
    assert [signed(0.01), signed(-0.01), signed(None)] == ["+0.010", "−0.010", "–"]
    assert [count(324_409), count(30_918), count(14_328_354)] == ["0.32 M", "30.9 k", "14.33 M"]
    assert [share(0.13), share(0.00215)] == ["13%", "0.2%"]
    assert [duration(7.4), duration(75), duration(7300)] == ["7 s", "1 min 15 s", "2 h 1 min"]


def test_the_command_is_one_that_can_be_typed() -> None:
    assert command_line(["tools/train_det.py", "a b"]) == "python tools/train_det.py 'a b'"
    assert command_line(["/usr/local/bin/detkd", "train-det"]) == "detkd train-det"
    assert command_line(["/lib/detkd/__main__.py", "compare"]) == "python -m detkd compare"


def test_names_may_break_at_separators_but_not_between_a_key_and_its_value() -> None:
    def parts(name: str) -> list[str]:
        return re.findall(r'<span class="part">(.*?)</span>', parted(name))

    assert parts("temperature-2_weight--1e-05") == ["temperature-2_", "weight--1e-05"]
    assert parts("soft-kl of logits") == ["soft-", "kl ", "of ", "logits"]
    assert parts("<b>_-") == ["&lt;b&gt;_", "-"]
    assert parts("") == [""]


def test_a_picture_that_is_gone_or_a_link_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    files = sorted((folder / "pictures").glob("*.webp"))
    before = page_of(folder).count("data:image/webp")
    (tmp_path / "secret.webp").write_bytes(files[0].read_bytes())
    files[0].unlink()
    files[0].symlink_to(tmp_path / "secret.webp")
    files[1].unlink()
    assert page_of(folder).count("data:image/webp") == before - 2
    for file in files[2:]:
        file.unlink()
    assert "data:image/webp" not in page_of(folder)
