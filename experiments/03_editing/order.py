"""Whether the order of edits matters: all orders of four edits on the same sources, final images compared.

    python experiments/03_editing/order.py --sources 256

An edit session asks for its edits in one order whatever order they were made in, so there the results are equal bit by
bit; here the editor itself is given every order.
"""

from itertools import permutations

import torch
from jsonargparse import auto_cli

from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.data.store import LatentStore
from lcg.editing.contract import edit_together
from lcg.guidance import parse, parse_edit
from lcg.metrics.judge import AvatarJudge
from lcg.metrics.reference import marginals
from lcg.pipeline import CLASSIFIER, PRIOR, load


def main(
    sources: int = 256,
    edits: str = "+beard +glasses +smile +hat",
    conditions: str = "~glasses & ~beard & ~smile & ~hat & ~long_hair",
    store: str = "runs/demo/store",
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
) -> None:
    """Prints the share of equal labels, by the judge, between the first order and every other.

    Args:
        sources: how many.
        edits: the edits.
        conditions: what holds for the sources.
        store: of prior and classifier.
        prior: checkpoint.
        classifier: checkpoint.
    """
    pipeline, world = load(prior, classifier), AvatarWorld()
    shares = marginals(LatentStore.open(store).labels(), pipeline.schema)
    evaluator = Evaluator(pipeline, AvatarJudge(), world, shares, references=256, neighbours=256)
    real = world.real("uniform", sources, "order", parse(conditions, world.schema))
    z_0, editor = pipeline.encode(real.images), pipeline.editor()
    first = first_labels = None
    agreement, furthest = [], 0.0
    for order in permutations(edits.split()):
        z = edit_together(editor, z_0, [parse_edit(word, pipeline.schema) for word in order], real.labels).z_0
        labels = evaluator.see(pipeline.decode(z)).labels
        if first is None or first_labels is None:
            first, first_labels = z, labels
            continue
        equal = (labels == first_labels) | (labels.isnan() & first_labels.isnan())
        agreement.append(float(equal.double().mean()))
        furthest = max(furthest, float((z - first).abs().max()))
    print(
        f"{len(agreement) + 1} orders on {sources} sources: attribute agreement with the first "
        f"{min(agreement):.4f} at least, {torch.tensor(agreement).mean():.4f} on average; latents differ by "
        f"{furthest:.1e} at most"
    )


if __name__ == "__main__":
    auto_cli(main)
