"""The cache's files: written by several processes, killed, resumed, damaged, stale."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from detkd.errors import CacheError
from detkd.teachers import store as module
from detkd.teachers.store import INDEX, Field, Index, Shard, Store, View
from detkd.teachers.writer import Writer

FINGERPRINT = {"data": {"images": 5, "pictures": "aa"}, "transform": {"mosaic": 1.0, "scale": (0.5, 1)}}
FIELDS = {"logits": Field("float16", (3, 4)), "anchors": Field("int32", (4,))}
VIEWS = {"full": 2, "closed": 1}
FORK = multiprocessing.get_context("fork")


def plan(**changes: object) -> Index:
    index = Index.plan(FINGERPRINT, 5, FIELDS)
    return Index(**{**vars(index), "rows": 2, **changes})


def content(shard: Shard, images: range) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(hash((shard.view, shard.block, len(shard.stage))))
    logits = torch.randn(len(images), 3, 4, generator=generator).half()
    return {"logits": logits, "anchors": torch.tensor([*images], dtype=torch.int32)[:, None].expand(-1, 4)}


def fill(folder: Path, compute: object = content, views: dict[str, int] = VIEWS) -> list[Shard]:
    made: list[Shard] = []
    Writer(folder, plan(), views).fill(compute, made.append)
    return made


def read(folder: Path, views: dict[str, int] = VIEWS) -> Store:
    return Store(folder, FINGERPRINT, ["logits", "anchors"], views)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    assert len(fill(tmp_path)) == 9
    rows = read(tmp_path).read([View("closed", 0, 4), View("full", 1, 3)])
    assert torch.equal(rows["logits"][0], content(Shard("closed", 0, 2), range(4, 5))["logits"][0])
    assert torch.equal(rows["logits"][1], content(Shard("full", 1, 1), range(2, 4))["logits"][1])
    assert rows["anchors"].tolist() == [[4] * 4, [3] * 4]
    assert not [path for path in tmp_path.iterdir() if path.suffix not in {".safetensors", ".json", ".lock"} | {""}]


def test_more_views_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(CacheError, match="3 of 12 shards are missing"):
        read(tmp_path, {"full": 3, "closed": 1})
    assert [shard.view for shard in fill(tmp_path, views={"full": 3, "closed": 1})] == [2, 2, 2]
    read(tmp_path, {"full": 3, "closed": 1})
    read(tmp_path, {"full": 1})


def test_the_size_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"logits": Field("float16", (80, 128))}
    writer = Writer(tmp_path / "cache", Index.plan(FINGERPRINT, 5, fields), VIEWS)
    expected = writer.check_space()
    assert not (tmp_path / "cache").exists()
    writer.fill(lambda _, images: {"logits": torch.zeros(len(images), 80, 128).half()}, lambda _: None)
    real = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert real == pytest.approx(expected, rel=0.1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(CacheError, match="GiB free"):
        Writer(tmp_path / "other", plan(), {"full": 50}).check_space()


def test_a_killed_process_leaves_nothing_half_and_the_next_goes_on(tmp_path: Path) -> None:
    def die(shard: Shard, images: range) -> dict[str, torch.Tensor]:
        if shard == Shard("full", 1, 0):
            (tmp_path / f".{Path(shard.name).stem}-half.safetensors").write_bytes(b"half")  # as `replacing` leaves it
            os.kill(os.getpid(), signal.SIGKILL)
        return content(shard, images)

    process = FORK.Process(target=fill, args=(tmp_path, die))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(CacheError, match=r"6 of 9 shards are missing, the first full-001-00000"):
        read(tmp_path)
    assert len(fill(tmp_path)) == 6
    assert not list(tmp_path.glob("*half*")) + list(tmp_path.glob(".*half*"))
    read(tmp_path)


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    together = FORK.Barrier(2)
    log = tmp_path / "log"

    def slow(shard: Shard, images: range) -> dict[str, torch.Tensor]:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {shard.name}\n")
        if shard.block == 0:
            together.wait(30)  # both are at work at the same time, or this times out
        return content(shard, images)

    def work() -> None:
        fill(tmp_path / "cache", slow, {"full": 2})

    processes = [FORK.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    workers, shards = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert len(set(workers)) == 2
    assert len(shards) == len(set(shards)) == 6  # none was computed twice
    read(tmp_path / "cache", {"full": 2})


def test_a_damaged_shard_is_refused_and_made_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    shard = tmp_path / "full-001-00002.safetensors"
    whole = shard.read_bytes()
    for damage, reason in (
        (lambda: shard.write_bytes(whole[:-9]), r"full-001-00002.*truncated or overwritten: it has"),
        (shard.unlink, r"full-001-00002.*it is missing"),
    ):
        damage()
        with pytest.raises(CacheError, match=reason):
            read(tmp_path)
        assert Writer(tmp_path, plan(), VIEWS).drop_damaged() == [shard.name]
        assert [made.name for made in fill(tmp_path)] == [shard.name]
    shard.write_bytes(whole[:-9] + b"\xff" + whole[-8:])  # of the right size
    assert Writer(tmp_path, plan(), VIEWS).drop_damaged() == [shard.name]
    fill(tmp_path)
    shutil.copy(tmp_path / "full-000-00002.safetensors", shard)  # another's file under its name
    with pytest.raises(CacheError, match=r"full-001-00002.*but it says.*full-000-00002"):
        read(tmp_path).read([View("full", 1, 4)])
    shard.write_bytes(b"\xff" * len(whole))
    with pytest.raises(CacheError, match="to be a shard, but"):
        read(tmp_path).read([View("full", 1, 4)])


@pytest.mark.parametrize(
    ("section", "key", "value"), [("data", "pictures", "bb"), ("data", "images", 6), ("transform", "mosaic", 0.0)]
)
def test_a_stale_cache_is_refused_with_what_differs(tmp_path: Path, section: str, key: str, value: object) -> None:
    fill(tmp_path)
    fingerprint = {**FINGERPRINT, section: {**FINGERPRINT[section], key: value}}
    there = FINGERPRINT[section][key]
    for use in (
        lambda: Store(tmp_path, fingerprint, [], {}),
        lambda: Writer(tmp_path, plan(fingerprint=fingerprint), VIEWS),
    ):
        with pytest.raises(CacheError) as error:
            use()
        assert f"it is stale: {section}.{key} is {there!r} there and {value!r} here." in str(error.value)
        assert "\n" not in str(error.value)


def test_other_fields_another_format_and_no_cache_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheError, match=r"there is no index\.json"):
        read(tmp_path)
    fill(tmp_path)
    with pytest.raises(CacheError, match=r"it lacks \['features\.0'\]"):
        Store(tmp_path, FINGERPRINT, ["features.0"], VIEWS)
    with pytest.raises(CacheError, match="to hold the fields"):
        Writer(tmp_path, plan(fields={"logits": FIELDS["logits"]}), VIEWS)
    with monkeypatch.context() as patch:
        patch.setattr(module, "FORMAT", 2)
        with pytest.raises(CacheError, match="of format 2, but it is of format 1"):
            read(tmp_path)
    tree = json.loads((tmp_path / INDEX).read_text())
    for broken in ("{", "[]", json.dumps({**tree, "shards": [1]})):
        (tmp_path / INDEX).write_text(broken)
        with pytest.raises(CacheError, match="to be the index of a teacher cache"):
            read(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CacheError, match="folder that can be written"):
        Writer(file / "below", plan(), VIEWS).fill(content, lambda _: None)
