"""Generators that speak other latents than their own: what they draw, what they claim to be, how they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lcg.data.store import LatentStore
from lcg.encoding.job import encode_many
from lcg.generators.base import pixels_to_x, weights_sha256
from lcg.transfer import MappedGenerator, RelativeGenerator, RelativeRepresentation
from lcg.transfer.job import transfer_job
from lcg.transfer.maps import fit_map
from lcg.transfer.pairs import DecodedStore, read_pairs
from tests.transfer.worlds import Linear, Noise, rng, rotation, stretched

D = 8


def generators(b: torch.Tensor | None = None) -> tuple[Linear, Linear]:
    """The same picture of two spaces; B's is that of A, rotated, scaled and shifted."""
    shift = torch.linspace(-1, 1, D, dtype=torch.float64)
    return Linear(rotation(D, 3), shift), Linear(2.5 * rotation(D) if b is None else b, 0.5 * shift)


def encoded(generator: Linear, out: Path, source: object = None) -> str:
    assert encode_many(source or Noise(120), generator, out, progress=False) is not None  # type: ignore[arg-type]
    return str(out)


def transferred(tmp_path: Path, a: Linear, b: Linear) -> MappedGenerator:
    transfer_job(encoded(a, tmp_path / "a"), encoded(b, tmp_path / "b"), str(tmp_path / "t"))
    return MappedGenerator(b, str(tmp_path / "t" / "map.safetensors"))


def test_an_affine_image_of_a_generator_draws_the_same_images_of_its_latents(tmp_path: Path) -> None:
    a, b = generators(stretched(D))
    mapped = transferred(tmp_path, a, b)
    z = LatentStore.open(tmp_path / "a").latents()
    torch.testing.assert_close(mapped.decode(z), a.decode(z), atol=1e-5, rtol=0)
    x = a.decode(z)
    torch.testing.assert_close(mapped.encode(x), z, atol=1e-4, rtol=0)


def test_the_gradient_goes_through_the_map(tmp_path: Path) -> None:
    """b o map = a, so their vector-Jacobian products agree, too."""
    a, b = generators(stretched(D))
    mapped = transferred(tmp_path, a, b)
    z, v = torch.randn(3, D, generator=rng(0)), torch.randn(3, 3, 4, 2, generator=rng(1))
    products = []
    for generator in (a, mapped):
        at = z.clone().requires_grad_()
        products.append(torch.autograd.grad((generator.decode(at) * v).sum(), at)[0])
    assert products[0].abs().max() > 1e-3
    torch.testing.assert_close(products[1], products[0], atol=1e-5, rtol=1e-4)


def test_a_mapped_generator_says_whose_latents_it_takes_and_who_draws(tmp_path: Path) -> None:
    a, b = generators()
    mapped = transferred(tmp_path, a, b)
    assert mapped.latents_sha256() == weights_sha256(a)
    identity = mapped.identity()
    assert identity["generator"]["weights_sha256"] == weights_sha256(b)
    assert identity["weights_sha256"] not in (weights_sha256(a), weights_sha256(b))
    store = LatentStore.open(encoded(mapped, tmp_path / "m"))  # so that a store made with it is one of A's latents
    assert store.provenance["generator"]["latents_sha256"] == weights_sha256(a)


def test_a_map_to_another_generator_is_refused(tmp_path: Path) -> None:
    a, b = generators()
    transferred(tmp_path, a, b)
    path = str(tmp_path / "t" / "map.safetensors")
    with pytest.raises(
        ValueError, match=r"latents of a generator with weights .* give the generator that it was fitted"
    ):
        MappedGenerator(a, path)
    with pytest.raises(ValueError, match=r"leads to latents of shape \(8,\), `generator` has \(3,\)"):
        MappedGenerator(Linear(rotation(3), torch.zeros(3)), path)
    with pytest.raises(FileNotFoundError, match=r"no weights at"):
        MappedGenerator(b, str(tmp_path / "none.safetensors"))


def test_without_provenance_a_map_claims_nobodys_latents(tmp_path: Path) -> None:
    _, b = generators()
    z = torch.randn(50, D, generator=rng(0))
    fit_map(z, z).save(tmp_path / "map.safetensors")
    assert MappedGenerator(b, str(tmp_path / "map.safetensors")).latents_sha256() == ""


