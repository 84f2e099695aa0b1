"""A schema with every kind of attribute; and a way to the errors that run-time type checks would forestall."""

import jaxtyping
import pytest

from lcg.schema import Attribute, Schema


@pytest.fixture
def schema() -> Schema:
    return Schema(
        (
            Attribute("hat"),
            Attribute("hair", "categorical", ("blond", "red", "black"), applies_if={"hat": False}),
            Attribute("age", "continuous"),
            Attribute("beard"),
        )
    )


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without jaxtyping's checks: the package's own errors must be there when those are off."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
