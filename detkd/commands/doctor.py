r"""Say in a minute what will go wrong in a run, or why distillation does not help it.

    detkd doctor --config configs/FAMILY/NAME.yaml [key=value ...] [--json FILE]
    detkd doctor --config runs/NAME [key=value ...]

The configuration is that of the run, of any task. Some steps are trained as the run would train them, on its own data, and
a sample of the validation split is judged; nothing is written to the run's folder. Given the folder of a finished run, it
also says with hindsight why distillation gained nothing there.

Exit code 1 if anything was found that makes the run pointless or impossible, 2 if the configuration or the data are faulty.

Examples:
    detkd doctor --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.pt
    detkd doctor --config runs/student --json findings.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

FOUND_ERROR = 1  # exit code


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd doctor", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/, or a finished run's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. distill.teacher.weights=TEACHER")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long to look (default: %(default)g)")
    parser.add_argument("--json", type=Path, help="file to write the findings to, too")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Examine a run, say what was found, and exit with 1 if that makes it pointless or impossible."""
    arguments = build_parser().parse_intermixed_args(argv)

    with speaking(arguments):
        from detkd.doctor.examination import examine, load_run
        from detkd.doctor.findings import ordered, verdict
        from detkd.doctor.printing import findings_tree
        from detkd.files import write_json
        from detkd.report.reporter import reporter

        config = load_run(arguments.config, arguments.overrides)
        findings = ordered(examine(config, seconds=arguments.seconds))
        content = {"verdict": verdict(findings), "findings": [vars(finding) for finding in findings]}
        if arguments.json is not None:
            write_json(arguments.json, content)
        reporter().result({"event": "result", **content}, findings_tree(findings, config.name), verdict(findings))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(FOUND_ERROR)
