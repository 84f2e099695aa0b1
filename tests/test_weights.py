"""Released weights: small, safe, and whole or not there at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lcg.weights import load_weights, save_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))


def test_weights_come_back_to_the_precision_of_float16_with_their_config(tmp_path: Path) -> None:
    path, net = tmp_path / "deep" / "net.safetensors", network()
    save_weights(path, net, {"width": 7, "values": ["a", "b"]}, {"steps": 3})
    state, config, provenance = load_weights(path)
    assert config == {"width": 7, "values": ["a", "b"]} and provenance == {"steps": 3}
    for name, tensor in net.state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor if tensor.ndim < 2 else tensor.half().float())
    assert load_file(path)["0.weight"].dtype == torch.float16
    network(1).load_state_dict(state)


def test_saving_replaces_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for seed in (0, 1):
        save_weights(path, network(seed), {"seed": seed}, {})
    assert load_weights(path)[1] == {"seed": 1} and list(tmp_path.iterdir()) == [path]


def test_what_fails_while_saving_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, network(), {"seed": 0}, {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_weights(path, network(), {"seed": path}, {})
    assert load_weights(path)[1] == {"seed": 0} and list(tmp_path.iterdir()) == [path]


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no weights at .*; give the path of a \.safetensors file"):
        load_weights(path)
    save_weights(path, network(), {}, {})
    whole = path.read_bytes()
    for damaged in (b"", b"abc", whole[:100], whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a weights file of lcg or is damaged"):
            load_weights(path)
    for metadata in (None, {"config": "{}"}, {"config": "{", "provenance": "{}"}):
        save_file({"a": torch.zeros(2)}, path, metadata)
        with pytest.raises(ValueError, match="is not a weights file of lcg or is damaged"):
            load_weights(path)
