"""Whether a judge may judge: it must share neither weights with what guides nor images with what it is asked about.

Guidance climbs one network's opinion. A judge with the same weights agrees with whatever fools that network, and one
that was trained on the same images shares its errors; on images that it was trained on itself it is no measurement at
all. So is a world whose images the prior was trained on. What is compared is what stores, networks and worlds say that
they were made of (`lcg.data.images.provenance_of`): who does not say cannot be trusted.

Labels may come from a network as well (`lcg.labels`). A judge that has the same network has made its own pupils: their
mistakes are its own, and it does not see them. So stores say which labellers their labels are from, worlds may, and the
judge's networks are looked for among theirs.

Two sources are the same when they draw from one stream of random numbers, or read one table, also in copies of the
images at another size. They overlap when their files have contents in common; sources that can only be named, by
identities of their own, are believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lcg.benchmarks.worlds.world import World
from lcg.generators.base import weights_sha256
from lcg.metrics.judge import Judge

FIT = "fit a judge on images of its own with `lcg fit --config configs/judge/folder.yaml`"
KNOWN = "The {} does not say which images it has: make it again with this version of lcg."


@dataclass(frozen=True)
class Sketch:
    """The smallest hashes of a folder's files.

    Attributes:
        hashes: 64 bits each.
        limit: up to which these are all that there are; infinite when they are all of the folder's.
    """

    hashes: frozenset[int]
    limit: float

    @classmethod
    def of(cls, fingerprints: Mapping[str, Any]) -> Sketch:
        """From what `ImageFolder.fingerprints` gives. Raises KeyError, TypeError or ValueError for anything else."""
        hashes = frozenset(int(text, 16) for text in fingerprints["smallest"])
        return cls(hashes, max(hashes) if len(hashes) < fingerprints["files"] else math.inf)

    def common(self, other: Sketch) -> tuple[int, float]:
        """How many files are seen in both, and the share of the smaller folder's that these suggest, in [0, 1].

        The share is that among the hashes up to both limits, as only there all are known of both.
        """
        limit = min(self.limit, other.limit)
        mine, others = ({h for h in sketch.hashes if h <= limit} for sketch in (self, other))
        count = len(mine & others)
        return count, count / max(1, min(len(mine), len(others)))


@dataclass(frozen=True)
class Images:
    """A source of images by what is known of it.

    Attributes:
        identity: None when nothing is known.
        sketch: of its files; None where it has no files, or kept no account of them.
    """

    identity: Mapping[str, Any] | None
    sketch: Sketch | None

    @classmethod
    def of(cls, provenance: Mapping[str, Any], part: str) -> Images:
        """What `provenance_of` kept of a part, such as `train`."""
        identity = provenance.get(part)
        try:
            sketch = Sketch.of(provenance["fingerprints"][part])
        except (KeyError, TypeError, ValueError):
            sketch = None
        return cls(identity if isinstance(identity, Mapping) and identity else None, sketch)

    def shared(self, other: Images) -> str:
        """What these images have in common with others, in words between the two; nothing for nothing."""
        if self.identity is None or other.identity is None:
            return ""
        if same_source(self.identity, other.identity):
            return "are the same as"
        if self.sketch is not None and other.sketch is not None:
            count, share = self.sketch.common(other.sketch)
            return f"share files ({count} seen, about {share:.0%} of the smaller folder) with" if count else ""
        if "table_sha256" in self.identity and "table_sha256" in other.identity:
            return "cannot be compared, for lack of fingerprints (`lcg encode` and `lcg fit` make them), with"
        return ""


def same_source(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two identities are of the same images, whatever was done to them since."""
    if one.get("name") == other.get("name") == "avatars":  # drawn from one stream, whatever the distribution
        return all(_same(one.get(key), other.get(key)) for key in ("seed", "split"))
    if "table_sha256" in one and "table_sha256" in other:
        return bool(one["table_sha256"] == other["table_sha256"])
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)


def _same(one: object, other: object) -> bool:
    """Whether two values are equal, or texts of which one ends in `*` where the other goes on."""
    if isinstance(one, str) and isinstance(other, str):
        pairs = ((one, other), (other, one))
        return one == other or any(a.endswith("*") and b.startswith(a[:-1]) for a, b in pairs)
    return one == other


