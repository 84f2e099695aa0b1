"""An exported model holds what went in, and what is damaged or hostile is refused before it costs anything."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lcg.checkpoint import LoadedNetwork, load_network, load_networks
from lcg.data.statistics import Statistics, Whitening
from lcg.models.description import Description, checksum
from lcg.models.folder import OWN_FILES, write_model
from lcg.nets.heads import tensors

FILES = ("model.json", "prior.safetensors", "classifier.safetensors", "statistics.safetensors")
Pair = tuple[LoadedNetwork[Any], LoadedNetwork[Any]]
Rewrite = Callable[[Callable[[dict[str, Any]], Any]], Path]


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["pair", "separate"])
def test_what_comes_back_is_what_was_written(tmp_path: Path, request: pytest.FixtureRequest, which: str) -> None:
    prior, classifier = request.getfixturevalue(which)
    write_model(tmp_path / "model", prior, classifier)
    p, c = load_networks(tmp_path / "model", tmp_path / "model")
    for loaded, original in ((p, prior), (c, classifier)):
        state, expected = loaded.network.state_dict(), original.network.state_dict()
        assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
        assert not loaded.network.training and not any(w.requires_grad for w in loaded.network.parameters())
        assert torch.equal(loaded.statistics.mean, original.statistics.mean)
        assert torch.equal(loaded.statistics.std, original.statistics.std)
        for name in ("store", "generator", "config", "calibration", "distilled", "provenance", "training"):
            assert getattr(loaded, name) == getattr(original, name), name
    assert c.network.schema == classifier.network.schema
    assert torch.equal(c.labels.nan_to_num(-9), classifier.labels.nan_to_num(-9)) and p.labels.shape == (0, 0)
    z, t = torch.randn(4, 2, 3), torch.full((4,), 0.3)
    assert torch.equal(p.network(z, t), prior.network(z, t))
    for (_, found), (_, wanted) in zip(tensors(c.network(z, t)), tensors(classifier.network(z, t)), strict=True):
        assert torch.equal(found, wanted)


def test_the_folder_holds_what_it_should_and_nothing_is_left_beside_it(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {*FILES, "README.md"} <= OWN_FILES
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


def test_whitening_travels(tmp_path: Path, pair: Pair) -> None:
    matrix = torch.diag(torch.linspace(0.5, 2, 6))
    statistics = Statistics(torch.zeros(2, 3), torch.ones(2, 3), Whitening(matrix, torch.linalg.inv(matrix)))
    write_model(tmp_path / "model", *(replace(loaded, statistics=statistics) for loaded in pair))
    loaded = load_network(tmp_path / "model", "denoiser").statistics
    z = torch.randn(3, 2, 3)
    assert loaded.whitening is not None and torch.equal(loaded.standardise(z), statistics.standardise(z))


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_rounds_matrices_of_the_networks_and_nothing_else(
    tmp_path: Path, pair: Pair, dtype: str, error: float
) -> None:
    write_model(tmp_path / "half", *pair, dtype)
    for loaded, original in zip(load_networks(tmp_path / "half", tmp_path / "half"), pair, strict=True):
        rounded = 0
        for name, tensor in loaded.network.state_dict().items():
            expected = original.network.state_dict()[name]
            assert tensor.dtype == torch.float32
            if tensor.ndim < 2:
                assert torch.equal(tensor, expected)
            else:
                assert torch.allclose(tensor, expected, rtol=error, atol=1e-7)
                rounded += not torch.equal(tensor, expected)
        assert rounded
        assert torch.equal(loaded.statistics.std, original.statistics.std)
    assert load_file(tmp_path / "half" / "prior.safetensors")["denoiser.net.input.weight"].itemsize == 2


def test_what_is_exported_can_be_exported_again(tmp_path: Path, exported: Path) -> None:
    write_model(tmp_path / "again", *load_networks(exported, exported))
    for name in FILES:
        assert (exported / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_distilled_prior_is_flagged(tmp_path: Path, pair: Pair) -> None:
    write_model(tmp_path / "model", replace(pair[0], distilled=True), pair[1])
    assert load_network(tmp_path / "model", "denoiser").distilled
    assert not load_network(tmp_path / "model", "classifier").distilled
    with pytest.raises(ValueError, match="is a distilled prior, which can only generate"):
        load_networks(tmp_path / "model", tmp_path / "model")


# --- writing ----------------------------------------------------------------------------------------------------------


def test_an_export_that_fails_leaves_the_earlier_one_as_it_was(exported: Path, pair: Pair) -> None:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    unfit = replace(pair[1], training={"options": {"lr": float("nan")}})
    with pytest.raises(ValueError, match="not JSON compliant"):  # when the tensors are written already
        write_model(exported, pair[0], unfit)
    pair[1].network.net.input.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"weights classifier\.net\.input\.weight must be finite, got NaN or infinity"):
        write_model(exported, *pair)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


def test_weights_too_large_for_a_precision_are_refused(tmp_path: Path, pair: Pair) -> None:
    pair[0].network.net.input.weight.data[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"`dtype` float16 cannot hold .*denoiser\.net\.input\.weight; use bfloat16"):
        write_model(tmp_path / "model", *pair, "float16")
    write_model(tmp_path / "model", *pair, "bfloat16")


def test_another_export_takes_the_place_of_the_first_whole(exported: Path, pair: Pair) -> None:
    write_model(exported, replace(pair[0], distilled=True), pair[1])
    assert load_network(exported, "denoiser").distilled
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


@pytest.mark.slow
def test_whatever_a_killed_process_leaves_is_whole(tmp_path: Path, exported: Path) -> None:
    """A process writes one model after another, and is killed a few times: each that has a name can be read."""
    writing = (
        "import itertools, sys; from pathlib import Path; from lcg.checkpoint import load_networks; "
        "from lcg.models.folder import write_model; pair = load_networks(sys.argv[1], sys.argv[1]); "
        "[print(write_model(Path(sys.argv[2]) / str(i), *pair).store, flush=True) for i in itertools.count()]"
    )
    for attempt in range(3):
        out = tmp_path / f"out-{attempt}"
        with subprocess.Popen([sys.executable, "-c", writing, exported, out], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline()  # one is written
            time.sleep(0.0137 * attempt)
            process.kill()
        named = [path for path in out.iterdir() if not path.name.startswith(".")]
        for path in named:
            read_all(path)
        assert named and len(list(out.iterdir())) <= len(named) + 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, pair: Pair) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        write_model(tmp_path / "model", *pair)
    tmp_path.chmod(0o700)


# --- damage -----------------------------------------------------------------------------------------------------------


def read_all(folder: Path) -> None:
    load_networks(folder, folder, distilled=True)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_and_its_file_named(exported: Path, name: str, place: float, bit: int) -> None:
    path = exported / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[int(place * len(whole))] ^= 1 << bit
    path.write_bytes(flipped)
    try:
        with pytest.raises(ValueError, match=name):
            read_all(exported)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(exported: Path, name: str, share: float) -> None:
    data = (exported / name).read_bytes()
    (exported / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=f"{name}.*copy"):
        read_all(exported)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(exported: Path, name: str) -> None:
    (exported / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"the exported model lacks .*{name}; copy the whole folder again"):
        read_all(exported)


def test_bytes_that_are_not_the_described_ones_are_refused(exported: Path) -> None:
    path = exported / "prior.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ValueError, match=r"prior\.safetensors is not what model\.json .*: bytes of SHA-256 .*again"):
        read_all(exported)


def test_a_file_of_another_size_than_described_is_refused(rewrite: Rewrite) -> None:
    folder = rewrite(lambda entries: entries["files"]["prior.safetensors"].update(bytes=5))
    with pytest.raises(ValueError, match=r"prior\.safetensors is not what .*bytes, its description says 5"):
        read_all(folder)


# --- strangers --------------------------------------------------------------------------------------------------------


def replace_tensors(folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Writes other tensors, and a description that agrees with them."""
    path = folder / name
    found = load_file(path)
    change(found)
    save_file(found, path)
    reseal(folder, name)


