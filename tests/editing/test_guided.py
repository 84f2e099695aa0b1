"""lcg's editor against exact priors and exact noisy classifiers: what it must do, and what it must leave alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcg.diffusion import (
    DDIM,
    CosineSchedule,
    DPMSolverPP2M,
    GaussianDenoiser,
    Langevin,
    MixtureDenoiser,
    PredictorCorrector,
)
from lcg.editing import EditRequest, GuidedEditor, edit_sequence
from lcg.guidance import Formula, parse_edit
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute, Schema

SCHEDULE = CosineSchedule()
CORNERS = Schema((Attribute("right"), Attribute("up")))
NAN = float("nan")


def ddim(steps: int = 40, t_start: float = 0.98, **options: float) -> DDIM:
    return DDIM(SCHEDULE, steps, t_start=t_start, **options)


def edits(text: str, schema: Schema = CORNERS) -> tuple[Formula, ...]:
    return tuple(parse_edit(word, schema) for word in text.split())


# --- four corners: a mixture whose components are the attributes' values ----------------------------------------------


MEANS = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
PRIOR = MixtureDenoiser(torch.zeros(4), MEANS, 0.16 * torch.eye(2, dtype=torch.float64).expand(4, 2, 2), SCHEDULE)


def corner(z_t: Tensor, t: Tensor) -> HeadOutputs:
    """The exact noisy posterior of `right` (components 0, 1) and `up` (0, 2)."""
    log_r = PRIOR.responsibilities(z_t, t)

    def logit(holds: list[int]) -> Tensor:
        return log_r[:, holds].logsumexp(1) - log_r[:, [k for k in range(4) if k not in holds]].logsumexp(1)

    return {"right": logit([0, 1]), "up": logit([0, 2])}


def corners(weight: float = 1.5, keep: float = 1.0, strength: float = 1.0, **options) -> GuidedEditor:
    sampler = options.pop("sampler", None) or ddim()
    return GuidedEditor(PRIOR, corner, CORNERS, sampler, weight, keep, strength, **options)


def strength_of(tau: float) -> float:
    return tau**2 / (1 + tau**2)


def sources(k: int, n: int = 16) -> Tensor:
    return MEANS[k] + 0.4 * torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(k))


@pytest.mark.parametrize("k", range(4))
def test_without_guidance_inversion_leads_back_to_the_source(k: int) -> None:
    editor = corners(weight=0.0, keep=0.0, sampler=ddim(150))
    z_0 = sources(k)
    assert (editor.edit(z_0, EditRequest(edits("+right -up"))).z_0 - z_0).abs().max() < 0.1


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("text", ["+right", "-right", "+up", "-up", "+right +up", "-right +up"])
def test_an_edit_moves_what_it_names_and_nothing_else(k: int, text: str) -> None:
    z_0, wanted = sources(k), MEANS[k].clone()
    for word in text.split():
        wanted[0 if "right" in word else 1] = 2.0 if word[0] == "+" else -2.0
    edited = corners().edit(z_0, EditRequest(edits(text))).z_0
    assert (edited - wanted).abs().max() < 2.0  # in the right corner: every sample has the right signs
    assert (edited.mean(0) - wanted).abs().max() < 0.75


def test_what_is_not_named_changes_without_keep_terms() -> None:
    """The negative control: at pure noise nothing but the keep terms remembers the source."""
    z_0, request = sources(1, 64), EditRequest(edits("-right"))
    share = {}
    for keep in (0.0, 1.0):
        editor = corners(keep=keep, start="noise", t_start=0.98, seeds=range(64))
        share[keep] = float((editor.edit(z_0, request).z_0[:, 1] < 0).double().mean())
    assert share[1.0] == 1.0 and share[0.0] < 0.8


def test_a_row_does_not_depend_on_its_batch() -> None:
    z_0 = torch.cat([sources(k, 2) for k in range(4)])
    labels = torch.tensor([[NAN, 1.0]], dtype=torch.float64).repeat(8, 1)
    together = corners(strength=0.5).edit(z_0, EditRequest(edits("+right"), labels)).z_0
    for i in (0, 3, 7):
        alone = corners(strength=0.5).edit(z_0[i : i + 1], EditRequest(edits("+right"), labels[i : i + 1])).z_0
        assert (alone - together[i]).abs().max() < 1e-9


def test_a_sequence_ends_where_its_edits_lead() -> None:
    z_0 = sources(2)
    results = [
        result.z_0.mean(0).sign().tolist() for result in edit_sequence(corners(), z_0, edits("+right -up -right"))
    ]
    assert results == [[1, 1], [1, -1], [-1, -1]]


def test_noise_comes_from_the_seeds() -> None:
    z_0, request = sources(0, 3), EditRequest(edits("-right"))
    for start in ("noising", "noise"):
        first, second, third = (
            corners(start=start, t_start=0.98, seeds=seeds).edit(z_0, request).z_0
            for seeds in ([1, 2, 3], [1, 2, 3], [1, 2, 4])
        )
        assert torch.equal(first, second) and torch.equal(first[:2], third[:2])
        assert (first[2] - third[2]).abs().max() > 0.01


DRAWING = {
    "noising": {"start": "noising", "t_start": 0.9},
    "noise": {"start": "noise", "t_start": 0.98},
    "corrected": {
        "start": "noise",
        "t_start": 0.98,
        "sampler": PredictorCorrector(SCHEDULE, 12, t_start=0.98, corrector=Langevin(steps=1)),
    },
}


@pytest.mark.parametrize("options", DRAWING.values(), ids=DRAWING)
@pytest.mark.parametrize("seeds", [7, (5, 6, 7)])
def test_an_editor_that_draws_noise_has_no_memory(options: dict, seeds: int | tuple[int, ...]) -> None:
    z_0, request, editor = sources(0, 3), EditRequest(edits("-right")), corners(seeds=seeds, **options)
    first = editor.edit(z_0, request).z_0
    editor.edit(z_0, EditRequest(edits("+up")))
    assert torch.equal(editor.edit(z_0, request).z_0, first)
    other = corners(seeds=8 if isinstance(seeds, int) else (5, 6, 8), **options).edit(z_0, request).z_0
    assert not torch.equal(other[2], first[2])


@pytest.mark.parametrize("options", DRAWING.values(), ids=DRAWING)
def test_one_seed_serves_any_number_of_rows(options: dict) -> None:
    z_0, request = sources(0, 5), EditRequest(edits("-right"))
    together = corners(seeds=3, **options).edit(z_0, request).z_0
    for row in (0, 4):
        alone = corners(seeds=3, **options).edit(z_0[row : row + 1], request).z_0
        assert (alone - together[row]).abs().max() < 1e-9


@pytest.mark.parametrize("options", DRAWING.values(), ids=DRAWING)
def test_rows_of_one_source_share_its_noise(options: dict) -> None:
    """As those of a strip: two sources at three strengths each, source by source."""
    z_0, editor = sources(0, 2), corners(seeds=(11, 12), **options)
    strengths = torch.tensor([0.3, 0.9, 1.0], dtype=torch.float64)
    rows = editor.edit(z_0.repeat_interleave(3, dim=0), EditRequest(edits("-right"), strength=strengths.repeat(2))).z_0
    for s, strength in enumerate(strengths.tolist()):
        single = editor.edit(z_0, EditRequest(edits("-right"), strength=strength)).z_0
        assert (rows[s::3] - single).abs().max() < (1e-4 if strength == 1 else 1e-9)  # tau = 1e4 for no source


def test_noise_forgets_the_source_and_noising_does_not() -> None:
    request, seeds = EditRequest(edits("+up")), range(16)
    for start, same in (("noise", True), ("noising", False)):
        one, two = (
            corners(keep=0.0, start=start, t_start=0.98 if same else 0.6, seeds=seeds).edit(sources(k), request).z_0
            for k in (0, 2)
        )
        assert bool((one - two).abs().max() < 1e-12) == same


# --- latent arithmetic ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variance", "shrinkage", "mode"),
    [(1.0, 0.8, "observation"), (1.0, 0.8, "tweedie"), (1e6, 1.0, "observation")],  # tweedie supposes a white prior
)
def test_under_a_gaussian_prior_and_a_linear_classifier_an_edit_is_latent_arithmetic(
    variance: float, shrinkage: float, mode: str
) -> None:
    """z_src + w tau^2 a; a prior N(0, v I) shrinks that by v / (v + tau^2). log sigmoid(u) is u far below 0."""
    eye = torch.eye(2, dtype=torch.float64)
    prior = GaussianDenoiser(torch.zeros(2, dtype=torch.float64), variance * eye, SCHEDULE)
    direction, tau = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.5

    def linear(z_t: Tensor, t: Tensor) -> HeadOutputs:
        u = prior.moments(z_t, t)[0] @ direction - 1000.0
        return {"right": u, "up": u}

    sampler = DDIM(SCHEDULE, 80, t_start=0.9999, spacing="log_snr")
    z_0 = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(weight: float) -> Tensor:
        editor = GuidedEditor(prior, linear, CORNERS, sampler, weight, 0.0, strength_of(tau), mode, t_start=0.9999)
        return editor.edit(z_0, EditRequest(edits("+right"))).z_0

    unmoved = moved(0.0)
    for weight in (1.0, 3.0):
        expected = shrinkage * weight * tau**2 * direction
        assert ((moved(weight) - unmoved) - expected).abs().max() < 0.02 * weight


def test_strength_mixes_the_source_and_what_guidance_alone_asks_for() -> None:
    """N(0, I) prior and log-probability g.z_0: the mean edit is (1 - s) z_src + s g, whatever g."""
    eye = torch.eye(2, dtype=torch.float64)
    prior = GaussianDenoiser(torch.zeros(2, dtype=torch.float64), eye, SCHEDULE)
    g = torch.tensor([1.0, -0.5], dtype=torch.float64)

    def linear(z_t: Tensor, t: Tensor) -> HeadOutputs:
        u = prior.moments(z_t, t)[0] @ g - 1000.0
        return {"right": u, "up": u}

    sampler = DDIM(SCHEDULE, 80, t_start=0.9999, spacing="log_snr")
    options = {"source_mode": "tweedie", "start": "noise", "t_start": 0.9999}  # exact for this prior, and quick
    editor = GuidedEditor(prior, linear, CORNERS, sampler, 1.0, 0.0, **options)
    z_src = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    noise = torch.randn(1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for s in (0.1, 0.5, 1.0):
        ends = []
        for sign in (1.0, -1.0):  # antithetic starts: the linear map's spread cancels
            editor.noised = lambda z, randomness, sign=sign: sign * noise  # type: ignore[method-assign]
            ends.append(editor.edit(z_src, EditRequest(edits("+right"), strength=s)).z_0)
        assert ((ends[0] + ends[1]) / 2 - ((1 - s) * z_src + s * g)).abs().max() < 0.02


@pytest.mark.parametrize("mode", ["observation", "tweedie"])
@pytest.mark.parametrize("start", ["inversion", "noising", "noise"])
@pytest.mark.parametrize("free", [False, True])
def test_strength_zero_is_the_source_and_little_is_nearly_the_source(mode: str, start: str, free: bool) -> None:
    z_0 = sources(0)
    editor = corners(24.0, source_mode=mode, start=start, t_start=0.98, free=free, seeds=range(16))
    assert torch.equal(editor.edit(z_0, EditRequest(edits("-right"), strength=0.0)).z_0, z_0)
    if not free:  # what is free moves as far as it likes
        assert (editor.edit(z_0, EditRequest(edits("-right"), strength=1e-6)).z_0 - z_0).abs().max() < 1e-2


def test_the_more_strength_the_further() -> None:
    z_0 = sources(0)
    far = [
        float((corners(2.0, 0.0).edit(z_0, EditRequest(edits("-right"), strength=s)).z_0 - z_0).norm(dim=1).mean())
        for s in (0.0, 0.01, 0.1, 0.5, 1.0)
    ]
    assert far == sorted(far) and far[0] == 0 and far[1] < 0.5 < 2.0 < far[-1]


def test_strengths_side_by_side_are_as_one_by_one() -> None:
    z_0, strengths = sources(0, 4), torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    together = corners().edit(z_0, EditRequest(edits("-right"), strength=strengths)).z_0
    for row, strength in enumerate(strengths.tolist()):
        single = corners().edit(z_0[row : row + 1], EditRequest(edits("-right"), strength=strength)).z_0[0]
        assert (together[row] - single).abs().max() < (1e-4 if strength == 1 else 1e-9)  # tau = 1e4 for no source


def test_strength_is_the_variance_of_the_observation_and_the_weight_of_the_paper_s_kernel() -> None:
    """tau^2 = s / (1 - s), and 1 / tau^2: at s = 1/2 the kernel is the paper's own."""
    z_0, request = sources(0, 4), EditRequest(edits("+right"))
    strength = torch.tensor([0.0, 0.2, 0.5, 0.9], dtype=torch.float64)
    tau = corners().source_term(z_0, request, strength).tau
    assert (tau[1:] ** 2 - torch.tensor([0.25, 1.0, 9.0], dtype=torch.float64)).abs().max() < 1e-12 and tau[0] == 1e-4
    weight = corners(source_mode="paper").source_term(z_0, request, strength).weight
    assert (weight[1:] - torch.tensor([4.0, 1.0, 1 / 9], dtype=torch.float64)).abs().max() < 1e-12 and weight[0] == 1e4


