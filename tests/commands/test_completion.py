"""Shells complete commands, options and files; asked of the shells themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from detkd.commands import COMMANDS
from detkd.commands.completion import SHELLS
from tests.commands.calling import detkd


def complete(script: str, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    asked = f"""{script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
$(complete -p detkd | sed 's/.*-F \\([^ ]*\\).*/\\1/') detkd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    script = detkd("completion", "bash").stdout
    assert set(COMMANDS) <= set(complete(script, tmp_path, "detkd", ""))
    assert complete(script, tmp_path, "detkd", "train-d") == ["train-det"]
    assert {"--config", "--dry-run", "--log", "--quiet"} <= set(complete(script, tmp_path, "detkd", "train-det", "--"))
    assert complete(script, tmp_path, "detkd", "train-det", "--log", "") == ["rich", "json"]
    assert complete(script, tmp_path, "detkd", "train-det", "--config", "con") == ["config.yaml"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_of_all_commands(shell: str) -> None:
    done = detkd("completion", shell)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
