"""The encode job: right values, whatever the batches; interrupted and gone on with; refused before any work."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcg import __version__
from lcg.data.encode import Encoding, encode, planes
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.tally import Part, Tally
from lcg.generators.base import Generator, pixels_to_x
from lcg.schema import Attribute, Schema


class Stripes:
    """Image i has the grey value i (modulo 256) everywhere; its label is whether i is odd."""

    schema = Schema((Attribute("odd"), Attribute("unknown", "continuous")))
    image_shape = (3, 4, 2)

    def __init__(self, length: int, die_at: int | None = None) -> None:
        self.length, self.die_at, self.asked = length, die_at, 0

    def __len__(self) -> int:
        return self.length

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if self.die_at is not None and stop > self.die_at:
            raise KeyboardInterrupt
        self.asked += stop - start
        i = np.arange(start, stop)
        images = np.broadcast_to((i % 256).astype(np.uint8)[:, None, None, None], (len(i), 4, 2, 3))
        return images, np.stack([i % 2, np.full(len(i), np.nan)], axis=1).astype(np.float32)

    def identity(self) -> dict[str, Any]:
        return {"class": "Stripes"}


class Mean(Generator):
    """z = scale * mean of x over all pixels, and its negative; dropout, which the job has to switch off."""

    latent_shape = (2,)
    image_shape = (3, 4, 2)

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.scale, self.dropout = nn.Parameter(torch.tensor(scale)), nn.Dropout(0.9)

    def decode(self, z: Tensor) -> Tensor:
        return z[:, 0, None, None, None].expand(-1, *self.image_shape) / self.scale

    def encode(self, x: Tensor) -> Tensor:
        mean = self.dropout(x).mean(dim=(1, 2, 3))
        return self.scale * torch.stack([mean, -mean], dim=1)


@pytest.mark.parametrize(("batch_size", "shard_size"), [(256, 4096), (3, 7), (1, 1), (10, 4)])
def test_every_image_is_encoded_in_order(tmp_path: Path, batch_size: int, shard_size: int) -> None:
    store = encode(Stripes(23), Mean(), tmp_path / "s", batch_size=batch_size, shard_size=shard_size, progress=False)
    i = torch.arange(23)
    x = i / 127.5 - 1
    assert (store.latents() - 2 * torch.stack([x, -x], dim=1)).abs().max() < 1e-6
    assert torch.equal(store.labels()[:, 0], (i % 2).float()) and store.labels()[:, 1].isnan().all()
    assert torch.equal(store.index(), i)
    store.verify()


def test_provenance_names_what_made_the_latents(tmp_path: Path) -> None:
    provenance = encode(Stripes(3), Mean(), tmp_path / "s", progress=False).provenance
    assert provenance["source"] == {"class": "Stripes"}
    assert provenance["generator"] == Mean().identity() and set(provenance) == {"source", "generator", "lcg"}


def test_an_interrupted_job_goes_on(tmp_path: Path) -> None:
    expected = encode(Stripes(50), Mean(), tmp_path / "whole", batch_size=4, shard_size=10, progress=False)
    with pytest.raises(KeyboardInterrupt):
        encode(Stripes(50, die_at=37), Mean(), tmp_path / "s", batch_size=4, shard_size=10, progress=False)
    with pytest.raises(ValueError, match="is not finished"):
        LatentStore.open(tmp_path / "s")
    rest = Stripes(50)
    store = encode(rest, Mean(), tmp_path / "s", batch_size=4, shard_size=10, progress=False)
    assert rest.asked == 20 and store.fingerprint == expected.fingerprint


def test_a_finished_job_does_nothing_and_a_longer_source_adds_to_it(tmp_path: Path) -> None:
    first = encode(Stripes(10), Mean(), tmp_path / "s", progress=False)
    again, longer = Stripes(10), Stripes(12)
    assert encode(again, Mean(), tmp_path / "s", progress=False).fingerprint == first.fingerprint and again.asked == 0
    assert len(encode(longer, Mean(), tmp_path / "s", progress=False)) == 12 and longer.asked == 2
    with pytest.raises(ValueError, match="has 12 samples, the source only 10"):
        encode(Stripes(10), Mean(), tmp_path / "s", progress=False)


def test_progress_shows_rate_and_starts_where_the_job_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode(Stripes(4), Mean(), tmp_path / "s", progress=False)
    encode(Stripes(8), Mean(), tmp_path / "s", progress=True)
    shown = capsys.readouterr().err
    assert "4/8" in shown and "8/8" in shown and "image/s" in shown


def test_another_generator_is_not_mixed_in(tmp_path: Path) -> None:
    encode(Stripes(4), Mean(), tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match=r"`provenance\.generator\.weights_sha256` was"):
        encode(Stripes(8), Mean(3.0), tmp_path / "s", progress=False)


def test_a_latent_that_is_not_finite_is_named(tmp_path: Path) -> None:
    generator = Mean()
    generator.encode = lambda x: torch.where(x.mean((1, 2, 3)) > 0, torch.nan, 1.0)[:, None].expand(-1, 2)
    with pytest.raises(ValueError, match=r"latent of row 8 \(sample 128\) is not finite"):
        encode(Stripes(130), generator, tmp_path / "s", batch_size=7, shard_size=20, progress=False)


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    generator = Mean()
    generator.encode = lambda x: x.flatten(1)
    with pytest.raises(ValueError, match=r"must have shape \(n >= 1, 2\), got \(3, 24\)"):
        encode(Stripes(3), generator, tmp_path / "s", progress=False)


def test_refusals_come_before_work(tmp_path: Path) -> None:
    source = Stripes(3)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write a latent store"):
        encode(source, Mean(), tmp_path / "file" / "s", progress=False)
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        encode(source, Mean(), tmp_path / "s", batch_size=0)
    with pytest.raises(ValueError, match="`shard_size` must be >= 1"):
        encode(source, Mean(), tmp_path / "s", shard_size=0)
    source.image_shape = (3, 8, 8)
    with pytest.raises(ValueError, match=r"images are \(3, 8, 8\) .* takes \(3, 4, 2\)"):
        encode(source, Mean(), tmp_path / "s")
    assert source.asked == 0 and not (tmp_path / "s").exists()


def test_a_source_that_breaks_its_word_is_refused(tmp_path: Path) -> None:
    source = Stripes(3)
    source.chunk = lambda start, stop: (np.zeros((2, 4, 2, 3), np.uint8), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"must be \(3, 4, 2, 3\) pixels, got \(2, 4, 2, 3\)"):
        encode(source, Mean(), tmp_path / "a", progress=False)
    source.chunk = lambda start, stop: (np.zeros((3, 4, 2, 3), np.float32), np.zeros((3, 2)))
    with pytest.raises(TypeError, match="must be uint8"):
        encode(source, Mean(), tmp_path / "b", progress=False)


def test_a_store_with_gaps_is_not_of_this_job(tmp_path: Path) -> None:
    provenance = {"source": Stripes(1).identity(), "generator": Mean().identity(), "lcg": __version__}
    writer = LatentStoreWriter(tmp_path / "s", (2,), Stripes.schema, provenance)
    writer.append(np.zeros((1, 2)), np.zeros((1, 2)), np.array([7]))
    with pytest.raises(ValueError, match="skips samples"):
        encode(Stripes(9), Mean(), tmp_path / "s", progress=False)


# --- parts ---


def silent(_: int) -> None: ...


def begun(out: Path, length: int = 20, made: int = 2, scale: float = 2.0) -> Encoding:
    """An encoding in parts of 5 samples, of which some are made."""
    encoding = Encoding(Stripes(length), Mean(scale), out, batch_size=4, shard_size=5)
    encoding.begin()
    for part in encoding.parts[:made]:
        encoding.make(part, silent)
    return encoding


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def finish(out: Path, length: int = 20, **more: Any) -> dict[str, bytes]:
    encode(Stripes(length), Mean(), out, batch_size=4, shard_size=5, progress=False, **more)
    return bytes_of(out)


def test_parts_may_be_made_in_any_order_by_anybody(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    first, second = begun(tmp_path / "s", made=0), Encoding(Stripes(20), Mean(), tmp_path / "s", 4, 5)
    for number, encoding in ((3, first), (0, second), (2, first), (1, second)):
        encoding.make(encoding.parts[number], silent)
    first.finish(first.begin())
    assert bytes_of(tmp_path / "s") == expected
    assert not [name for name in expected if name.startswith(".shard")]


def test_a_store_that_grows_part_by_part_is_the_one_that_a_writer_makes(tmp_path: Path) -> None:
    finish(tmp_path / "s", 7)
    grown = LatentStore.open(tmp_path / "s") if finish(tmp_path / "s", 18) else None
    writer = LatentStoreWriter(tmp_path / "w", (2,), Stripes.schema, grown.provenance)
    latents, labels, index = grown.latents(), grown.labels(), grown.index()
    for start, stop in ((0, 5), (5, 7), (7, 12), (12, 17), (17, 18)):
        writer.append(latents[start:stop], labels[start:stop], index[start:stop])
    writer.finish()
    assert bytes_of(tmp_path / "s") == bytes_of(tmp_path / "w")


def test_whitening_is_that_of_a_writer(tmp_path: Path) -> None:
    class Turned(Mean):
        def encode(self, x: Tensor) -> Tensor:
            mean, top = x.mean(dim=(1, 2, 3)), x[:, 0, 0, 0].square()
            return torch.stack([mean + top, mean], dim=1)

    store = encode(Stripes(40), Turned(), tmp_path / "s", shard_size=7, whiten=True, progress=False)
    z_0 = store.statistics.standardise(store.latents())
    assert (torch.cov(z_0.T, correction=0) - torch.eye(2)).abs().max() < 1e-3  # up to the ridge
    plain = encode(Stripes(40), Turned(), tmp_path / "s", shard_size=7, progress=False)
    assert plain.statistics.whitening is None
    again = encode(Stripes(40), Turned(), tmp_path / "s", shard_size=7, whiten=True, progress=False)
    assert torch.equal(again.statistics.whitening.matrix, store.statistics.whitening.matrix)


def test_parts_of_other_settings_are_made_anew(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    begun(tmp_path / "s", scale=3.0)
    (tmp_path / "s" / "manifest.json").unlink()
    for path in (tmp_path / "s").glob("shard-*"):
        path.unlink()
    source = Stripes(20)  # the small files are still there, and of another generator
    encode(source, Mean(), tmp_path / "s", batch_size=4, shard_size=5, progress=False)
    assert source.asked == 20 and bytes_of(tmp_path / "s") == expected


@pytest.mark.parametrize(("sizes", "again"), [((4, 5), 10), ((2, 5), 10), ((4, 4), 20)])
def test_other_batches_go_on_and_other_shards_begin_anew(tmp_path: Path, sizes: tuple[int, int], again: int) -> None:
    begun(tmp_path / "s")
    source = Stripes(20)
    store = encode(source, Mean(), tmp_path / "s", batch_size=sizes[0], shard_size=sizes[1], progress=False)
    assert source.asked == again and len(store) == 20
    store.verify()


def test_a_small_file_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    first, second = begun(tmp_path / "s").parts[:2]
    first.path.write_text("{")
    second.path.write_text("[]")
    (tmp_path / "s" / "..shard-00002.json.1.tmp").write_text("half")
    assert finish(tmp_path / "s") == expected


def test_a_shard_that_was_damaged_meanwhile_is_refused_and_made_anew(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    begun(tmp_path / "s", made=4)
    path = tmp_path / "s" / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(
        ValueError, match=r"shard-00001\.safetensors is not what was written there; run the command again"
    ):
        finish(tmp_path / "s")
    assert finish(tmp_path / "s") == expected


def test_two_jobs_at_once_do_no_harm(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    slow = begun(tmp_path / "s")
    writer = slow.begin()
    assert finish(tmp_path / "s") == expected
    with pytest.raises(RuntimeError, match=r"another process has finished shards of the latent store at .*/s"):
        slow.make(slow.parts[2], silent)
    with pytest.raises(RuntimeError, match=r"another process works on the latent store at .*run the command again"):
        slow.finish(writer)
    assert bytes_of(tmp_path / "s") == expected


def test_images_are_made_while_others_are_encoded(tmp_path: Path) -> None:
    """The encoder waits for the next images: if they were made after it, it would wait forever."""
    made = [threading.Event() for _ in range(5)]

    class Source(Stripes):
        def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            made[start // 2].set()
            return super().chunk(start, stop)

    class Waiting(Mean):
        encoded = 0

        def encode(self, x: Tensor) -> Tensor:
            self.encoded += 1
            assert made[min(self.encoded, 4)].wait(timeout=30)
            return super().encode(x)

    encode(Source(10), Waiting(), tmp_path / "s", batch_size=2, progress=False)
    assert all(event.is_set() for event in made)


def test_the_images_of_all_processes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [Part(n, range(10 * n, 10 * n + 10), tmp_path / str(n)) for n in range(4)]
    parts[0].path.touch()  # by an earlier run
    with Tally(parts, begun=5, shown=True) as tally:
        tally.advance(parts[1], 6)
        assert tally.done == 5 + 10 + 6
        parts[2].path.touch()  # by another rank
        tally.advance(parts[1], 4)
        assert tally.done == 35
        parts[1].path.touch()
        tally.advance(parts[3], 1)
        assert tally.done == 36
    shown = capsys.readouterr().err
    assert "15/45" in shown and "45/45" in shown and "image/s" in shown


def test_pixels_become_x_to_the_bit() -> None:
    for shape in ((5, 4, 2, 3), (50, 64, 64, 3), (2, 400, 300, 3)):
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        out = torch.empty(shape[0], 3, *shape[1:3])
        assert torch.equal(planes(pixels, out), pixels_to_x(pixels)) and out.is_contiguous()


def test_an_encoder_may_give_its_images_back(tmp_path: Path) -> None:
    """Images of later batches take the places of earlier ones, and latents must not change with them."""

    class Same(Mean):
        latent_shape = (24,)

        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    store = encode(Stripes(50), Same(), tmp_path / "s", batch_size=4, shard_size=20, progress=False)
    assert (store.latents() - (torch.arange(50) / 127.5 - 1)[:, None]).abs().max() < 1e-6