def test_the_paper_s_kernel_at_its_own_weight_pins_the_source() -> None:
    """It contains the prior a second time: nothing moves where an observation of the same tau lets the edit through."""
    z_0, request = sources(0), EditRequest(edits("-right"), strength=0.5)
    kernel, observed = (
        (corners(2.0, 0.0, source_mode=mode).edit(z_0, request).z_0 - z_0).norm(dim=1).mean()
        for mode in ("paper", "observation")
    )
    assert kernel < 0.01 < 0.3 < observed


def test_a_free_direction_is_the_edit_s_own() -> None:
    z_0 = sources(1)
    one = corners().directions(z_0, edits("+up"))
    assert one.shape == (16, 1, 2) and (one.norm(dim=2) - 1).abs().max() < 1e-9
    assert one[:, 0, 1].abs().min() > 0.99  # up is up
    both = corners().directions(z_0, edits("+up -right"))
    assert (both @ both.mT - torch.eye(2, dtype=torch.float64)).abs().max() < 1e-9


def test_what_is_free_moves_and_what_is_not_stays() -> None:
    z_0, request = sources(0), EditRequest(edits("-right"), strength=0.02)
    held, freed = (corners(4.0, 0.0, free=free).edit(z_0, request).z_0 for free in (False, True))
    assert (held[:, 0] > 0).all() and (freed[:, 0] < 0).double().mean() > 0.9
    assert (freed - z_0)[:, 1].abs().max() < 0.2


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["age=0.7", "age=-1.5"])
def test_a_continuous_attribute_goes_to_its_target(text: str) -> None:
    """y = z_0[0] + noise of variance v: the posterior's mean of z_0[0] is w value / (w + v) for a N(0, I) prior."""
    schema, variance, weight = Schema((Attribute("age", "continuous"), Attribute("hat"))), 0.01, 4.0
    prior = GaussianDenoiser(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64), SCHEDULE)

    def reading(z_t: Tensor, t: Tensor) -> HeadOutputs:
        mean, cov = prior.moments(z_t, t)
        spread = torch.log(variance + cov[..., 0, 0]).expand(len(z_t))
        return {"age": torch.stack((mean[:, 0], spread), dim=1), "hat": mean[:, 1]}

    editor = GuidedEditor(prior, reading, schema, ddim(100), weight, 0.0, 1.0)
    z_0 = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edited = editor.edit(z_0, EditRequest(edits(text, schema))).z_0
    assert (edited[:, 0] - float(text[4:])).abs().max() < 0.15
    assert (edited[:, 1] - z_0[:, 1]).abs().max() < 0.1