def test_draws_of_bs_prior_become_latents_of_a(tmp_path: Path) -> None:
    class Sampling(Linear):
        def sample_latents(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
            return torch.randn(n, D, generator=generator)

    a, _ = generators()
    b = Sampling(2.5 * rotation(D), torch.zeros(D))
    mapped = transferred(tmp_path, a, b)
    torch.testing.assert_close(
        a.decode(mapped.sample_latents(5, rng(0))), b.decode(b.sample_latents(5, rng(0))), atol=1e-4, rtol=0
    )


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_latents_of_the_same_images(tmp_path: Path) -> None:
    a, b = generators()
    pairs = read_pairs(encoded(a, tmp_path / "a"), encoded(b, tmp_path / "b", Noise(120)), most=30)
    assert len(pairs) == 30
    torch.testing.assert_close(a.decode(pairs.z_a), b.decode(pairs.z_b), atol=1e-5, rtol=0)


def test_what_one_generator_makes_of_its_store_pairs_both_ways(tmp_path: Path) -> None:
    a, b = generators()
    store_a = encoded(a, tmp_path / "a")
    store_b = encoded(b, tmp_path / "b", DecodedStore(store_a, a))
    pairs = read_pairs(store_a, store_b)
    assert len(pairs) == 120
    torch.testing.assert_close(a.decode(pairs.z_a), b.decode(pairs.z_b), atol=0.02, rtol=0)  # 8 bits between them
    swapped = read_pairs(store_b, store_a)
    assert torch.equal(swapped.z_a, pairs.z_b)


def test_stores_of_other_images_are_no_pairs(tmp_path: Path) -> None:
    class Others(Noise):
        def identity(self) -> dict[str, object]:
            return {"noise": 1}

    a, b = generators()
    one, other = encoded(a, tmp_path / "a"), encoded(b, tmp_path / "b", Others(120))
    with pytest.raises(ValueError, match=r"are not of the same images; encode one source of images with both"):
        read_pairs(one, other)
    with pytest.raises(ValueError, match=r"was encoded by a generator with weights .* give the generator that made it"):
        DecodedStore(one, b)
    with pytest.raises(ValueError, match=r"was encoded by a generator|takes"):
        DecodedStore(one, Linear(rotation(3), torch.zeros(3)))


def test_the_job_reports_what_it_has_not_seen_and_refuses_too_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = generators()
    transferred(tmp_path, a, b)
    out = capsys.readouterr().out
    assert "R^2 on 24 pairs held out: 1.000 there, 1.000 back, 1.000 there and back" in out
    assert "along attributes: bright 1.000" in out
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    with pytest.raises(ValueError, match=r"`held_out` must be in"):
        transfer_job(one, other, str(tmp_path / "u"), held_out=1.0)
    with pytest.raises(ValueError, match=r"at most the pairs that are not held out, got 97 of 96"):
        transfer_job(one, other, str(tmp_path / "u"), num=97)
    assert not (tmp_path / "u").exists()


def test_an_attribute_that_b_cannot_show_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = generators()
    x = pixels_to_x(torch.from_numpy(Noise(120).chunk(0, 120)[0]))
    z = a.encode(x)
    tells = torch.linalg.lstsq(z - z.mean(0), torch.from_numpy(Noise(120).chunk(0, 120)[1][:, :1])).solution
    blind = Linear(stretched(D), torch.zeros(D))
    direction = (tells / tells.norm()).double()
    kept = torch.eye(D, dtype=torch.float64) - direction @ direction.T
    noise = torch.randn(120, D, generator=rng(5))

    class Blind(Linear):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            z = a.encode(x)
            return z @ kept.float() + (noise[: len(z)] @ direction.float()) @ direction.float().T

    b = Blind(blind.change.double(), torch.zeros(D, dtype=torch.float64))
    transfer_job(encoded(a, tmp_path / "a"), encoded(b, tmp_path / "b"), str(tmp_path / "t"))
    assert "warning: bright hardly survive the way" in capsys.readouterr().out


# --- relative representations ----------------------------------------------------------------------------------------


def test_relative_representations_do_not_see_rotation_scale_and_shift() -> None:
    anchors, z = torch.randn(20, D, generator=rng(0)), torch.randn(30, D, generator=rng(1))
    turned = (3.0 * rotation(D)).float()
    one, other = RelativeRepresentation(anchors), RelativeRepresentation(anchors @ turned + 2.0)
    torch.testing.assert_close(other(z @ turned + 2.0), one(z), atol=1e-5, rtol=0)
    stretch = stretched(D).float()
    assert (RelativeRepresentation(anchors @ stretch)(z @ stretch) - one(z)).abs().max() > 0.1


def test_cosines_lead_back_to_the_latent_but_for_its_norm() -> None:
    anchors, z = torch.randn(20, D, generator=rng(0)), torch.randn(30, D, generator=rng(1))
    relative = RelativeRepresentation(anchors, strength=0.0)
    back = relative.inverse(relative(z))
    cosine = torch.cosine_similarity(back - relative.centre, z - relative.centre)
    torch.testing.assert_close(cosine, torch.ones(30))
    torch.testing.assert_close((back - relative.centre).norm(dim=1), relative.norm.expand(30))
    torch.testing.assert_close(relative(back), relative(z), atol=1e-5, rtol=0)


def test_generators_with_the_same_anchors_share_latents_and_images(tmp_path: Path) -> None:
    a, b = generators(2.5 * rotation(D) @ rotation(D, 3))
    one, other = RelativeGenerator(a, Noise(64), 32, 0.0), RelativeGenerator(b, Noise(64), 32, 0.0)
    x = pixels_to_x(torch.from_numpy(Noise(64).chunk(40, 64)[0]))
    torch.testing.assert_close(one.encode(x), other.encode(x), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.decode(one.encode(x)), other.decode(one.encode(x)), atol=1e-4, rtol=0)
    assert one.latents_sha256() == other.latents_sha256()
    assert one.latents_sha256() != RelativeGenerator(a, Noise(64), 31).latents_sha256()
    assert one.identity()["weights_sha256"] != other.identity()["weights_sha256"]
    r = one.encode(x).requires_grad_()
    (grad,) = torch.autograd.grad(one.decode(r).square().sum(), r)
    assert torch.isfinite(grad).all()
    assert grad.abs().max() > 0


def test_what_cannot_be_an_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`strength` must be >= 0"):
        RelativeRepresentation(torch.eye(3), -1.0)
    with pytest.raises(ValueError, match=r"`anchors` must be at least two finite latents, got 1"):
        RelativeRepresentation(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"must not lie at their own mean"):
        RelativeRepresentation(torch.ones(4, 3))
    a, _ = generators()
    with pytest.raises(ValueError, match=r"`count` must be 2 to 64, the images in `anchors`, got 65"):
        RelativeGenerator(a, Noise(64), 65)

    class Larger(Noise):
        image_shape = (3, 8, 4)

    with pytest.raises(ValueError, match=r"`anchors` must be images of shape \(3, 4, 2\)"):
        RelativeGenerator(a, Larger(64), 8)
