"""The embedded world: avatars whose every attribute is known because we drew them.

An avatar is a row of part numbers (which top, which beard, which colours); its labels follow from the parts. DiceBear's
Python port turns parts into the vector art of the Avataaars style (Pablo Stanley, https://avataaars.com, free for
personal and commercial use), resvg rasterises it at 64x64, framed on the head. No network, any number of images.

The style stacks independent parts, so an image composes layers with the `over` operator (Porter & Duff 1984),

    out = layer + (1 - alpha_layer) * out        (premultiplied colours),

and only some 150 distinct layers exist. Each is rendered once; an image is then composed in a tenth of a millisecond,
equal to the direct rendering to rounding (tested).

Two distributions. `uniform` draws the binary attributes independently. `biased` is the labelled training world: beards
go with hats, glasses and smiles avoid each other, and two combinations never occur, glasses & smile & hat and
beard & long_hair, so that composing what was never seen together is really tested.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lcg.data.source import ImageSource
from lcg.schema import Attribute, Schema, unknown_name

if TYPE_CHECKING:
    from dicebear import Style

Distribution = Literal["biased", "uniform"]

STYLE_SHA256 = "1acbfab4b4b225e4ecb46822bfdfdd0750ebad21ca59637a028980305445ed32"
"""Hash of the style definition that every number in this project was measured with (dicebear-styles 10.6.0)."""

BLOCK = 1024
"""Avatars that share one stream of random numbers."""

IMAGE_SIZE = 64
VIEW_BOX = "30 4 220 220"
"""The square of the style's 280x280 canvas that is shown: the head, a hat's brim, the shoulders."""

BACKGROUND = "#e6ecf2"

HATS = ("hat", "winterHat1", "winterHat02", "winterHat03")
SHORT = ("shortFlat", "shortCurly", "shortWaved", "dreads01", "theCaesar")
LONG = ("bob", "curvy", "straight01", "straightAndStrand", "miaWallace")
SMILES = ("smile", "twinkle")
HAIR_COLORS = {"black": "#2c1b18", "brown": "#724133", "blond": "#d6b370", "red": "#c93305", "gray": "#e8e1e1"}
HAT_COLORS = {"red": "#ff5c5c", "blue": "#5199e4", "black": "#262e33", "mint": "#a7ffc4", "yellow": "#ffffb1"}
SKIN_COLORS = {"brown": "#ae5d29", "tan": "#d08b5b", "light": "#edb98a", "pale": "#ffdbb4"}
DARK_SKINS = ("brown", "tan")
CLOTHES_COLORS = {
    "blue": "#5199e4",
    "red": "#ff5c5c",
    "black": "#262e33",
    "mint": "#a7ffc4",
    "pink": "#ffafb9",
    "white": "#e6e6e6",
}

PARTS: dict[str, tuple[str, ...]] = {
    "top": (*HATS, *SHORT, *LONG),
    "hair_color": tuple(HAIR_COLORS),
    "hat_color": tuple(HAT_COLORS),
    "beard_style": ("none", "beardLight", "beardMedium", "beardMajestic"),
    "beard_color": tuple(HAIR_COLORS),
    "glasses_style": ("none", "prescription01", "prescription02", "round"),
    "skin_color": tuple(SKIN_COLORS),
    "mouth": (*SMILES, "serious", "sad", "grimace", "concerned"),
    "eyes": ("default", "happy", "side", "squint", "surprised", "wink"),
    "clothes": ("hoodie", "overall", "shirtCrewNeck", "shirtVNeck", "collarAndSweater"),
    "clothes_color": tuple(CLOTHES_COLORS),
}
"""The columns of a parts matrix (N, 11) and what their numbers mean."""

COLUMN = {name: column for column, name in enumerate(PARTS)}

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("beard"),
        Attribute("smile"),
        Attribute("hat"),
        Attribute("long_hair", detail_of=("hat",)),  # a hat hides the hair: no hat can be put on and the hair be kept
        Attribute("dark_skin"),
        Attribute("top", "categorical", PARTS["top"], detail_of=("hat", "long_hair")),
        Attribute("hair_color", "categorical", PARTS["hair_color"], applies_if={"hat": False}),
        Attribute("hat_color", "categorical", PARTS["hat_color"], applies_if={"hat": True}),
        Attribute("beard_style", "categorical", PARTS["beard_style"][1:], applies_if={"beard": True}),
        Attribute("beard_color", "categorical", PARTS["beard_color"], applies_if={"beard": True}),
        Attribute("glasses_style", "categorical", PARTS["glasses_style"][1:], applies_if={"glasses": True}),
        Attribute("skin_color", "categorical", PARTS["skin_color"], detail_of=("dark_skin",)),
        Attribute("mouth", "categorical", PARTS["mouth"], detail_of=("smile",)),
        Attribute("eyes", "categorical", PARTS["eyes"]),
        Attribute("clothes", "categorical", PARTS["clothes"]),
        Attribute("clothes_color", "categorical", PARTS["clothes_color"]),
    )
)

Parts = NDArray[np.int64]
"""(N, 11) part numbers, columns in the order of `PARTS`."""


# --- what is drawn ---------------------------------------------------------------------------------------------------


def draw_parts(distribution: Distribution, count: int, rng: np.random.Generator) -> Parts:
    """Draws avatars.

    Args:
        distribution: `uniform`: hat, long hair and short hair a third each, everything else independent and even;
            `biased`: P(hat) = .35, P(long_hair) = .35, P(beard) = .65 under a hat, .30 on short hair, 0 on long hair;
            P(smile) = .45, P(glasses) = .15 with a smile, .50 without, 0 with a smile under a hat; P(dark_skin) = .4.
        count: how many, N.
        rng: source of randomness.

    Returns:
        (N, 11) part numbers.

    Raises:
        ValueError: the distribution is unknown or count is not positive.
    """
    if distribution not in ("biased", "uniform"):
        raise unknown_name("distribution", distribution, ("biased", "uniform"), "the avatar world")
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}")
    biased = distribution == "biased"

    def coin(probability: float | NDArray[np.float64]) -> NDArray[np.bool_]:
        return rng.random(count) < probability

    def choose(part: str, among: Sequence[str] | None = None) -> Parts:
        names = PARTS[part] if among is None else among
        return np.array([PARTS[part].index(n) for n in names])[rng.integers(len(names), size=count)]

    kind = rng.choice(3, size=count, p=(0.35, 0.35, 0.30) if biased else (1 / 3, 1 / 3, 1 / 3))
    hat, long_hair = kind == 0, kind == 1
    smile = coin(0.45 if biased else 0.5)
    beard = coin(np.where(hat, 0.65, np.where(long_hair, 0.0, 0.30)) if biased else 0.5)
    glasses = coin(np.where(smile, np.where(hat, 0.0, 0.15), 0.50) if biased else 0.5)
    dark = coin(0.4 if biased else 0.5)

    columns = {
        "top": np.where(hat, choose("top", HATS), np.where(long_hair, choose("top", LONG), choose("top", SHORT))),
        "hair_color": choose("hair_color"),
        "hat_color": choose("hat_color"),
        "beard_style": np.where(beard, choose("beard_style", PARTS["beard_style"][1:]), 0),
        "beard_color": choose("beard_color"),
        "glasses_style": np.where(glasses, choose("glasses_style", PARTS["glasses_style"][1:]), 0),
        "skin_color": np.where(
            dark,
            choose("skin_color", DARK_SKINS),
            choose("skin_color", [s for s in SKIN_COLORS if s not in DARK_SKINS]),
        ),
        "mouth": np.where(smile, choose("mouth", SMILES), choose("mouth", PARTS["mouth"][len(SMILES) :])),
        "eyes": choose("eyes"),
        "clothes": choose("clothes"),
        "clothes_color": choose("clothes_color"),
    }
    return np.stack([columns[name] for name in PARTS], axis=1)


def labels_of(parts: Parts) -> NDArray[np.float32]:
    """The true labels of avatars.

    Args:
        parts: (N, 11).

    Returns:
        (N, A) in the order of `SCHEMA`; a detail that does not apply (the colour of no beard) is NaN.

    Raises:
        ValueError: a part number that does not exist.
    """
    check_parts(parts)
    column = {name: parts[:, i] for name, i in COLUMN.items()}

    def among(part: str, names: Iterable[str]) -> NDArray[np.bool_]:
        return np.isin(column[part], [PARTS[part].index(n) for n in names])

    binary = {
        "glasses": column["glasses_style"] > 0,
        "beard": column["beard_style"] > 0,
        "smile": among("mouth", SMILES),
        "hat": among("top", HATS),
        "long_hair": among("top", LONG),
        "dark_skin": among("skin_color", DARK_SKINS),
    }
    labels = np.full((len(parts), len(SCHEMA)), np.nan, dtype=np.float32)
    for j, attribute in enumerate(SCHEMA):
        if attribute.kind == "binary":
            labels[:, j] = binary[attribute.name]
            continue
        offset = PARTS[attribute.name].index(attribute.values[0])  # the value "none" is no label
        applies = np.ones(len(parts), dtype=bool)
        for parent, value in attribute.applies_if.items():
            applies &= binary[parent] == value
        labels[applies, j] = column[attribute.name][applies] - offset
    return labels


def check_parts(parts: Parts) -> None:
    """Raises ValueError naming the first part number that does not exist (DiceBear itself would accept it silently)."""
    if parts.ndim != 2 or parts.shape[1] != len(PARTS):
        raise ValueError(f"`parts` must have shape (N, {len(PARTS)}), got {parts.shape}")
    for name, i in COLUMN.items():
        wrong = np.flatnonzero((parts[:, i] < 0) | (parts[:, i] >= len(PARTS[name])))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"`parts` row {row}: {name} must be in 0..{len(PARTS[name]) - 1}, got {parts[row, i]}; "
                f"see PARTS[{name!r}]"
            )


def variants(parts: Parts, attribute: str, value: bool) -> Parts:
    """Every avatar that differs from one given avatar only by a binary attribute: all styles and colours it may take.

    Args:
        parts: (11,) one avatar.
        attribute: a binary attribute of `SCHEMA`.
        value: what it shall be.

    Returns:
        (V, 11). Switching a hat off or long hair off gives every short top, switching long hair on every long one.
    """
    free: dict[tuple[str, bool], dict[str, Sequence[str]]] = {
        ("glasses", True): {"glasses_style": PARTS["glasses_style"][1:]},
        ("glasses", False): {"glasses_style": ("none",)},
        ("beard", True): {"beard_style": PARTS["beard_style"][1:], "beard_color": PARTS["beard_color"]},
        ("beard", False): {"beard_style": ("none",)},
        ("smile", True): {"mouth": SMILES},
        ("smile", False): {"mouth": PARTS["mouth"][len(SMILES) :]},
        ("hat", True): {"top": HATS, "hat_color": PARTS["hat_color"]},
        ("hat", False): {"top": SHORT, "hair_color": PARTS["hair_color"]},
        ("long_hair", True): {"top": LONG, "hair_color": PARTS["hair_color"]},
        ("long_hair", False): {"top": SHORT, "hair_color": PARTS["hair_color"]},
        ("dark_skin", True): {"skin_color": DARK_SKINS},
        ("dark_skin", False): {"skin_color": [s for s in SKIN_COLORS if s not in DARK_SKINS]},
    }
    if (attribute, value) not in free:
        raise unknown_name(
            "binary attribute", attribute, [a.name for a in SCHEMA.of_kind("binary")], "the avatar world"
        )
    rows = parts[None]
    for part, names in free[attribute, value].items():
        options = np.array([PARTS[part].index(n) for n in names])
        rows = np.repeat(rows, len(options), axis=0)
        rows[:, COLUMN[part]] = np.tile(options, len(rows) // len(options))
    return rows


# --- how it is drawn -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One element of the canvas: which of its elements to draw, and which parts its look depends on."""

    elements: tuple[int, ...]
    parts: tuple[str, ...]


