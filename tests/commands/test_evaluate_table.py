"""The table that `detkd evaluate` prints."""

from __future__ import annotations

import io

from rich.console import Console

from detkd.commands.evaluate import _table


def test_names_of_classes_are_no_markup() -> None:
    table = _table({"AP": 0.5, "per_class": {"truck [small]": 0.25, "a[/b]": 0.75}})
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "AP truck [small]" in text
    assert "AP a[/b]" in text
