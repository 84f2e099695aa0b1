"""torchvision can be imported beside any torch once lcg is, whoever imports it; other faults keep their message."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lcg.torchvision_operators import DECLARED, OperatorsFinder, arm

DESCRIBES = """
import torch
from torchvision import extension
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    return dets
"""
STAND_IN = {
    "__init__.py": "from torchvision import extension, operators\nfinished = True\n",
    "extension.py": "",
    "operators.py": DESCRIBES,
}
"""A torchvision that describes two operators and lacks them, as PyPI's does beside the CPU build of torch."""


def package(folder: Path, files: dict[str, str]) -> Path:
    (folder / "torchvision").mkdir()
    for name, text in files.items():
        (folder / "torchvision" / name).write_text(text)
    return folder


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the code where the folder's packages come before the installed ones."""
    found = os.pathsep.join([str(path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


def test_missing_operators_are_declared_and_cannot_be_called(tmp_path: Path) -> None:
    path = package(tmp_path, STAND_IN)
    without = run("import torchvision", path)
    assert "RuntimeError: operator torchvision::nms does not exist" in without.stderr
    code = (
        "import lcg, torchvision, torch, importlib.resources as r\n"
        f"assert torchvision.finished and torchvision.{DECLARED}\n"
        "assert 'finished' in r.files('torchvision').joinpath('__init__.py').read_text()\n"
        "one = torch.ones(1)\n"
        "assert torch.ops.torchvision.nms(one.to('meta'), one.to('meta'), 0.5).is_meta\n"
        "torch.ops.torchvision.nms(one, one, 0.5)"
    )
    assert "NotImplementedError: Could not run 'torchvision::nms'" in run(code, path).stderr


def test_a_torchvision_that_fits_is_left_as_it_is(tmp_path: Path) -> None:
    path = package(tmp_path, {"__init__.py": "count = globals().get('count', 0) + 1\n"})
    done = run(f"import lcg, torchvision; print(torchvision.count, hasattr(torchvision, '{DECLARED}'))", path)
    assert (done.returncode, done.stdout) == (0, "1 False\n"), done.stderr


@pytest.mark.parametrize(
    "fault", ["RuntimeError('another fault')", "ImportError('torchvision::nms')", "RuntimeError('torchvision::other')"]
)
def test_other_faults_are_not_hidden(fault: str, tmp_path: Path) -> None:
    path = package(tmp_path, {"__init__.py": f"raise {fault}"})
    done = run("import lcg, torchvision", path)
    kind, _, message = fault.removesuffix("')").partition("('")
    assert done.stderr.endswith(f"{kind}: {message}\n")


def test_where_it_is_not_installed_nothing_is_found() -> None:
    done = run("import lcg, sys; sys.path.clear(); import torchvision", Path("none"))
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'torchvision'\n")


def test_the_finder_is_there_once_and_asks_for_torchvision_only() -> None:
    arm()
    (finder,) = (finder for finder in sys.meta_path if isinstance(finder, OperatorsFinder))
    assert finder.find_spec("torch") is finder.find_spec("torchvision.ops") is None


@pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="needs the extra `fid`")
def test_torchmetrics_and_lightning_are_imported_beside_the_extra(tmp_path: Path) -> None:
    code = (
        "import lcg, pytorch_lightning, torchmetrics.image.fid, torchvision\n"
        "native = torchvision.extension._has_ops()\n"
        f"assert hasattr(torchvision, '{DECLARED}') != native\n"
    )
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
