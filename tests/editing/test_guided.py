"""lcg's editor against exact priors and exact noisy classifiers: what it must do, and what it must leave alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcg.diffusion import DDIM, CosineSchedule, DPMSolverPP2M, GaussianDenoiser, MixtureDenoiser, generators
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


def corners(weight: float = 1.5, keep: float = 1.0, tau: float | None = None, **options) -> GuidedEditor:
    sampler = options.pop("sampler", None) or ddim()
    return GuidedEditor(PRIOR, corner, CORNERS, sampler, weight, keep, tau, **options)


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
        editor = corners(keep=keep, start="noise", t_start=0.98, randomness=generators(range(64)))
        share[keep] = float((editor.edit(z_0, request).z_0[:, 1] < 0).double().mean())
    assert share[1.0] == 1.0 and share[0.0] < 0.8


def test_a_row_does_not_depend_on_its_batch() -> None:
    z_0 = torch.cat([sources(k, 2) for k in range(4)])
    labels = torch.tensor([[NAN, 1.0]], dtype=torch.float64).repeat(8, 1)
    together = corners(tau=1.0).edit(z_0, EditRequest(edits("+right"), labels)).z_0
    for i in (0, 3, 7):
        alone = corners(tau=1.0).edit(z_0[i : i + 1], EditRequest(edits("+right"), labels[i : i + 1])).z_0
        assert (alone - together[i]).abs().max() < 1e-9


def test_a_sequence_ends_where_its_edits_lead() -> None:
    z_0 = sources(2)
    results = [
        result.z_0.mean(0).sign().tolist() for result in edit_sequence(corners(), z_0, edits("+right -up -right"))
    ]
    assert results == [[1, 1], [1, -1], [-1, -1]]


def test_noise_comes_from_the_generators() -> None:
    z_0, request = sources(0, 3), EditRequest(edits("-right"))
    for start in ("noising", "noise"):
        first, second, third = (
            corners(start=start, t_start=0.98, randomness=generators(seeds)).edit(z_0, request).z_0
            for seeds in ([1, 2, 3], [1, 2, 3], [1, 2, 4])
        )
        assert torch.equal(first, second) and torch.equal(first[:2], third[:2])
        assert (first[2] - third[2]).abs().max() > 0.01


def test_noise_forgets_the_source_and_noising_does_not() -> None:
    request, seeds = EditRequest(edits("+up")), range(16)
    for start, same in (("noise", True), ("noising", False)):
        one, two = (
            corners(keep=0.0, start=start, t_start=0.98 if same else 0.6, randomness=generators(seeds))
            .edit(sources(k), request)
            .z_0
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
        editor = GuidedEditor(prior, linear, CORNERS, sampler, weight, 0.0, tau, mode, t_start=0.9999)
        return editor.edit(z_0, EditRequest(edits("+right"))).z_0

    unmoved = moved(0.0)
    for weight in (1.0, 3.0):
        expected = shrinkage * weight * tau**2 * direction
        assert ((moved(weight) - unmoved) - expected).abs().max() < 0.02 * weight


def test_a_small_tau_holds_the_source_fast() -> None:
    z_0, request = sources(0), EditRequest(edits("-right"))
    far, near = ((corners(2.0, 0.0, tau).edit(z_0, request).z_0 - z_0).norm(dim=1).mean() for tau in (3.0, 0.1))
    assert near < 0.5 < 2.0 < far


def test_the_paper_s_source_term_runs() -> None:
    z_0 = sources(0)
    edited = corners(2.0, 0.0, 1.0, source_mode="paper").edit(z_0, EditRequest(edits("+right"))).z_0
    assert edited.isfinite().all()


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
        source: list[float], text: str, known: list[float] | None = None, previous: list[float] | None = None
    ) -> list[float]:
        row, before = (None if values is None else torch.tensor([values]) for values in (known, previous))
        request = EditRequest(edits(text, schema), row, before)
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


PREVIOUS = [1.0, 1.0, 1.0, 0.0, 1.0]  # a turban, round glasses; the eyes have drifted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+hat +glasses", [NAN, 1, NAN, NAN, 0]),  # the turban that +hat brought, the source's own eyes
        ("+glasses +hat", [NAN, NAN, NAN, 0, 0]),
        ("+hat top=cap", [NAN, NAN, 1, 1, 0]),  # what an edit brought can be edited
        ("+hat eyes=closed", [NAN, 1, 1, 1, NAN]),
    ],
)
def test_details_that_earlier_edits_brought_are_kept(
    kept: Callable[..., list[float]], text: str, expected: list[float]
) -> None:
    assert kept(SOURCE, text, previous=PREVIOUS) == pytest.approx(expected, nan_ok=True)


def test_what_is_kept_ends_up_in_the_terms(schema: Schema) -> None:
    prior = GaussianDenoiser(torch.zeros(5), torch.eye(5), SCHEDULE)
    z_0, request = torch.tensor([SOURCE]), EditRequest(edits("+hat", schema))
    for keep, tau, readouts, terms in ((8.0, None, 2, 1), (0.0, None, 1, 1), (8.0, 1.0, 2, 2)):
        made = GuidedEditor(prior, read_off, schema, ddim(), keep_weight=keep, tau=tau).terms(z_0, request)
        assert len(made) == terms and len(made[0].readouts) == readouts
    everything = EditRequest(edits("+hat -glasses eyes=open", schema))  # leaves nothing to keep
    assert len(GuidedEditor(prior, read_off, schema, ddim()).terms(z_0, everything)[0].readouts) == 1


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
    with pytest.raises(ValueError, match="`keep_weight` must be >= 0, got -2"):
        corners(keep=-2.0)
    with pytest.raises(ValueError, match=r"`tau` must be > 0 or None, got 0\.0"):
        corners(tau=0.0)
    with pytest.raises(ValueError, match=r"`max_step` must be > 0 or None, got -1\.0"):
        corners(max_step=-1.0)
    with pytest.raises(ValueError, match="`start`='noise' needs a `t_start` where hardly any signal is left"):
        corners(start="noise", t_start=0.7)
    with pytest.raises(ValueError, match="unknown mode 'sauce'"):
        corners(tau=1.0, source_mode="sauce").edit(sources(0), EditRequest(edits("+up")))


def test_edits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="contradicts itself"):
        corners().edit(sources(0), EditRequest(edits("+right -right")))


def test_an_edit_needs_gradients() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        corners().edit(sources(0), EditRequest(edits("+right")))
