"""`lcg generate`: samples of a formula as a job that leaves pictures, latents and what they were made with.

Everything that can be wrong is found before work starts: names in formulas, networks that do not fit together, a
folder that holds something else or cannot be written, devices that are not there.
"""

from __future__ import annotations

from dataclasses import replace

from lcg.generation.many import CHUNK, generate_many
from lcg.generation.text import formula_of
from lcg.generators.base import Generator
from lcg.models.choice import chosen
from lcg.modules.pieces import Ranks
from lcg.nets.execution import Execution
from lcg.pipeline import CLASSIFIER, PRIOR, load
from lcg.places import pick_device
from lcg.settings import Extrapolate, Guidance, Sampling


def generate_job(
    formula: str | None = None,
    text: str | None = None,
    synonyms: str | None = None,
    yes: bool = False,
    num: int = 64,
    out: str = "runs/generate",
    seed: int = 0,
    chunk: int = CHUNK,
    images: bool | None = None,
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    model: str | None = None,
    generator: Generator | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen; the defaults are the help)
    guidance: Guidance = Guidance(),  # noqa: B008
    extrapolate: Extrapolate | None = None,
    execution: Execution = Execution(),  # noqa: B008
    device: str = "auto",
    ranks: Ranks = Ranks(),  # noqa: B008
    overwrite: bool = False,
) -> None:
    """Generates images that satisfy a formula: lcg generate --model avatars --formula "glasses & hat & ~beard".

    A formula stands in quotes, for the shell has a meaning of its own for & and |. In its place may be a description,
    such as --text "a smiling person with glasses and no beard": it is read by rules, and what became of every word is
    shown, and on a terminal asked about, before anything is generated.

    Writes OUT/sheet.png, OUT/images/NNNN.png, OUT/samples.csv (file, seed), OUT/latents.safetensors, or for more than
    one chunk OUT/latents/FIRST.safetensors, and OUT/provenance.json. Run again, it goes on where it was stopped.

    Args:
        formula: what shall hold; & and, | or, ~ not, NAME=VALUE, a weight as in smile^2.0; left out, images are drawn
            without any condition.
        text: in its place, a description in English.
        synonyms: YAML file of phrases that `text` may use and the formulas they stand for, such as `young: age<0.3`.
        yes: agree to whatever `text` is read as, also where it can be read in more ways than one.
        num: how many samples.
        out: folder for the results.
        seed: of the first sample; sample i has seed + i and is the same whatever num and ranks are.
        chunk: samples that one rank draws together; memory grows with it and not with num.
        images: whether every image is written, or latents and the sheet only; images of up to 10 000 samples when left
            out.
        prior: checkpoint of the prior, the diffusion model of latents, as `lcg fit` leaves it.
        classifier: checkpoint of the classifiers of noised latents, as `lcg fit` leaves it.
        model: in their place, name or folder of an exported model; `avatars` comes with lcg.
        generator: the frozen generator; the embedded one when left out.
        sampling: how latents are sampled.
        guidance: how the formula guides.
        extrapolate: auto, always or never; what `guidance.extrapolate` says when left out.
        execution: by which kernels and in which precision the networks run; `auto` is what was measured to be fastest.
        device: auto, cpu, cuda, or cuda:N for a single rank.
        ranks: how many processes share the chunks.
        overwrite: begin anew, in the place of what an earlier run left in OUT.
    """
    if text is not None and formula is not None:
        raise ValueError(f"`text` and `formula` say the same thing twice, got {text!r} and {formula!r}; leave one out")
    if text is None and synonyms is not None:
        raise ValueError("`synonyms` are those of `text`, which was not given; formulas have the attributes' own names")
    if extrapolate is not None:
        guidance = replace(guidance, extrapolate=extrapolate)
    place, ranks = placed(device, ranks)
    pipeline = load(
        *chosen(model, prior, classifier), generator, place, execution, sampling=sampling, guidance=guidance
    )
    if text is not None:
        formula = formula_of(text, pipeline.schema, synonyms, yes)
    told = generate_many(pipeline, out, formula, num, seed, chunk, images, ranks, overwrite)
    if told is None:
        return
    for warning in told.get("warnings", []):
        print(f"warning: {warning}")
    found = f" ({told['found']} of {-(-num // chunk)} chunks were there)" if told["found"] else ""
    print(f"{num} {'images' if told['images'] else 'latents'}{found} in {told['seconds']:.1f} s: {out}/sheet.png")


def placed(device: str, ranks: Ranks) -> tuple[str, Ranks]:
    """The device of this process, and the ranks on such devices.

    Raises:
        ValueError: the device is not there, or `ranks` says otherwise.
    """
    if device == "auto":
        return str(ranks.device), ranks
    kind, _, number = pick_device(device).partition(":")
    accelerator = "gpu" if kind == "cuda" else "cpu"
    if ranks.accelerator not in ("auto", accelerator) or (number and ranks.count > 1):
        raise ValueError(
            f"`device` is {device!r}, `ranks` asks for {ranks.count} on {ranks.accelerator}; "
            "leave out --device, and say --ranks.accelerator"
        )
    ranks = Ranks(ranks.devices, ranks.nodes, "gpu" if kind == "cuda" else "cpu")
    return device if number or kind != "cuda" else str(ranks.device), ranks