def check_judge(
    judge: Judge, world: World, store_provenance: Mapping[str, Any], guides: Mapping[str, str], allow: bool = False
) -> list[str]:
    """Refuses a judge that does not judge independently.

    Args:
        judge: with the provenance of its weights.
        world: whose images it is to judge.
        store_provenance: of the latent store that prior and classifiers were trained on.
        guides: names of everything that guides, and the SHA-256 of its weights (`weights_sha256`).
        allow: say what is wrong instead of refusing.

    Returns:
        What the report must say, sentences; empty when nothing is wrong.

    Raises:
        ValueError: the judge knows other attributes or another size of images than the world's; or, unless `allow`, its
            weights guide, it made the labels of the store or the world, its training images are theirs or overlap them,
            or one of the three does not say which images it has.
    """
    known, asked = ([(a.name, a.kind, a.values) for a in schema] for schema in (judge.schema, world.schema))
    if known != asked:
        raise ValueError(
            f"the judge's attributes must be the world's, {', '.join(world.schema.names)} with the same kinds and "
            f"values, got {', '.join(judge.schema.names)}; {FIT}"
        )
    judge.factor(world.image_shape)
    return _refuse(list(_faults(judge, world, store_provenance, guides)), FIT, allow)


def check_world(world: World, store_provenance: Mapping[str, Any], allow: bool = False) -> list[str]:
    """Refuses a world whose images prior and classifiers were trained on; arguments and result as `check_judge`.

    Raises:
        ValueError: so it is, or it cannot be told, unless `allow`.
    """
    return _refuse(list(_seen(world, store_provenance)), "give the benchmark images that nothing was trained on", allow)


def _seen(world: World, store_provenance: Mapping[str, Any]) -> Iterator[str]:
    stored = Images.of(store_provenance, "source")
    if stored.identity is None:
        yield KNOWN.format("latent store")
    for images in _images_of(world):
        if images.identity is None:
            yield KNOWN.format("world")
        if words := images.shared(stored):
            yield f"The world's images {words} those of the latent store."


def _faults(
    judge: Judge, world: World, store_provenance: Mapping[str, Any], guides: Mapping[str, str]
) -> Iterator[str]:
    own = {weights_sha256(judge), judge.file_sha256, *judge.networks} - {""}
    for name, sha256 in guides.items():
        if sha256 in own:
            yield f"The judge has the weights of {name}, which guides."
    labellers = [("latent store", entry) for entry in _labellers(store_provenance)]
    labellers += [("world", entry) for source in world.sources() for entry in _labellers(source)]
    for place, entry in labellers:
        if own & networks_of(entry.get("labeller")):
            yield f"The judge also made the {place}'s labels of {', '.join(map(str, entry.get('attributes', ())))}."
    places = [("latent store", Images.of(store_provenance, "source"))]
    places += [("world", images) for images in _images_of(world)]
    parts = [(part, Images.of(judge.provenance, key)) for part, key in (("training", "train"), ("validation", "val"))]
    for name, images in (("judge", parts[0][1]), *places):
        if images.identity is None:
            yield KNOWN.format(name)
    for place, entry in labellers:
        trained = entry.get("trained_on")
        places.append((f"{place}'s labeller", Images.of(trained if isinstance(trained, Mapping) else {}, "train")))
    for part, mine in parts:
        for place, images in places:
            if words := mine.shared(images):
                yield f"The judge's {part} images {words} those of the {place}."


def networks_of(identity: object) -> frozenset[str]:
    """The SHA-256 of the networks and functions that an identity names: what stands under keys that end in `sha256`.

    An identity that names none is known by itself, as text.
    """
    return frozenset(_hashes(identity)) or frozenset({json.dumps(identity, sort_keys=True)})


def _hashes(identity: object) -> Iterator[str]:
    if isinstance(identity, Mapping):
        for key, value in identity.items():
            if isinstance(value, str) and str(key).endswith("sha256") and value:
                yield value
            yield from _hashes(value)
    elif isinstance(identity, list | tuple):
        for value in identity:
            yield from _hashes(value)


def _labellers(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The labellers that labels are from, as `lcg.labels.storing` has them."""
    entries = provenance.get("labelled")
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _images_of(world: World) -> list[Images]:
    return [Images.of(entry, "source") for entry in world.sources() or [{}]]


def _refuse(faults: list[str], advice: str, allow: bool) -> list[str]:
    """What is wrong, as sentences for the report or as an error."""
    if faults and not allow:
        raise ValueError(
            f"{' '.join(faults)} Figures that rest on this may flatter: {advice}, or go on with `--shared_judge true`, "
            "and the report will say so"
        )
    return [f"{fault} Figures that rest on this may flatter." for fault in faults]
