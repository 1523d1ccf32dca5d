"""The command that times the ops, on shapes of a few numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detkd.benchmarks.cases import kl_case
from detkd.commands.bench import main
from detkd.errors import ArgumentError


@pytest.fixture
def _one_small_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkd.benchmarks.cases.cases", lambda: [kl_case((64, 8), 1)])
    monkeypatch.setattr("detkd.benchmarks.timing.copy_bandwidth", lambda _: 1.0)


@pytest.mark.usefixtures("_one_small_case")
def test_it_writes_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--repeats", "1", "--output", str(tmp_path)])
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "ops-cpu-float32.json").read_text())
    (result,) = record["results"]
    assert (result["op"], result["shape"]) == ("kl_div", [64, 8])
    assert set(result["forward"]) == set(result["forward_backward"]) == {"detkd", "eager", "compile"}
    times = result["forward_backward"]
    assert f"geometric mean over eager: {times['eager'] / times['detkd']:.1f}×" in shown
    assert result["gigabytes_per_second"] == pytest.approx(3 * 64 * 8 * 4 / times["detkd"] / 1e6)
    assert (tmp_path / "ops-cpu-float32.png").stat().st_size > 0


def test_an_op_that_is_not_there_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Expected `--op` to be one of"):
        main(["--op", "nope"])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_what_an_op_is_timed_against_says_the_same(dim: int) -> None:
    case = kl_case((4, 5, 6), dim)
    student, teacher = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    torch.testing.assert_close(case.fused(student, teacher), case.plain(student, teacher))
