"""A schema with details, and a way to the errors that run-time type checks would forestall."""

import jaxtyping
import pytest

from lcg.schema import Attribute, Schema


@pytest.fixture
def schema() -> Schema:
    """Column 0..4: two binary attributes, details of each, and one that belongs to nothing."""
    return Schema(
        (
            Attribute("hat"),
            Attribute("top", "categorical", ("cap", "turban", "bald"), detail_of=("hat",)),
            Attribute("glasses"),
            Attribute("frame", "categorical", ("round", "square"), applies_if={"glasses": True}),
            Attribute("eyes", "categorical", ("open", "closed")),
        )
    )


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without jaxtyping's checks: the package's own errors must be there when those are off."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
