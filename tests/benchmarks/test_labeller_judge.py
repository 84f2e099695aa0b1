"""A labeller as judge: what it sees, and when it may not be believed."""

import numpy as np
import pytest
import torch

from lcg.benchmarks.labeller_judge import LabellerJudge, part_of
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.benchmarks.worlds.discipline import check_judge, networks_of
from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.generators.base import pixels_to_x, weights_sha256
from lcg.labels.base import Labeller
from lcg.labels.judge import JudgeLabeller
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules import Threshold
from lcg.labels.scorer import FunctionScorer
from lcg.metrics.judge import AvatarJudge
from lcg.schema import Attribute, Schema

STORE = {"source": AvatarSource("biased", 8, "train").identity()}


def images(count: int = 6) -> torch.Tensor:
    return pixels_to_x(torch.from_numpy(AvatarSource("uniform", count, "labeller-judge").chunk(0, count)[0]))


def store_of(labeller: Labeller) -> dict:
    """The provenance of a store whose labels are from a labeller, as `lcg label` writes it."""
    entry = {"labeller": labeller.identity(), "attributes": ["glasses", "hat"], "trained_on": dict(labeller.provenance)}
    return {**STORE, "labelled": [entry]}


def brightness(pixels):
    return pixels.mean((1, 2, 3)) / 255


# --- what it sees ---


def test_a_judge_behind_a_labeller_sees_what_it_saw() -> None:
    x, judge = images(), AvatarJudge()
    mine, own = LabellerJudge(JudgeLabeller(judge)).judge(x, batch_size=4), judge.judge(x)
    for name in ("labels", "features", "probabilities"):
        torch.testing.assert_close(getattr(mine, name), getattr(own, name), equal_nan=True, atol=1e-4, rtol=1e-4)


def test_larger_images_are_averaged_down_and_others_refused() -> None:
    judge, x = LabellerJudge(JudgeLabeller(AvatarJudge())), images(2)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(judge.judge(large).labels, judge.judge(x).labels, equal_nan=True)
    with pytest.raises(ValueError, match="the judge expects images of shape"):
        judge.judge(torch.zeros(1, 3, 48, 48))


def test_without_features_there_are_the_colours_of_fields() -> None:
    judge = LabellerJudge(RuledLabeller(FunctionScorer(f"{__name__}:brightness", ["bright"])), (3, 16, 16))
    x = pixels_to_x(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)))
    seen = judge.judge(x)
    expected = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)).flatten(1)
    torch.testing.assert_close(seen.features, expected)
    assert judge.config["features"] == seen.features.shape[1] == 192
    torch.testing.assert_close(judge.features(x), expected)
    assert seen.probabilities.isnan().all()


def test_attributes_may_be_chosen_and_ordered() -> None:
    x, labeller = images(), JudgeLabeller(AvatarJudge())
    judge = LabellerJudge(labeller, attributes=["hair_color", "glasses"])
    assert judge.schema.names == ("hair_color", "glasses")
    whole = LabellerJudge(labeller).judge(x)
    columns = [SCHEMA.index("hair_color"), SCHEMA.index("glasses")]
    torch.testing.assert_close(judge.judge(x).labels, whole.labels[:, columns], equal_nan=True)
    assert weights_sha256(judge) != weights_sha256(LabellerJudge(labeller))


def test_a_part_of_a_schema_forgets_who_is_left_out() -> None:
    schema = Schema((Attribute("a"), Attribute("b", detail_of=("a",), applies_if={"a": True})))
    assert part_of(schema, ["b"]).attributes == (Attribute("b"),)
    assert part_of(schema, ["b", "a"])["b"] == schema["b"]


def test_its_name_says_what_it_goes_by() -> None:
    def judge(threshold: float) -> LabellerJudge:
        rules = {"bright": Threshold(threshold)}
        return LabellerJudge(RuledLabeller(FunctionScorer(f"{__name__}:brightness", ["bright"]), rules))

    assert weights_sha256(judge(0.5)) == weights_sha256(judge(0.5)) != weights_sha256(judge(0.6))
    assert judge(0.5).networks == judge(0.6).networks and len(judge(0.5).networks) == 1
    assert next(judge(0.5).parameters()).device.type == "cpu"


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 4, 64)])
def test_other_images_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"`image_shape` must be \(3, H, W\) with sides of 8 or more, got"):
        LabellerJudge(JudgeLabeller(AvatarJudge()), shape)


def test_it_has_no_heads() -> None:
    with pytest.raises(TypeError, match=r"JudgeLabeller has no heads; ask for its `judge\(x\)`"):
        LabellerJudge(JudgeLabeller(AvatarJudge()))(images(1))


# --- who may be believed ---


def test_a_labeller_that_had_no_part_in_the_labels_may_judge() -> None:
    judge = LabellerJudge(JudgeLabeller(AvatarJudge()))
    assert check_judge(judge, AvatarWorld(), STORE, {}) == []
    other = RuledLabeller(FunctionScorer(f"{__name__}:brightness", ["bright"]))
    assert check_judge(judge, AvatarWorld(), store_of(other), {}) == []


@pytest.mark.parametrize("behind", [True, False], ids=["as labeller", "as itself"])
def test_who_made_the_labels_is_refused_or_told(behind) -> None:
    """Also with other thresholds: it is the network that counts."""
    made = JudgeLabeller(AvatarJudge(), {**JudgeLabeller(AvatarJudge()).rules, "hat": Threshold(0.9)})
    judge = LabellerJudge(JudgeLabeller(AvatarJudge())) if behind else AvatarJudge()
    with pytest.raises(ValueError, match="The judge also made the latent store's labels of glasses, hat") as error:
        check_judge(judge, AvatarWorld(), store_of(made), {})
    assert "`--shared_judge true`" in str(error.value)
    told = check_judge(judge, AvatarWorld(), store_of(made), {}, allow=True)
    assert (
        told[0]
        == "The judge also made the latent store's labels of glasses, hat. Figures that rest on this may flatter."
    )


def test_who_made_the_worlds_labels_is_told() -> None:
    class Labelled(AvatarWorld):
        def sources(self):
            entry = store_of(JudgeLabeller(AvatarJudge()))["labelled"]
            return [{**source, "labelled": entry} for source in super().sources()]

    told = check_judge(AvatarJudge(), Labelled(), STORE, {}, allow=True)
    assert "The judge also made the world's labels of glasses, hat." in told[0]


def test_two_networks_that_learnt_from_the_same_images_are_told() -> None:
    judge = AvatarJudge()
    entry = {"labeller": {"weights_sha256": "0" * 64}, "attributes": ["hat"], "trained_on": judge.provenance}
    told = check_judge(judge, AvatarWorld(), {**STORE, "labelled": [entry]}, {}, allow=True)
    assert told[0].startswith("The judge's training images are the same as those of the latent store's labeller.")


def test_a_labeller_that_guides_is_refused() -> None:
    judge = LabellerJudge(JudgeLabeller(AvatarJudge()))
    with pytest.raises(ValueError, match="The judge has the weights of the classifier, which guides"):
        check_judge(judge, AvatarWorld(), STORE, {"the classifier": weights_sha256(AvatarJudge())})


def test_networks_are_found_by_their_hashes_and_others_by_their_names() -> None:
    told = {"scorer": {"nets": [{"file_sha256": "a"}, {"weights_sha256": "b"}], "code_sha256": ""}, "c": 3}
    assert networks_of(told) == {"a", "b"}
    assert networks_of({"class": "Mine"}) == networks_of({"class": "Mine"}) != networks_of({"class": "Other"})
