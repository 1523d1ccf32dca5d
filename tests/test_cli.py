from __future__ import annotations

import pytest

from detkd.cli import run
from detkd.errors import ConfigError


def code_of(main) -> int:
    with pytest.raises(SystemExit) as exit_info:
        run(main)
    return exit_info.value.code


def test_success_ends_with_zero(capsys):
    assert code_of(lambda: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_an_error_of_the_user_is_printed_line_by_line_with_exit_code_two(capsys):
    def main() -> None:
        raise ConfigError("a: unknown key.\nb: required, but missing.")

    assert code_of(main) == 2
    assert capsys.readouterr() == ("", "error: a: unknown key.\nerror: b: required, but missing.\n")


def test_an_interrupt_ends_as_a_shell_expects(capsys):
    def main() -> None:
        raise KeyboardInterrupt

    assert code_of(main) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_defect_keeps_its_traceback():
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)