# --- layers and dependence --------------------------------------------------------------------------------------------


def test_layers_of_weight_zero_are_left_to_the_prior() -> None:
    schema = Schema((Attribute("right"), Attribute("up")))
    prior = GaussianDenoiser(torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64), SCHEDULE)

    def layered(z_t: Tensor, t: Tensor) -> Tensor:
        return prior(z_t.flatten(1), t).view_as(z_t)

    def linear(z_t: Tensor, t: Tensor) -> HeadOutputs:
        u = z_t.flatten(1).sum(1)
        return {"right": u, "up": u}

    def moved(layers: list[float] | None) -> Tensor:
        editor = GuidedEditor(layered, linear, schema, ddim(), 4.0, 0.0, 1.0, layers=layers)
        z_0 = torch.zeros(2, 3, 2, dtype=torch.float64) - 0.5
        plain = GuidedEditor(layered, linear, schema, ddim(), 0.0, 0.0, 1.0).edit(z_0, EditRequest(edits("+right")))
        return (editor.edit(z_0, EditRequest(edits("+right"))).z_0 - plain.z_0).abs().amax(dim=(0, 2))

    assert torch.allclose(moved([1.0, 1.0, 1.0]), moved(None))
    first, second, third = moved([1.0, 0.0, 0.5]).tolist()
    assert first > 0.1 and second < 1e-9 and 0 < third < first


