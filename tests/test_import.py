"""`import lcg` and `lcg --help` bring in nothing heavy, and the package's surface is what it says."""

import re
import subprocess
import sys

import pytest

import lcg

HEAVY = (
    "torchvision",
    "torch",
    "pytorch_lightning",
    "lightning_fabric",
    "jsonargparse",
    "numpy",
    "matplotlib",
    "wandb",
)


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running the code."""
    listing = "import sys; print('MODULES', *sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import lcg",
        "import lcg, lcg.schema, lcg.cli; dir(lcg)",
        "from lcg.cli import main; main(['--help'])",
        "from lcg.cli import main; main(['--version'])",
        "from lcg.cli import main; main(['fti'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    loaded = modules_after(code)
    assert "lcg" in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


def test_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", lcg.__version__)


def test_surface_is_listed_before_it_is_loaded() -> None:
    assert set(lcg.__all__) <= set(dir(lcg))


def test_load_is_the_pipelines_load() -> None:
    from lcg.pipeline import load

    assert lcg.load is load


def test_unknown_attribute_of_the_package_lists_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'laod'; did you mean load\? it has: Attribute, .*, load,"):
        lcg.laod  # noqa: B018


@pytest.mark.parametrize("code", ["import lcg", "from lcg.cli import main; main(['--help'])"])
def test_start_up_is_a_matter_of_few_modules(code: str) -> None:
    """About 80 beyond those of Python itself, in 0.1 s; numpy alone would be more than 100, torch more than 1000."""
    count = "import sys; before = len(sys.modules)\n{}\nprint(len(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", count.format(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) <= 130
