"""The model card of an exported model: what it is, how it was made, how good it is, and what it is not for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from torch import Tensor

from lcg.models.description import Description, Network
from lcg.models.unseen import unseen_pairs
from lcg.schema import Attribute

PAIRS_SHOWN = 30

USE = """\
Images that satisfy a formula over the attributes above, and edits of images attribute by attribute, as a subject or a
tool of research on composition, guidance and latent spaces. It was made to find out what such models can do. It says
nothing about real people, and should decide nothing about them."""

LIMITS = """\
- Formulas are read with attributes independent of each other given the noised latent, or with the dependence that the
  joint head has learnt; neither is exact. Trust in a sample is told with it (`Samples.draw`).
- Within the prior's support samples are conditionals, as exact as the networks. A combination that the store never had
  has no conditional: there lcg extrapolates, says so, and may show ghosts.
- What no classifier here watches may change in an edit.
- It inherits every bias of its data: attributes that went together there go together here."""


def write_card(name: str, model: Description, labels: Tensor, license: str | None = None, gallery: int = 0) -> str:
    """The text of README.md.

    Args:
        name: of the model.
        model: what `model.json` says.
        labels: (N, A) of its store, or a sample of them.
        license: of the weights; None when nothing is said.
        gallery: rows of the gallery that goes with it; 0 for none.
    """
    front: dict[str, Any] = {
        "library_name": "lcg",
        "tags": ["latent-classifier-guidance", "diffusion", "classifier-guidance", "image-editing"],
        "pipeline_tag": "unconditional-image-generation",
    }
    if license is not None:
        front = {"license": license, **front}
    sections = {
        "How to load it": _loading(name, model),
        "Attributes": _attributes(model, labels),
        "How it was trained": _training("Prior", model.prior) + "\n\n" + _training("Classifiers", model.classifier),
        "Accuracy and calibration by noise level": _calibration(model),
        "Data": _data(model, labels) + _gallery(gallery),
        "Generator": _generator(model.generator),
        "Intended use": USE,
        "Limits": LIMITS + _distilled(model),
        "Combinations that the store never had": _unseen(model, labels),
        "License": f"`{license}`" if license else "None is stated. Ask whoever gave you this folder before you use it.",
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\n{_summary(model)}\n\n{text}\n"


def _summary(model: Description) -> str:
    shape = " x ".join(map(str, model.latent_shape))
    kind = "distilled diffusion prior (a consistency function)" if model.distilled else "diffusion prior"
    return (
        f"A {kind} over latents of shape {shape}, and classifiers of noised latents for {len(model.schema)} "
        "attributes: what latent classifier guidance\n"
        "([Shi et al. 2023](https://arxiv.org/abs/2304.12536)) needs to generate and to edit the images of a frozen "
        f"generator.\nExported by lcg {model.made_with.get('lcg')}, weights in {model.dtype}."
    )


def _loading(name: str, model: Description) -> str:
    more = ', sampling=Sampling("consistency", steps=2)' if model.distilled else ""
    first = "from lcg.settings import Sampling\n" if model.distilled else ""
    return (
        f'```python\nimport lcg\n{first}pipeline = lcg.load("{name}"{more})  # or the path of this folder\n```\n\n'
        "On the command line `lcg generate --model FOLDER`. A generator other than the one that is embedded in lcg is "
        "given as `generator`."
    )


def _attributes(model: Description, labels: Tensor) -> str:
    figures = model.classifier.training.get("figures", {})
    bands = _bands(figures)
    clean = f"accuracy at {bands[0]}" if bands else "accuracy"
    rows = []
    for attribute, column in zip(model.schema, labels.T, strict=True):
        known = column[~column.isnan()]
        accuracy = figures.get(f"val/accuracy/{attribute.name}/{bands[0]}") if bands else None
        rows.append((attribute.name, attribute.kind, _counts(attribute, known), str(len(known)), _number(accuracy)))
    table = _table(("attribute", "kind", "values and how many rows have them", "rows labelled", clean), rows)
    return f"{table}\n\nCounted in the {len(labels)} label rows of the store that go with the classifiers."


def _counts(attribute: Attribute, known: Tensor) -> str:
    if attribute.kind == "continuous":
        return f"{known.min():.3g} to {known.max():.3g}, mean {known.mean():.3g}" if len(known) else "any number"
    values = ("no", "yes") if attribute.kind == "binary" else attribute.values
    return ", ".join(f"{value} {int((known == index).sum())}" for index, value in enumerate(values))


def _training(title: str, network: Network) -> str:
    training = network.training
    lines = [f"{title}: {training['steps']} steps." if "steps" in training else f"{title}: nothing is known."]
    lines += [f"- network: {_listed(network.config)}"]
    for what in ("options", "data"):
        if training.get(what):
            lines.append(f"- {what}: {_listed(training[what])}")
    loss = training.get("figures", {}).get("val/loss")
    if loss is not None:
        lines.append(f"- validation loss {_number(loss)}, measured at step {training.get('figures_at')}")
    return "\n".join([lines[0], "", *lines[1:]])


def _calibration(model: Description) -> str:
    figures, record = model.classifier.training.get("figures", {}), model.calibration
    bands, temperature = _bands(figures), record.get("temperature")
    parts = []
    if bands:
        names = ("accuracy", "ece", "loss")
        rows = [(band, *(_number(figures.get(f"val/{name}/{band}")) for name in names)) for band in bands]
        table = _table(("noise level", "accuracy", "calibration error", "negative log-likelihood"), rows)
        parts.append(f"{table}\n\nMeans over attributes on validation data, before the temperature was fitted.")
    if isinstance(temperature, list) and temperature:
        listed = ", ".join(_number(value) for value in temperature)
        parts.append(
            f"Temperature, fitted on validation data at evenly spaced noise levels from t = 0 to t = 1: {listed}. "
            f"Formulas are best read as {record.get('dependence', 'independent')}."
        )
    for reading in ("joint", "independent"):
        if isinstance(record.get(reading), dict):
            nats = {when: record[reading].get(when, []) for when in ("before", "after")}
            listed = "; ".join(f"{when} {', '.join(map(_number, values))}" for when, values in nats.items())
            parts.append(f"Nats per validation label by noise level, read as {reading}, by temperature: {listed}.")
    return "\n\n".join(parts) or "Nothing was measured: no validation figures lay beside the checkpoint."


def _data(model: Description, labels: Tensor) -> str:
    told = {k: v for k, v in model.provenance.items() if k != "fingerprints"}
    what = f"```json\n{json.dumps(told, indent=2)}\n```" if told else "The checkpoints do not say where it came from."
    return (
        f"Trained on the latent store of fingerprint `{model.store}`.\n\n{what}\n\n"
        f"{len(labels)} label rows of it go with the classifiers, without images and without names of files."
    )


def _gallery(rows: int) -> str:
    if not rows:
        return ""
    return (
        f"\n\nIn `gallery` lie {rows} latents with their labels, as a latent store to look at and to edit. They are of "
        "the validation\nsplit, on which nothing was trained."
    )


def _generator(identity: Mapping[str, Any]) -> str:
    if not identity:
        return "Not known. The images must come from the generator that encoded the store."
    return (
        f"Not in this folder; weights that differ are refused.\n\n```json\n{json.dumps(dict(identity), indent=2)}\n```"
    )


def _distilled(model: Description) -> str:
    if not model.distilled:
        return ""
    return "\n- The prior is distilled: it generates in 1 to 4 steps, and can neither edit nor give likelihoods."


def _unseen(model: Description, labels: Tensor) -> str:
    pairs = unseen_pairs(model.schema, labels)
    if not pairs:
        return f"None among the pairs of values that {len(labels)} label rows can tell of."
    lines = [f"- `{formula}` (about {expected:.0f} rows, were they independent)" for formula, expected in pairs]
    more = len(lines) - PAIRS_SHOWN
    hidden = [f"- and {more} more"] if more > 0 else []
    return "\n".join([f"No row of {len(labels)} has:", "", *lines[:PAIRS_SHOWN], *hidden])


def _bands(figures: Mapping[str, float]) -> list[str]:
    """The noise levels that there are figures of, such as `t0.0-0.2`."""
    return sorted(name.removeprefix("val/loss/") for name in figures if name.startswith("val/loss/"))


def _listed(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {_cell(str(value))}" for name, value in entries.items()) or "as by default"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