def test_corrections_go_with_a_start_from_noise() -> None:
    sampler = PredictorCorrector(SCHEDULE, 20, t_start=0.98, corrector=Langevin(steps=1))
    editor = corners(sampler=sampler, start="noise", t_start=0.98, seeds=range(16))
    assert (editor.edit(sources(3), EditRequest(edits("+right"))).z_0[:, 0] > 0).all()
    with pytest.raises(ValueError, match=r"needs DDIM with eta=0, got PredictorCorrector"):
        corners(sampler=sampler)


# --- which labels are kept --------------------------------------------------------------------------------------------


def read_off(z_t: Tensor, t: Tensor) -> HeadOutputs:
    """A classifier that reads every attribute off a coordinate: z = (hat, top, glasses, frame, eyes)."""

    def one_hot(column: int, values: int) -> Tensor:
        return -(z_t[:, column, None] - torch.arange(values).to(z_t)).square()

    return {
        "hat": z_t[:, 0] - 0.5,
        "top": one_hot(1, 3),
        "glasses": z_t[:, 2] - 0.5,
        "frame": one_hot(3, 2),
        "eyes": one_hot(4, 2),
    }


@pytest.fixture
def kept(schema: Schema) -> Callable[..., list[float]]:
    prior = GaussianDenoiser(torch.zeros(5), torch.eye(5), SCHEDULE)
    editor = GuidedEditor(prior, read_off, schema, ddim())

    def labels(
        source: list[float], text: str, known: list[float] | None = None, alone: list[list[float]] | None = None
    ) -> list[float]:
        row = None if known is None else torch.tensor([known])
        results = None if alone is None else tuple(torch.tensor([result]) for result in alone)
        request = EditRequest(edits(text, schema), row, alone=results)
        return editor.kept_labels(torch.tensor([source]), request)[0].tolist()

    return labels


