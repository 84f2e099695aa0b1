"""A tiny world, made once: 600 encoded avatars, a prior and classifiers fitted for a moment, by the shipped configs.

And a tinier one without images, made for each test: latents whose attributes can be learnt in a moment.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from lcg import cli
from lcg.data.store import LatentStoreWriter
from lcg.schema import Attribute, Schema

CONFIGS = Path(__file__).parents[1] / "configs"
SCHEMA = Schema(
    (Attribute("hat"), Attribute("hair", "categorical", ("blond", "red", "black")), Attribute("age", "continuous"))
)
SIZE = {"prior": {"width": 64, "steps": 60}, "classifier": {"width": 48, "steps": 80}}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser without a window: the chromium of the system, else that of `playwright install chromium`."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = ["/usr/bin/chromium", shutil.which("chromium"), shutil.which("google-chrome"), str(own)]
        path = next((path for path in found if path and Path(path).is_file()), None)
        if path is None:
            pytest.skip("needs a chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(frozen=True)
class Demo:
    """Where the tiny world lies."""

    root: Path

    @property
    def store(self) -> str:
        return str(self.root / "store")

    @property
    def prior(self) -> str:
        return str(self.root / "prior" / "prior.ckpt")

    @property
    def classifier(self) -> str:
        return str(self.root / "classifier" / "classifier.ckpt")

    @property
    def networks(self) -> tuple[str, ...]:
        """The options that name prior and classifiers."""
        return "--prior", self.prior, "--classifier", self.classifier

    def encode(self) -> int:
        """`lcg encode` of a few avatars."""
        config = str(CONFIGS / "data" / "avatars.yaml")
        return cli.main(
            ["encode", "--config", config, "--source.count", "600", "--out", self.store, "--progress", "false"]
        )

    def fit(self, what: str, *more: str) -> int:
        """`lcg fit` of a small prior or classifier, into ROOT/WHAT."""
        return self.train("fit", what, *more)

    def train(self, command: str, what: str, *more: str) -> int:
        """A command of the Trainer with the shipped config at a small size."""
        out, size = str(self.root / what), SIZE[what]
        average = {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}
        keep = {"dirpath": out, "filename": what, "enable_version_counter": False}
        callbacks = [average, {"class_path": "ModelCheckpoint", "init_args": keep}]
        options = {
            "model.width": size["width"],
            "model.depth": 2,
            "model.warmup": 10,
            "data.store": self.store,
            "data.batch_size": 128,
            "trainer.max_steps": size["steps"],
            "trainer.check_val_every_n_epoch": 5,
            "trainer.accelerator": "cpu",
            "trainer.enable_progress_bar": "false",
            "trainer.default_root_dir": out,
            "trainer.callbacks": json.dumps(callbacks),
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        return cli.main([command, "--config", str(CONFIGS / what / "avatars.yaml"), *words, *more])


# The lock of progress bars is shared with forked processes: a test that kills one while it draws would wait for ever.
tqdm.set_lock(threading.RLock())


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    demo = Demo(tmp_path_factory.mktemp("demo"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lcg"])  # LightningCLI warns when it is given arguments beside those of the process
        patch.chdir(demo.root)  # an option that is forgotten must not write into the repository
        assert demo.encode() == demo.fit("prior") == demo.fit("classifier") == 0
    return demo


@pytest.fixture
def tiny_store(tmp_path: Path) -> Callable[..., str]:
    """Writes a store: two clusters of latents, attributes read off their first coordinates, some labels missing."""
    number = count()

    def write(shape: tuple[int, ...] = (4,), n: int = 400, provenance: dict[str, Any] | None = None) -> str:
        path, rng = tmp_path / f"tiny-{next(number)}", torch.Generator().manual_seed(0)
        z = torch.randn(n, *shape, generator=rng)
        flat = z.flatten(1)
        flat[:, 0] = 0.1 * flat[:, 0] + flat[:, 0].sign()
        flat[:, 3] = 0.1 * flat[:, 3] - flat[:, 0]
        labels = torch.stack([(flat[:, 0] > 0).float(), (flat[:, 1] > 0).float() + (flat[:, 1] > 1), flat[:, 2]], dim=1)
        labels[::9, 1] = torch.nan
        writer = LatentStoreWriter(path, shape, SCHEMA, provenance or {})
        writer.append(3 + 2 * z, labels, torch.arange(n))
        writer.finish()
        return str(path)

    return write
