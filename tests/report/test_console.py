"""What a run prints."""

from __future__ import annotations

import io

from rich.console import Console

from detkd.report.console import TrainingProgress, results_table


def test_without_a_terminal_each_epoch_is_one_line() -> None:
    out = io.StringIO()
    with TrainingProgress("run", 3, "val AP", "AP", Console(file=out, width=120)) as progress:
        progress.step(0.5)
        progress.epoch(1, {"AP": 0.25, "loss": 1.0})
        progress.epoch(2, {"AP": 0.5})
    assert out.getvalue().splitlines() == ["run: epoch 1/3  val AP 0.250", "run: epoch 2/3  val AP 0.500"]


def test_on_a_terminal_a_bar_shows_epochs_and_the_latest_value() -> None:
    out = io.StringIO()
    with TrainingProgress("run", 3, "val AP", "AP", Console(file=out, width=160, force_terminal=True)) as progress:
        progress.epoch(2, {"AP": 0.5})
    assert "2/3" in out.getvalue()
    assert "val AP 0.500" in out.getvalue()


def test_a_table_shows_each_model_in_its_row() -> None:
    model = {
        "metrics": {"test": {"AP": 0.5, "AP50": 0.75, "AP75": 0.25}},
        "parameters": 2_500_000,
        "gflops": 1.234,
        "cpu_ms": 12.34,
    }
    out = io.StringIO()
    Console(file=out, width=120).print(results_table([("teacher", model)], "test", ("AP", "AP50", "AP75")))
    text = out.getvalue()
    assert "Metrics on test" in text
    row = next(line for line in text.splitlines() if "teacher" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "teacher",
        "0.500",
        "0.750",
        "0.250",
        "2.50 M",
        "1.23",
        "12.3",
    ]