SOURCE = [0.0, 2.0, 1.0, 1.0, 0.0]  # no hat, bald, square glasses, open eyes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+hat", [NAN, NAN, 1, 1, 0]),  # the top is a detail of the hat
        ("-glasses", [0, 2, NAN, NAN, 0]),  # and there is no frame without glasses
        ("top=cap", [0, NAN, 1, 1, 0]),  # a detail may be edited alone
        ("+hat -glasses", [NAN, NAN, NAN, NAN, 0]),
    ],
)
def test_an_edit_frees_what_it_names_and_its_details(
    kept: Callable[..., list[float]], text: str, expected: list[float]
) -> None:
    assert kept(SOURCE, text) == pytest.approx(expected, nan_ok=True)


def test_known_labels_come_before_predicted_ones(kept: Callable[..., list[float]]) -> None:
    assert kept(SOURCE, "+hat", [1, 0, NAN, 0, 1]) == pytest.approx([NAN, NAN, 1, 0, 1], nan_ok=True)


def test_a_detail_that_does_not_apply_is_not_kept(kept: Callable[..., list[float]]) -> None:
    assert kept(SOURCE, "+hat", [0, 2, 0, NAN, NAN]) == pytest.approx([NAN, NAN, 0, NAN, 0], nan_ok=True)
    assert kept([0, 2, 0, 1, 0], "+hat") == pytest.approx([NAN, NAN, 0, NAN, 0], nan_ok=True)


FIRST, SECOND = [1.0, 1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0, 1.0]  # a turban, round glasses; a cap, square glasses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+hat +glasses", [NAN, 1, NAN, 1, 0]),  # the turban that +hat brings, the frame that +glasses brings
        ("+glasses +hat", [NAN, 0, NAN, 0, 0]),
        ("+hat top=cap", [NAN, NAN, 1, 1, 0]),  # what an edit brings can be edited
        ("+hat eyes=closed", [NAN, 1, 1, 1, NAN]),
    ],
)
def test_details_that_each_edit_brings_are_kept(
    kept: Callable[..., list[float]], text: str, expected: list[float]
) -> None:
    assert kept(SOURCE, text, alone=[FIRST, SECOND]) == pytest.approx(expected, nan_ok=True)


