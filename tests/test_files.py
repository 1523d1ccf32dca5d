from __future__ import annotations

import json
import os

import pytest

from detkd.errors import ConfigError
from detkd.files import replacing, write_json, write_text


def test_text_lands_whole_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "β\n")
    assert path.read_text(encoding="utf-8") == "β\n"
    assert list(path.parent.iterdir()) == [path]


def test_json_has_null_for_nan_and_infinity(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"AP": float("nan"), "rows": [1, (float("inf"), "é")], "none": None})
    assert json.loads(path.read_text(encoding="utf-8")) == {"AP": None, "rows": [1, [None, "é"]], "none": None}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Expected .*x\.json to be a file that can be written") as error:
        write_json(tmp_path / "file" / "x.json", {})
    assert "\n" not in str(error.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        write_text(tmp_path / "folder", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        write_text(tmp_path / "pipe", "lost")
    assert not (tmp_path / "pipe").is_file()
