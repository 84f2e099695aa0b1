"""The option `model` of commands that have `prior` and `classifier` too."""

from __future__ import annotations

from lcg.models.names import find_model
from lcg.pipeline import CLASSIFIER, PRIOR


def chosen(model: str | None, prior: str, classifier: str) -> tuple[str, str]:
    """Where prior and classifiers are.

    Args:
        model: name or folder of an exported model; None to do without.
        prior: what the option of that name says, `PRIOR` by default.
        classifier: likewise, `CLASSIFIER`.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: both ways are used at once.
    """
    if model is None:
        return prior, classifier
    if (prior, classifier) != (PRIOR, CLASSIFIER):
        raise ValueError("`model` brings its own prior and classifiers; give --model, or --prior and --classifier")
    folder = str(find_model(model))
    return folder, folder