def reseal(folder: Path, name: str) -> None:
    import hashlib

    data = (folder / name).read_bytes()
    entries = json.loads((folder / "model.json").read_text())
    entries["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    entries["checksum"] = checksum(entries)
    (folder / "model.json").write_text(json.dumps(entries))


HUGE = 10**9


@pytest.mark.parametrize(
    ("part", "config", "said"),
    [
        (
            "prior",
            {"width": HUGE},
            r"`width` must be a whole number from 1 to the \d+ numbers of the file, got 1000000000",
        ),
        ("prior", {"depth": HUGE}, "`depth` must be a whole number"),
        ("prior", {"depth": 100}, r"`depth` asks for more than the \d+ numbers in \d+ tensors of the file"),
        ("prior", {"time_features": HUGE}, "`time_features` must be a whole number"),
        ("prior", {"width": True}, "`width` must be a whole number .*, got True"),
        ("prior", {"width": -1}, "`width` must be a whole number .*, got -1"),
        ("prior", {"width": 7}, "the tensor denoiser.* should be F32 .*, got F32"),
        ("prior", {"depth": 1}, "other tensors than its description asks for"),
        ("prior", {"dropout": "no"}, "`dropout` must be a number, got 'no'"),
        ("prior", {"dropout": 7.0}, "dropout probability has to be between 0 and 1"),
        ("prior", {"prediction": "__import__"}, "`prediction` must be one of eps, v"),
        ("prior", {"class_path": "os.system"}, "LatentDenoiser has no argument 'class_path'"),
        ("classifier", {"components": HUGE}, "`components` must be a whole number"),
        ("classifier", {"components": 4000}, "`components` asks for more than"),
        ("classifier", {"trunk": "separate", "depth": 20}, "`depth` asks for more than"),
        ("classifier", {"trunk": "separate"}, "`trunk` must be one of shared, separate, and shared with components=3"),
    ],
)
def test_a_constructor_that_does_not_fit_the_file_is_refused(
    rewrite: Rewrite, part: str, config: dict[str, Any], said: str
) -> None:
    folder = rewrite(lambda entries: entries[part]["config"].update(config))
    with pytest.raises(ValueError, match=rf"{part}\.safetensors is not what model\.json beside it describes: .*{said}"):
        read_all(folder)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"latent_shape": [HUGE, HUGE]}, "`latent_shape` asks for more than"),
        ({"latent_shape": [6]}, "mean should be F32 .6., got F32 .2, 3."),  # as many numbers, but another shape
        ({"schedule": "sinus"}, "`schedule` must be one of cosine, linear, constant, got 'sinus'"),
        ({"dtype": "float16"}, "should be F16 .*, got F32"),
    ],
)
def test_what_the_networks_share_is_held_against_the_files(
    rewrite: Rewrite, entries: dict[str, Any], said: str
) -> None:
    folder = rewrite(lambda there: there.update(entries))
    with pytest.raises(ValueError, match=said):
        read_all(folder)


