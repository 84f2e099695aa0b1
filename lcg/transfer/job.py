"""`lcg transfer`: two stores of the same images -> a map between the latents of two generators, and its error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lcg.data.atomic import write_atomic
from lcg.transfer.maps import LatentMap, fit_map, r2, r2_of_attributes
from lcg.transfer.pairs import Pairs, read_pairs
from lcg.transfer.solvers import How

DOUBTFUL = 0.5
"""An attribute's R^2 below which it is warned of: half of what tells it is lost on the way, or more."""
FEWEST = 20
"""Pairs on either side of the division into fitted and held out."""


def transfer_job(
    source: str,
    target: str,
    out: str = "runs/transfer",
    how: How = "ridge",
    num: int | None = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> None:
    """Learns a map between the latents of two generators, so that what was trained on the one drives the other.

    Writes OUT/map.safetensors and OUT/report.json. `lcg.transfer.MappedGenerator` with this map and generator B is the
    generator for prior and classifiers of A.

    Args:
        source: store of generator A, which prior and classifiers were trained on.
        target: store of generator B, of the same images; or of those that A makes of its store (see
            lcg.transfer.pairs.DecodedStore), or the other way round.
        out: folder for the results.
        how: ridge (least error), cca (keeps the spread), procrustes (rotation and scale), relative (cosines with
            anchors).
        num: pairs to learn from; all that are not held out when left out.
        held_out: share of the pairs on which the map is judged, in (0, 1).
        seed: of the choice of pairs.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"`held_out` must be in (0, 1), got {held_out}; .2 judges on a fifth of the pairs")
    pairs = read_pairs(source, target, seed=seed)
    judged = max(FEWEST, round(held_out * len(pairs)))
    left = len(pairs) - judged
    if left < FEWEST or (num is not None and not FEWEST <= num <= left):
        raise ValueError(
            f"`num` must be {FEWEST} at least, and at most the pairs that are not held out, got "
            f"{'all' if num is None else num} of {max(0, left)}; encode more images with both generators"
        )
    fitted = slice(judged, judged + (left if num is None else num))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = fit_map(pairs.z_a[fitted], pairs.z_b[fitted], how, provenance=pairs.provenance)
    report = judge_map(found, pairs, slice(0, judged))
    found.provenance["held_out"] = report
    found.save(folder / "map.safetensors")
    write_atomic(folder / "report.json", (json.dumps(found.provenance, indent=2) + "\n").encode())
    print(in_words(found.provenance))
    print(f"map of {found.provenance['fit']['pairs']} pairs in {folder / 'map.safetensors'}")


def judge_map(found: LatentMap, pairs: Pairs, rows: slice) -> dict[str, Any]:
    """R^2 of a map on pairs that it was not fitted to, in JSON primitives; None where there is no telling."""
    z_a, z_b, labels = pairs.z_a[rows], pairs.z_b[rows], pairs.labels[rows]
    there, back = found(z_a), found.inverse(z_b)
    told = [j for j, attribute in enumerate(pairs.schema) if attribute.kind != "categorical"]
    along = r2_of_attributes(z_b.flatten(1), there.flatten(1), labels[:, told])
    names = [pairs.schema.names[j] for j in told]
    return {
        "pairs": len(z_a),
        "there": r2(z_b, there),
        "back": r2(z_a, back),
        "there_and_back": r2(z_a, found.inverse(there)),
        "attributes": {n: None if v != v else v for n, v in zip(names, along.tolist(), strict=True)},
    }


def in_words(told: dict[str, Any]) -> str:
    """What the report says, for a person."""
    report = told["held_out"]
    lines = [
        f"R^2 on {report['pairs']} pairs held out: {report['there']:.3f} there, {report['back']:.3f} back, "
        f"{report['there_and_back']:.3f} there and back"
    ]
    along = {name: value for name, value in report["attributes"].items() if value is not None}
    if along:
        lines.append("along attributes: " + ", ".join(f"{name} {value:.3f}" for name, value in along.items()))
    lost = [name for name, value in along.items() if value < DOUBTFUL]
    if lost:
        lines.append(f"warning: {', '.join(lost)} hardly survive the way; more pairs may help, or B cannot show them")
    return "\n".join(lines)
