"""What reaches standard output and standard error of a command that a person, a program or nobody listens to."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detkd.commands.speaking import add_speaking_options, speaking
from detkd.report.reporter import reporter
from tests.commands.calling import detkd, write_config
from tests.engines.conftest import TINY, TINY_RCNN


def talk(*options: str) -> None:
    """A command, and a library below it that prints in all ways."""
    parser = argparse.ArgumentParser()
    add_speaking_options(parser)
    with speaking(parser.parse_args(options)):
        print("printed")
        os.write(1, b"compiled\n")
        warnings.warn("careful", stacklevel=1)
        reporter().result({"event": "result"}, "done")


def test_programs_get_the_records_alone_and_all_else_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="careful"):
        talk("--log", "json")
    out, err = capfd.readouterr()
    assert out == '{"event": "result"}\n'
    assert {"printed", "compiled"} <= set(err.splitlines())
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_quiet_commands_print_nothing_and_warn_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        talk("--quiet")
    assert capfd.readouterr() == ("", "")
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


def test_a_yolo_tells_a_program_and_tensorboard_of_each_epoch_however_much_ultralytics_prints(
    data: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, data, student=TINY, trainer={"verbose": True}, loggers=["tensorboard"])
    done = detkd("train-det", "--config", config, "--log", "json")
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, result = (json.loads(line) for line in done.stdout.splitlines())
    results = json.loads((tmp_path / "runs" / "run" / "results.json").read_text())
    for line, row in zip((first, second), results["history"], strict=True):
        assert (line["event"], line["run"], line["epoch"], line["epochs"]) == ("epoch", "run", row["epoch"], 2)
        assert line["train/box_loss"] == pytest.approx(row["train/box_loss"], abs=1e-4)
        assert line["metrics/mAP50-95(B)"] == pytest.approx(row["metrics/mAP50-95(B)"], abs=1e-4)
    assert result["event"] == "result"
    assert result["student"] == results["student"]
    events = EventAccumulator(str(tmp_path / "runs" / "run" / "tensorboard")).Reload()
    shown = [event.value for event in events.Scalars("train/box_loss")]
    assert shown == pytest.approx([first["train/box_loss"], second["train/box_loss"]])
    assert "epoch" not in events.Tags()["scalars"]


def test_a_quiet_run_leaves_its_results_and_no_word(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, data, student=TINY_RCNN)
    done = detkd("train-det", "--config", config, "--quiet", "train.epochs=1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "runs" / "run" / "results.json").exists()
    for options in (["--quiet"], ["--log", "json"]):
        again = detkd("train-det", "--config", config, *options, "train.epochs=1")
        assert (again.returncode, again.stdout) == (2, "")
        assert again.stderr.startswith("error: name: expected a new run")
        assert len(again.stderr.splitlines()) == 1


def test_quiet_and_json_exclude_each_other() -> None:
    done = detkd("evaluate", "--quiet", "--log", "json")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "not allowed with argument --quiet" in done.stderr