LAYERS = (  # in the order in which the style stacks them
    Layer((0, 1), ("skin_color",)),
    Layer((2,), ("clothes", "clothes_color")),
    Layer((3,), ("mouth",)),
    Layer((4,), ()),  # the nose
    Layer((5,), ("eyes",)),
    Layer((6,), ()),  # the eyebrows
    Layer((7,), ("top", "hair_color", "hat_color")),
    Layer((8,), ("beard_style", "beard_color")),
    Layer((9,), ("glasses_style",)),
)


def dicebear_options(choice: Mapping[str, str]) -> dict[str, Any]:
    """DiceBear's options for named parts; parts that are not named get their first value."""
    part = {name: choice.get(name, values[0]) for name, values in PARTS.items()}
    return {
        "topVariant": part["top"],
        "hairColor": HAIR_COLORS[part["hair_color"]],
        "hatColor": HAT_COLORS[part["hat_color"]],
        "facialHairProbability": 0 if part["beard_style"] == "none" else 100,
        "facialHairVariant": PARTS["beard_style"][1] if part["beard_style"] == "none" else part["beard_style"],
        "facialHairColor": HAIR_COLORS[part["beard_color"]],
        "accessoriesProbability": 0 if part["glasses_style"] == "none" else 100,
        "accessoriesVariant": PARTS["glasses_style"][1] if part["glasses_style"] == "none" else part["glasses_style"],
        "accessoriesColor": "#262e33",
        "skinColor": SKIN_COLORS[part["skin_color"]],
        "mouthVariant": part["mouth"],
        "eyesVariant": part["eyes"],
        "eyebrowsVariant": "defaultNatural",
        "clothesVariant": part["clothes"],
        "clothesColor": CLOTHES_COLORS[part["clothes_color"]],
    }


