"""What the three commands that train share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, silence, speaking
from detkd.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COMMAND_OF = {"detect": "detkd train-det", "segment": "detkd train-seg", "classify": "detkd train-cls"}  # a run's task


def training_parser(task: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of a training run.

    Args:
        task: What the student must do, see :data:`COMMAND_OF`.
        description: What ``--help`` says first.
    """
    parser = Parser(prog=COMMAND_OF[task], description=description)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.seed=1 distill=null")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut short")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check data, weights and settings as a run does, print its whole configuration as YAML, and write nothing",
    )
    add_speaking_options(parser)
    return parser


def train(task: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Read the command line of a training run, train, evaluate and report.

    Args:
        task: What the student must do, see :data:`COMMAND_OF`.
        parser: From :func:`training_parser`.
        argv: The command line behind the command; None takes the process's.

    Raises:
        DetkdError: If anything of the input is wrong.
    """
    arguments = parser.parse_intermixed_args(argv)

    with speaking(arguments):
        from detkd.config import dump_config, load_config

        config = load_config(arguments.config, arguments.overrides)
        if config.task != task and not config.student.architecture and config.student.weights is not None:
            raise WeightsError(
                f"Expected `student.model`, or a checkpoint that says what it is of, but {config.student.weights} does not."
            )
        if config.task != task:
            raise ConfigError(f"student.model: {config.student.architecture} is trained by {COMMAND_OF[config.task]}.")

        from detkd.engines.run import prepare_run, run_config
        from detkd.report.reporter import reporter

        if not arguments.dry_run:
            run_config(config, resume=arguments.resume)
            return
        with silence():
            prepare_run(config, resume=arguments.resume)
        record = {"event": "config", "config": config.model_dump(mode="json")}
        reporter().result(record, dump_config(config).rstrip())