def test_what_is_kept_ends_up_in_the_terms(schema: Schema) -> None:
    prior = GaussianDenoiser(torch.zeros(5), torch.eye(5), SCHEDULE)
    z_0, request = torch.tensor([SOURCE]), EditRequest(edits("+hat", schema))
    for keep, strength, readouts, terms in ((8.0, 1.0, 2, 1), (0.0, 1.0, 1, 1), (8.0, 0.5, 2, 2)):
        editor = GuidedEditor(prior, read_off, schema, ddim(), keep_weight=keep)
        made = editor.terms(z_0, request, torch.tensor([strength]))
        assert len(made) == terms and len(made[0].readouts) == readouts
    everything = EditRequest(edits("+hat -glasses eyes=open", schema))  # leaves nothing to keep
    made = GuidedEditor(prior, read_off, schema, ddim()).terms(z_0, everything, torch.ones(1))
    assert len(made[0].readouts) == 1


def test_beliefs_are_the_classifier_s_own_and_certain_where_a_label_is_known(schema: Schema) -> None:
    editor = GuidedEditor(GaussianDenoiser(torch.zeros(5), torch.eye(5), SCHEDULE), read_off, schema, ddim())
    z_0, known = torch.tensor([SOURCE]), torch.tensor([[NAN, NAN, 1.0, 0.0, NAN]])
    turban = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    beliefs, asked = editor.kept(z_0, EditRequest(edits("+hat eyes=closed", schema), known, alone=(turban, z_0)))
    assert asked.tolist() == [[False, True, True, True, False]]
    assert beliefs["glasses"].item() > 40 and beliefs["frame"][0].argmax() == 0  # known, though z_0 reads square
    assert torch.equal(beliefs["top"], read_off(turban, torch.zeros(1))["top"])  # what +hat brings by itself


# --- rows with weights of their own, and what they share --------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"source_mode": "tweedie"},
        {"source_mode": "observation"},
        {"source_mode": "observation", "free": True},
        {"source_mode": "paper"},
        {"start": "noising", "t_start": 0.9, "seeds": (5, 6)},
        {"max_step": 0.2},
    ],
    ids=str,
)
def test_rows_with_their_own_weights_are_as_rows_alone(options: dict) -> None:
    """Two sources under four settings each, in one call and one by one; the strengths 0 and 1 have special ways."""
    z_0, labels = sources(1, 2), torch.tensor([[1.0, NAN], [NAN, 0.0]], dtype=torch.float64)
    settings = [(1.5, 1.0, 0.5), (0.0, 2.0, 0.9), (4.0, 0.0, 1.0), (2.0, 0.5, 0.0)]
    columns = torch.tensor(settings, dtype=torch.float64).repeat(2, 1).T
    editor = corners(sampler=ddim(12), **options).weighted(columns[0], columns[1])
    twice, known = z_0.repeat_interleave(4, 0), labels.repeat_interleave(4, 0)
    together = [r.z_0 for r in edit_sequence(editor, twice, edits("-right +up"), known, columns[2])]
    for k, (weight, keep, strength) in enumerate(settings):
        alone = corners(weight, keep, strength, sampler=ddim(12), **options)
        for step, result in enumerate(edit_sequence(alone, z_0, edits("-right +up"), labels)):
            assert (together[step][k::4] - result.z_0).abs().max() < 1e-6  # strength 1: a source of tau = 1e4


def test_a_continuous_target_is_weighted_row_by_row_too() -> None:
    schema = Schema((Attribute("age", "continuous"),))

    def read(z_t: Tensor, t: Tensor) -> HeadOutputs:
        return {"age": torch.stack([z_t[:, 0], torch.zeros_like(t)], dim=1)}

    def editor(weight: float | Tensor) -> GuidedEditor:
        return GuidedEditor(PRIOR, read, schema, ddim(12), 1.0, 0.0).weighted(weight, 0.0)

    z_0, request = sources(0, 3), EditRequest(edits("age=0.7", schema))
    together = editor(torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)).edit(z_0, request).z_0
    for row, weight in enumerate((0.0, 1.0, 5.0)):
        assert (editor(weight).edit(z_0[row : row + 1], request).z_0 - together[row]).abs().max() < 1e-9