def style_definition() -> dict[str, Any]:
    """The Avataaars definition as packaged. Raises RuntimeError when it is not the one that lcg was made with."""
    raw = files("dicebear_styles").joinpath("avataaars.json").read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != STYLE_SHA256:
        raise RuntimeError(
            f"the Avataaars style has sha256 {found[:12]}, expected {STYLE_SHA256[:12]} (dicebear-styles 10.6.0): the "
            "drawings differ from those that the shipped generator and judge know; "
            "run `pip install dicebear-styles==10.6.0`"
        )
    definition: dict[str, Any] = json.loads(raw)
    return definition


def rasterise(style: Style, choice: Mapping[str, str], background: str | None = None) -> NDArray[np.uint8]:
    """Draws one avatar (or some of its elements) directly.

    Args:
        style: the style; its canvas may hold a part of the elements.
        choice: part name to value name.
        background: a colour, or None for transparent.

    Returns:
        (64, 64, 4) RGBA, straight alpha.
    """
    import resvg_py
    from dicebear import Avatar
    from PIL import Image

    options = dicebear_options(choice) | ({"backgroundColor": background} if background else {})
    svg = re.sub(r'viewBox="[^"]*"', f'viewBox="{VIEW_BOX}"', str(Avatar(style, options)), count=1)
    png = resvg_py.svg_to_bytes(svg_string=svg, width=IMAGE_SIZE, height=IMAGE_SIZE)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


