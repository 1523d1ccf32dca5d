"""Plain state dicts are read whole or refused, and fill what fits."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.detection.rpn import RPNHead

from detkd.errors import WeightsError
from detkd.weights import fill, read_state_dict, weights_digest

FILE = Path("weights.pt")


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_a_state_dict_comes_back_from_either_format(tmp_path: Path) -> None:
    state = model().state_dict()
    torch.save(dict(state), tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        read = read_state_dict(tmp_path / name)
        assert read is not None
        torch.testing.assert_close(read, dict(state))


def test_what_is_missing_broken_or_no_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is none at"):
        read_state_dict(tmp_path / "none.pt")
    for name in ("broken.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing of use")
        with pytest.raises(WeightsError, match="is broken"):
            read_state_dict(tmp_path / name)
    torch.save({"model": model().state_dict(), "epoch": 3}, tmp_path / "nested.pt")
    with pytest.raises(WeightsError, match="plain state dict"):
        read_state_dict(tmp_path / "nested.pt")


def test_a_pickled_model_is_left_to_the_caller_and_never_run(tmp_path: Path) -> None:
    torch.save(model(), tmp_path / "model.pt")
    assert read_state_dict(tmp_path / "model.pt") is None
    with torch.serialization.safe_globals([nn.Sequential, nn.Linear, set]):  # as ultralytics leaves them
        assert read_state_dict(tmp_path / "model.pt") is None
    marker = tmp_path / "ran"

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    (tmp_path / "harm.pt").write_bytes(pickle.dumps(Harm(), protocol=2))
    assert read_state_dict(tmp_path / "harm.pt") is None
    assert not marker.exists()


def test_what_fits_is_copied_and_the_rest_stays() -> None:
    source, target = model(), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    before = target[1].weight.clone()
    report = fill(target, {**source.state_dict(), "2.weight": torch.zeros(1)}, FILE)
    torch.testing.assert_close(target[0].state_dict(), source[0].state_dict())
    torch.testing.assert_close(target[1].weight, before)
    assert str(report) == "2 of the file's 5 tensors fit and fill the model's 4"


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(WeightsError, match="none of the 1 tensors of weights"):
        fill(model(), {"head.weight": torch.zeros(2)}, FILE)


def test_names_of_older_releases_fit_where_the_module_knows_them() -> None:
    source, target = RPNHead(8, 3), RPNHead(8, 3)
    old = {name.replace("conv.0.0", "conv"): value for name, value in source.state_dict().items()}
    assert fill(target, old, FILE).filled == 6
    torch.testing.assert_close(target.state_dict(), source.state_dict())
    with pytest.raises(WeightsError, match="size mismatch"):
        fill(RPNHead(16, 3), old, FILE)


def test_a_digest_is_of_the_weights_and_not_of_what_else_a_checkpoint_says(tmp_path: Path) -> None:
    own, other = model(), model()
    torch.save({"model": own, "date": "Monday"}, tmp_path / "a.pt")
    torch.save({"model": own, "date": "Tuesday, later"}, tmp_path / "b.pt")
    torch.save({"model": other, "date": "Monday"}, tmp_path / "c.pt")
    digests = [weights_digest(tmp_path / name) for name in ("a.pt", "b.pt", "c.pt")]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0] or "") == 32
    for name, weights in (("a", own), ("b", own), ("c", other)):
        (tmp_path / name).mkdir()  # as of transformers
        save_file(weights.state_dict(), tmp_path / name / "model.safetensors")
    digests = [weights_digest(tmp_path / name / "model.safetensors") for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b") != weights_digest(tmp_path / "c")


def test_of_what_is_missing_there_is_no_digest_and_of_what_is_broken_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert weights_digest(tmp_path / "none.pt") is None
    assert weights_digest(tmp_path / "empty") is None
    torch.save(dict(model().state_dict()), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    broken = [whole[:-9], whole[:100], b"no checkpoint", b""]
    for number, content in enumerate(broken):
        (tmp_path / f"{number}.pt").write_bytes(content)
    digests = {weights_digest(tmp_path / f"{number}.pt") for number in range(len(broken))}
    assert len(digests) == len(broken)
    assert None not in digests
