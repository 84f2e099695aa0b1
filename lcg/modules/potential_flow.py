"""`lcg fit` of potentials whose gradients change what a frozen generator shows.

    loss = lambda_pde (L_ic + L_pde - L_jvp) + lambda_cls L_cls
    L_ic = mean |grad u_k(z_0, 0)|^2       L_pde = mean_t (u_tt - c^2 laplacian u)^2 at (z_t, t)
    L_jvp = mean |J_G grad u_k|^2          L_cls = -log q(k | G(z_t), G(z_{t+1}))

(Song, Keller, Sebe & Welling 2023, arXiv:2304.12944, as in the authors' release): paths start at rest, obey the wave
equation, change the image G much, and are told apart by a classifier q that learns beside them. Both ways along a path
are trained, each with probability 1/2.

That is unsupervised (`supervised=False`): what a path changes is found out afterwards, by whoever uses it. It would
not be a fair competitor where the attributes to be edited are known and labelled, and where all other methods are told.
By default each value of each attribute therefore has a potential of its own, and in the place of L_cls and L_jvp stands

    L_attribute = -log p_phi(a_k | z_t),    or -log p_phi(not a_k | z_t) against the gradient,

read from the frozen time-conditioned classifier at little noise. This is our departure, not a result of the paper: the
classifier that says which potential it was becomes one that knows what each is for, and "change much" becomes "change
this". Paths of attributes that are correlated in the data are no longer pushed apart.

Other departures: all potentials are trained at once, each on its share of the batch, at one drawn step of their path
instead of one potential a batch at all of its steps; the residual's place is detached, so that potentials and not paths
learn to solve the equation; the way back really follows the negative gradient, where the release mirrors the way there;
AdamW without decay, warm-up and cosine for Adam at a constant rate. The authors train 120,000 steps with K = 32
potentials (anime faces) or 10,000 with 16 (digits), rate 1e-4, through convolutional generators; with our 64 numbers a
latent and a classifier of latents in the generator's place, 600 steps at a rate of 2e-3 are enough for the attributes.
They are not for the equation: on the avatars the residual is then about as large as u_tt, and the wave terms restrain
potentials more than they shape them.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from lcg.checkpoint import describe_network, load_network
from lcg.data.datamodule import LatentDataModule
from lcg.generators.base import Generator
from lcg.guidance.formula import Has, OneOf
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import mean_over_ranks
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import HeadOutputs
from lcg.nets.potential_flow import PotentialFlow, signs, traverse
from lcg.schema import Schema


class PotentialFlowModule(LightningModule):
    """Trains a `PotentialFlow` on the latents of a `LatentDataModule`, whose latent shape and attributes it takes.

    Args:
        classifier: checkpoint of the time-conditioned classifier of this store; read when supervised.
        supervised: one potential per value of each attribute, trained to raise it; otherwise the authors' way.
        count: potentials of unsupervised training; the attributes set their number when supervised.
        width: hidden width; the latent's size when None.
        steps: of a path.
        bounded: tanh of the potential; see `PotentialFlow`.
        level: noise level t at which the classifier is read.
        weight_pde: lambda_pde.
        weight_cls: lambda_cls, of the index's or the attributes' classifier.
        lr: peak learning rate.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
        generator: frozen, for unsupervised training; the embedded one when None.

    Raises:
        ValueError: a weight is negative or the level is not in [0, 1]; when training starts, a classifier of another
            store.
    """

    def __init__(
        self,
        classifier: str = "runs/demo/classifier/classifier.ckpt",
        supervised: bool = True,
        count: int = 32,
        width: int | None = None,
        steps: int = 5,
        bounded: bool = False,
        level: float = 0.02,
        weight_pde: float = 1.0,
        weight_cls: float = 1.0,
        lr: float = 1e-4,
        warmup: int = 100,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("weight_pde", weight_pde), ("weight_cls", weight_cls)):
            if not weight >= 0:
                raise ValueError(f"`{name}` must be >= 0, got {weight}; 1 is the authors'")
        if not 0 <= level <= 1:
            raise ValueError(f"`level` must be in [0, 1], got {level}; 0.02 is hardly any noise")
        self.save_hyperparameters(ignore="generator")
        self.classifier_path, self.supervised, self.level = classifier, supervised, level
        self.count, self.width, self.steps, self.bounded = count, width, steps, bounded
        self.weight_pde, self.weight_cls, self.lr, self.warmup = weight_pde, weight_cls, lr, warmup
        self.draws = StepDraws()
        self.potential_flow: PotentialFlow
        # Frozen networks stay outside of the module's state: a checkpoint is of what was trained.
        self._generator = (generator,)
        self._classifier: tuple[TimeConditionedClassifier, ...] = ()

    def configure_model(self) -> None:
        """Builds the potentials for the latents and attributes at hand; called by the Trainer."""
        if hasattr(self, "potential_flow"):
            return
        data = LatentDataModule.of(self.trainer)
        atoms = atoms_of(data.schema) if self.supervised else ()
        count = len(atoms) or self.count
        self.potential_flow = PotentialFlow(data.latent_shape, count, self.width, self.steps, self.bounded, atoms)
        # A constant that gradients of potentials do not see: DDP refuses parameters that the loss does not reach.
        self.potential_flow.output.bias.requires_grad_(False)
        if self.supervised:
            self._classifier = (self._loaded(data),)
            self.register_buffer("middle", data.labels().nanmean(0))
        else:
            self._generator = (self._frozen(self._generator[0]),)
            self.index = PairClassifier(self._generator[0].image_shape[0], count)

    def _loaded(self, data: LatentDataModule) -> TimeConditionedClassifier:
        loaded = load_network(self.classifier_path, "classifier")
        if loaded.store != data.store.fingerprint:
            raise ValueError(
                f"`classifier` must be one of the store {data.path}, got {loaded.path}, which was trained on another; "
                "fit a classifier on this store"
            )
        return single_heads(loaded.network)

    @staticmethod
    def _frozen(generator: Generator | None) -> Generator:
        if generator is None:
            from lcg.generators.autoencoder import AvatarAutoencoder

            generator = AvatarAutoencoder()
        return generator.eval().requires_grad_(False)

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def on_train_start(self) -> None:
        """Puts the frozen networks where the others are."""
        for network in (*self._classifier, *self._generator):
            if network is not None:
                network.to(self.device)

    on_validation_start = on_test_start = on_train_start

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.losses(batch["z_0"])
        means = mean_over_ranks(torch.stack([*losses.values()]))
        for name, mean in zip(losses, means, strict=True):
            self.log(f"train/{name}", mean, prog_bar=name == "loss")
        return losses["loss"]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        generator = torch.Generator().manual_seed(batch_idx)  # the same ways and steps at every validation
        with torch.inference_mode(False), torch.enable_grad():  # velocities are gradients
            losses = self.losses(batch["z_0"].clone(), generator)
        for name, value in losses.items():
            on_bar = name == "loss"
            self.log(f"val/{name}", value.detach(), batch_size=len(batch["z_0"]), sync_dist=True, prog_bar=on_bar)

    test_step = validation_step

    def losses(self, z_0: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The terms of the module's equation, and `loss`, their weighted sum.

        Args:
            z_0: (B, *latent) where paths start.
            generator: of the ways, steps and probes; on the CPU.
        """
        flow, device = self.potential_flow, z_0.device
        which = range(flow.count)
        rows = -(-len(z_0) // flow.count) * flow.count  # equal blocks: some latents serve twice
        z_0 = z_0[torch.arange(rows, device=device) % len(z_0)]
        way = signs((rows, *(1,) * (z_0.ndim - 1)), generator, device)
        path = traverse(lambda z, t: flow.velocity(z, self._time(z, t), which), z_0, flow.steps, way)
        step, seen = torch.randint(flow.steps, (2,), generator=generator).tolist()
        here, probes = path[step].detach(), signs((2, *z_0.shape), generator, device)
        terms = {
            "initial": flow.velocity(z_0, self._time(z_0, 0), which).square().mean(),
            "residual": flow.squared_residual(here, self._time(here, step), which, probes).mean(),
        }
        semantic = self._attribute_terms if self.supervised else self._image_terms
        terms |= semantic(path, way.flatten(), seen)
        wave = terms["initial"] + terms["residual"] - terms.get("variation", z_0.new_zeros(()))
        return terms | {"loss": self.weight_pde * wave + self.weight_cls * terms["semantic"]}

    def _attribute_terms(self, path: list[Tensor], way: Tensor, seen: int) -> dict[str, Tensor]:
        """L_attribute of latents after 1 to `steps` steps, and how often the attribute is as it should be."""
        z = path[seen + 1]
        (classifier,) = self._classifier
        outputs = classifier(z, z.new_tensor(self.level).expand(len(z)))
        assert isinstance(outputs, dict)  # single heads
        true, false = value_log_probs(classifier.schema, outputs, self.get_buffer("middle"))
        own = torch.arange(self.potential_flow.count, device=z.device).repeat_interleave(len(z) // true.shape[1])
        log_p = torch.where(way[:, None] > 0, true, false).gather(1, own[:, None])
        return {"semantic": -log_p.mean(), "success": (log_p > -0.6931).float().mean()}

    def _image_terms(self, path: list[Tensor], way: Tensor, seen: int) -> dict[str, Tensor]:
        """L_cls and L_jvp of two neighbours on the path, always in the order in which the potential rises."""
        step = min(seen, self.potential_flow.steps - 2)
        before, after = self._decode(path[step + 1]), self._decode(path[step + 2])
        turned = (way < 0)[:, None, None, None]
        own = torch.arange(self.potential_flow.count, device=way.device)
        own = own.repeat_interleave(len(way) // self.potential_flow.count)
        guess = self.index(torch.where(turned, after, before), torch.where(turned, before, after))
        change = torch.func.jvp(self._decode, (path[step + 1],), (path[step + 2] - path[step + 1],))[1]
        return {
            "semantic": functional.cross_entropy(guess, own),
            "variation": change.square().mean(),
            "success": (guess.argmax(1) == own).float().mean(),
        }

    def _decode(self, z_0: Tensor) -> Tensor:
        (generator,) = self._generator
        assert generator is not None  # since `configure_model`
        return generator.decode(LatentDataModule.of(self.trainer).statistics.restore(z_0))

    @staticmethod
    def _time(z: Tensor, step: int) -> Tensor:
        return z.new_tensor(float(step)).expand(len(z))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, 0.0, self.warmup, total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        describe_network(checkpoint, "potential_flow", self.potential_flow.config, LatentDataModule.of(self.trainer))


class PairClassifier(nn.Module):
    """Which potential led from one image to the other: the authors' LeNet, of 6, 16 and 120 channels.

    Args:
        channels: of an image.
        count: how many potentials.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, pool in ((2 * channels, 6, True), (6, 16, True), (16, 120, False)):
            layers += [nn.Conv2d(inputs, outputs, 5), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if pool else []
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.ReLU(), nn.Linear(84, count))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits (B, K) for two images (B, C, H, W), H and W at least 32."""
        guess: Tensor = self.head(self.features(torch.cat((first, second), dim=1)).mean((-1, -2)))
        return guess


def atoms_of(schema: Schema) -> tuple[str, ...]:
    """What a supervised potential raises: a binary attribute, a value of a categorical one, a continuous one itself."""
    atoms: list[str] = []
    for column, attribute in enumerate(schema):
        if attribute.kind == "binary":
            atoms.append(str(Has(attribute, column)))
        elif attribute.kind == "categorical":
            atoms.extend(str(OneOf(attribute, column, (value,))) for value in range(len(attribute.values)))
        else:
            atoms.append(attribute.name)
    return tuple(atoms)


def value_log_probs(schema: Schema, outputs: HeadOutputs, middle: Tensor) -> tuple[Tensor, Tensor]:
    """log P(a) and log P(not a) for every a of `atoms_of`, both (B, K).

    Args:
        schema: the attributes.
        outputs: of independent heads.
        middle: (A,) the value that a continuous attribute is raised above or pushed below.
    """
    true, false = [], []
    for column, attribute in enumerate(schema):
        output = outputs[attribute.name]
        if attribute.kind == "continuous":
            above = (output[:, 0] - middle[column]) * torch.exp(-0.5 * output[:, 1])
            true.append(torch.special.log_ndtr(above)[:, None])
            false.append(torch.special.log_ndtr(-above)[:, None])
            continue
        if attribute.kind == "binary":
            log_odds = output[:, None]
        else:  # of a value against all others together
            itself = torch.eye(output.shape[1], dtype=torch.bool, device=output.device)
            log_odds = output - output[:, None].masked_fill(itself, -torch.inf).logsumexp(-1)
        true.append(functional.logsigmoid(log_odds))
        false.append(functional.logsigmoid(-log_odds))
    return torch.cat(true, dim=1), torch.cat(false, dim=1)


def single_heads(classifier: TimeConditionedClassifier) -> TimeConditionedClassifier:
    """The classifier without its joint head, which makes up most of its last layer; for each attribute by itself."""
    config = {**classifier.config, "components": 1, "latent_shape": classifier.latent_shape}
    single = TimeConditionedClassifier(**{**config, "schema": classifier.schema})
    state = classifier.state_dict()
    for name in ("net.output.weight", "net.output.bias"):
        state[name] = state[name][: classifier.outputs]
    single.load_state_dict(state)
    return single.eval().requires_grad_(False)