class LayerBank:
    """Every distinct look of one layer, cut to the box that it covers.

    Attributes:
        colour: (K, h, w, 3) premultiplied, in [0, 255].
        transmission: (K, h, w, 1), 1 - alpha.
        window: where the box lies in the image.
    """

    def __init__(self, layer: Layer, definition: Mapping[str, Any], pool: ThreadPoolExecutor) -> None:
        from dicebear import Style

        self.parts = layer.parts
        canvas = definition["canvas"]
        elements = [canvas["elements"][i] for i in layer.elements]
        alone = Style({**definition, "canvas": {**canvas, "elements": elements}})
        looks = list(np.ndindex(*(len(PARTS[p]) for p in layer.parts)))
        # Only one of hair and hat colour shows: draw each visible look once and let the others point to it.
        visible = [self._visible({p: PARTS[p][i] for p, i in zip(layer.parts, look, strict=True)}) for look in looks]
        distinct = list(dict.fromkeys(tuple(v.items()) for v in visible))
        drawn = np.stack(list(pool.map(lambda v: rasterise(alone, dict(v)), distinct))).astype(np.float32)
        alpha = drawn[..., 3:] / 255
        rows, columns = (np.flatnonzero(alpha.max(axis=(0, axis, 3)) > 0) for axis in (2, 1))
        self.window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        self.colour = (drawn[..., :3] * alpha)[(slice(None), *self.window)]
        self.transmission = (1 - alpha)[(slice(None), *self.window)]
        self.number = np.array([distinct.index(tuple(v.items())) for v in visible])

    @staticmethod
    def _visible(look: dict[str, str]) -> dict[str, str]:
        if "top" in look:
            look.pop("hair_color" if look["top"] in HATS else "hat_color")
        if look.get("beard_style") == "none":
            look.pop("beard_color")
        return look

    def over(self, canvas: NDArray[np.float32], parts: Parts) -> None:
        """Puts this layer on images, in place. canvas: (N, 64, 64, 3) in [0, 255]; parts: (N, 11)."""
        flat = np.zeros(len(parts), dtype=np.int64)
        for name in self.parts:
            flat = flat * len(PARTS[name]) + parts[:, COLUMN[name]]
        look = self.number[flat]
        box = canvas[(slice(None), *self.window)]
        box *= self.transmission[look]
        box += self.colour[look]