def test_a_network_that_would_not_fit_into_memory_is_refused_within_little(rewrite: Rewrite, exported: Path) -> None:
    """The file says what the constructor says, a million million numbers, and has none of them."""
    rewrite(lambda entries: entries["prior"]["config"].update(width=2**20, depth=1))
    path = exported / "prior.safetensors"
    header = json.dumps(
        {"denoiser.net.blocks.0.up.weight": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="a header of tensors that end at byte"):
        read_all(exported)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("prior.safetensors", lambda t: t.update(extra=torch.zeros(1)), r"not known \['extra'\]"),
        ("prior.safetensors", lambda t: t.pop("denoiser.net.norm.bias"), r"missing \['denoiser.net.norm.bias'\]"),
        ("prior.safetensors", lambda t: t.update(x=torch.zeros(1, dtype=torch.int64)), "must have a shape and a type"),
        ("classifier.safetensors", lambda t: t.update(labels=torch.zeros(4, 2)), r"labels should be F32 \[4, 3\]"),
        ("classifier.safetensors", lambda t: t.update(labels=torch.full((4, 3), 7.0)), "label 'hat' of row 0"),
        ("classifier.safetensors", lambda t: t.pop("labels"), r"missing \['labels'\]"),
        ("statistics.safetensors", lambda t: t.update(std=torch.zeros(2, 3)), "`std` must be positive"),
        ("statistics.safetensors", lambda t: t.update(whitening_matrix=torch.eye(6)), "missing .'whitening_inverse'"),
    ],
)
def test_tensors_that_are_not_those_of_a_model_are_refused(
    exported: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any], said: str
) -> None:
    replace_tensors(exported, name, change)
    with pytest.raises(ValueError, match=f"{name} is not what .*{said}"):
        read_all(exported)