class Counted:
    """A denoiser or classifier that counts the rows it sees, by their time."""

    def __init__(self, network: Callable) -> None:
        self.network, self.rows = network, 0

    def __call__(self, z_t: Tensor, t: Tensor) -> object:
        self.rows += len(z_t)
        return self.network(z_t, t)


def test_what_depends_on_the_sources_alone_is_computed_once() -> None:
    """Three edits of a sequence of two: three guided paths, one inversion, beliefs of the sources and of two edits."""
    z_0, asked = sources(1, 3), edits("-right +up")
    denoiser, classifier = Counted(PRIOR), Counted(corner)
    editor = GuidedEditor(denoiser, classifier, CORNERS, ddim(10), 1.5, 1.0, 0.5, source_mode="tweedie")
    first = [result.z_0 for result in edit_sequence(editor, z_0, asked)]
    assert denoiser.rows == (1 + 3) * 10 * 3 and classifier.rows == 3 * 10 * 3 + 3
    again = [result.z_0 for result in edit_sequence(editor, z_0, asked)]
    assert denoiser.rows == (1 + 6) * 10 * 3  # ... and is remembered
    fresh = [editor.edit(z_0, EditRequest(asked[:1])).z_0]
    denoiser.rows = 0
    anew = corners(1.5, 1.0, 0.5, source_mode="tweedie", sampler=ddim(10)).edit(z_0, EditRequest(asked[:1])).z_0
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert torch.equal(first[0], fresh[0]) and torch.equal(first[0], anew)  # bit by bit
    editor.edit(z_0.repeat_interleave(4, 0), EditRequest(asked[:1]))
    assert denoiser.rows == 10 * 12  # equal sources are inverted once


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="`start` must be one of inversion, noising, noise, got 'nowhere'"):
        corners(start="nowhere")
    with pytest.raises(ValueError, match=r"needs DDIM with eta=0, got DPMSolverPP2M; use start='noising' or DDIM"):
        corners(sampler=DPMSolverPP2M(SCHEDULE))
    with pytest.raises(ValueError, match="needs DDIM with eta=0, got DDIM"):
        corners(sampler=ddim(eta=0.5))
    with pytest.raises(ValueError, match=r"`t_start` must be in \(0.001, 0.98\], the sampler's range, got 0.99"):
        corners(t_start=0.99)
    with pytest.raises(ValueError, match="`weight` must be >= 0, got -1"):
        corners(weight=-1.0)
    with pytest.raises(ValueError, match=r"`keep_weight` must be >= 0, got -2\.0; one number, or one per row"):
        corners(keep=-2.0)
    for wrong in (torch.tensor([1.0, -1.0]), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="`weight` must be >= 0, got tensor"):
            corners().weighted(wrong, 1.0)
    for strength in (-0.1, 1.5, torch.tensor([0.5, 2.0]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match=r"`strength` must be in \[0, 1\], one number or one per source, got"):
            corners().edit(sources(0, 2), EditRequest(edits("+up"), strength=strength))
    with pytest.raises(ValueError, match=r"`strength` must be in \[0, 1\]"):
        corners(strength=1.1)
    with pytest.raises(
        ValueError, match="`layers` must be one weight for each layer of the latents, got 3 for latents"
    ):
        corners(layers=[1.0, 0.0, 1.0]).edit(sources(0), EditRequest(edits("+up")))
    for seeds in ((), (1, 2), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match=rf"`seeds` must be one number, or one per source, got {len(seeds)} for 3"):
            corners(start="noising", seeds=seeds).edit(sources(0, 3), EditRequest(edits("+up")))
    with pytest.raises(ValueError, match=r"`max_step` must be > 0 or None, got -1\.0"):
        corners(max_step=-1.0)
    with pytest.raises(ValueError, match="`start`='noise' needs a `t_start` where hardly any signal is left"):
        corners(start="noise", t_start=0.7)
    with pytest.raises(ValueError, match="unknown mode 'sauce'"):
        corners(strength=0.5, source_mode="sauce").edit(sources(0), EditRequest(edits("+up")))


def test_edits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="contradicts itself"):
        corners().edit(sources(0), EditRequest(edits("+right -right")))


def test_an_edit_needs_gradients() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        corners().edit(sources(0), EditRequest(edits("+right")))