@lru_cache(maxsize=1)
def layer_banks() -> tuple[LayerBank, ...]:
    """All layers, drawn in parallel once per process (about a second)."""
    definition = style_definition()
    with ThreadPoolExecutor() as pool:
        return tuple(LayerBank(layer, definition, pool) for layer in LAYERS)


def render(parts: Parts) -> NDArray[np.uint8]:
    """Draws avatars.

    Args:
        parts: (N, 11) part numbers.

    Returns:
        (N, 64, 64, 3) RGB.

    Raises:
        ValueError: a part number that does not exist.
        RuntimeError: another version of the style is installed.
    """
    check_parts(parts)
    background = np.array([int(BACKGROUND[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)
    images = np.empty((len(parts), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    banks = layer_banks()

    def compose(start: int) -> None:
        rows = slice(start, start + 128)  # small enough to stay in cache
        canvas = np.broadcast_to(background, (len(parts[rows]), IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
        for bank in banks:
            bank.over(canvas, parts[rows])
        images[rows] = np.clip(canvas + 0.5, 0, 255)

    with ThreadPoolExecutor() as pool:  # numpy lets other threads run while it works on arrays
        list(pool.map(compose, range(0, len(parts), 128)))
    return images


def edited_region(parts: Parts, edits: Mapping[str, bool], margin: int = 1) -> NDArray[np.bool_]:
    """The pixels that an edit may change: where the source differs from any avatar that the edit alone leads to.

    Args:
        parts: (11,) the source.
        edits: binary attribute to its new value.
        margin: pixels by which the region grows, for antialiased edges.

    Returns:
        (64, 64) bool.
    """
    source = render(parts[None])[0].astype(np.int16)
    region = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
    for attribute, value in edits.items():
        changed = render(variants(parts, attribute, value)).astype(np.int16)
        region |= (np.abs(changed - source).max(axis=-1) > 8).any(axis=0)
    for _ in range(margin):
        grown = np.pad(region, 1)
        region = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:] | region
    return region


class AvatarSource(ImageSource):
    """A numbered set of avatars with their labels, drawn on demand: an image source for the encode job.

    Args:
        distribution: `biased` or `uniform`, see `draw_parts`.
        count: how many.
        split: a name; sets of different names share no random numbers.
        seed: another seed gives another set.

    Example:
        >>> AvatarSource("uniform", count=4, split="test").chunk(0, 4)[0].shape
        (4, 64, 64, 3)
    """

    schema = SCHEMA
    image_shape = (3, IMAGE_SIZE, IMAGE_SIZE)

    def __init__(
        self, distribution: Distribution = "biased", count: int = 24_000, split: str = "train", seed: int = 0
    ) -> None:
        self.distribution, self.count, self.split, self.seed = distribution, count, split, seed
        if count < 1:
            raise ValueError(f"`count` must be at least 1, got {count}")
        name = int.from_bytes(hashlib.sha256(split.encode()).digest()[:4], "big")
        blocks = range(-(-count // BLOCK))  # drawn block by block: avatar i does not depend on how many there are
        streams = [np.random.SeedSequence(seed, spawn_key=(name, block)) for block in blocks]
        draws = [draw_parts(distribution, BLOCK, np.random.default_rng(stream)) for stream in streams]
        self.parts = np.concatenate(draws)[:count]

    def __len__(self) -> int:
        return self.count

    def chunk(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Images (n, 64, 64, 3) and labels (n, A) of the avatars start..stop-1."""
        parts = self.parts[start:stop]
        return render(parts), labels_of(parts)

    def identity(self) -> dict[str, Any]:
        """What was drawn, in JSON primitives: enough to draw it again."""
        return {
            "name": "avatars",
            "distribution": self.distribution,
            "split": self.split,
            "seed": self.seed,
            "style_sha256": STYLE_SHA256,
            "dicebear_core": version("dicebear-core"),
            "resvg_py": version("resvg-py"),
        }