def test_another_network_than_those_of_a_model_is_not_in_it(exported: Path) -> None:
    with pytest.raises(
        ValueError, match="holds a prior and classifiers, expected a continuous_flow; give the checkpoint"
    ):
        load_network(exported, "continuous_flow")


def test_links_are_followed_to_files_only(exported: Path, tmp_path: Path) -> None:
    """A hub's cache is full of links; what they lead to is held against the checksums, and a device is no file."""
    path = exported / "prior.safetensors"
    moved = path.rename(tmp_path / "blob")
    path.symlink_to(moved)
    read_all(exported)
    for elsewhere in ("/dev/zero", "/etc", "nowhere"):
        path.unlink()
        path.symlink_to(elsewhere)
        with pytest.raises(FileNotFoundError, match="the exported model lacks"):
            read_all(exported)
    path.unlink()
    path.symlink_to(exported / "classifier.safetensors")
    with pytest.raises(ValueError, match=r"prior\.safetensors is not what"):
        read_all(exported)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, inner in items for deeper in paths_in(inner, (*path, key)))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_description_is_read_or_refused(exported: Path, data: st.DataObject) -> None:
    """Whatever stands in the place of one value, with a checksum that is right: a ValueError, or a model."""
    path = exported / "model.json"
    text = path.read_text()
    entries = json.loads(text)
    *parents, last = data.draw(st.sampled_from([p for p in paths_in(entries) if p and p != ("checksum",)]))
    place: Any = entries
    for key in parents:
        place = place[key]
    if data.draw(st.booleans()) or isinstance(place, list):
        place[last] = data.draw(json_values)
    else:
        del place[last]
    entries["checksum"] = checksum(entries)
    path.write_text(json.dumps(entries))
    try:
        read_all(exported)
    except ValueError as error:
        assert str(exported) in str(error)
    finally:
        path.write_text(text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.binary(max_size=64)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["denoiser.net.norm.bias", "mean", "__metadata__", ""]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "I64", "", None, ["F32"]]),
                "shape": st.lists(st.integers(-1, 2**70), max_size=10) | json_values,
                "data_offsets": st.lists(st.integers(-1, 2**70), max_size=3),
            }
        )
        | json_values,
    ).map(lambda value: json.dumps(value).encode()),
    length=st.none() | st.integers(0, 2**64 - 1),
    name=st.sampled_from(FILES[1:]),
)
def test_any_other_header_is_refused(exported: Path, header: bytes, length: int | None, name: str) -> None:
    path = exported / name
    whole, description = path.read_bytes(), (exported / "model.json").read_text()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(64))
    reseal(exported, name)
    try:
        with pytest.raises(ValueError, match=f"{name} is not what model.json"):
            read_all(exported)
    finally:
        path.write_bytes(whole)
        (exported / "model.json").write_text(description)


def test_a_copy_elsewhere_is_the_same_model(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "deep" / "copy")
    assert Description.read(tmp_path / "deep" / "copy") == Description.read(exported)
    read_all(tmp_path / "deep" / "copy")
