"""Skip perceptrons frozen for sampling: all that depends on time computed once, and the way back written out.

At one time, a network is of z alone,

    h_0 = W_in z + bias,       m_l = norm(h_l) * scale_l + shift_l,       u_l = A_l m_l + a_l,
    h_{l+1} = h_l + B_l silu(u_l) + b_l,                                  out = W_out norm(h_L) + b_out,

and guidance needs, beside its value, g -> (d out / d z)^T g. That is the same path backwards,

    g_L = norm'(W_out^T g),    g_l = g_{l+1} + norm'(A_l^T (silu'(u_l) * B_l^T g_{l+1})),    g_z = W_in^T g_0,

with norm' the transposed derivative of the modulated normalisation. Written out it needs no graph, only the same affine
maps transposed, so that these may be prepacked. To autograd the whole network is one operation: whatever reads its
outputs is differentiated as usual.

Several networks of one shape, such as the classifiers of K attributes, run side by side, (K, B, ...), with one matrix
product per layer instead of K; or one by one, each there and back before the next, so that its matrices are read from
memory once: with a single output the way back is linear in a number, and needs not wait until that is known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.affine import Affine, make_affine
from lcg.nets.blocks import ModulatedBlock, Perceptron, SkipPerceptron
from lcg.nets.execution import Execution

EPS = 1e-5  # of `nn.LayerNorm`

Saved = list[Any]
"""What the way back needs: h, mean and 1 / deviation of each normalisation, and u of each block."""


@dataclass(frozen=True)
class Moment:
    """What one time contributes, for one network, or for K side by side.

    Attributes:
        bias: W_in tau(t) + b_in, (width,) or (K, 1, width).
        scale: 1 + scale_l(t) of each block, likewise.
        shift: shift_l(t) of each block, likewise.
    """

    bias: Tensor
    scale: tuple[Tensor, ...]
    shift: tuple[Tensor, ...]


def moments(net: Perceptron, times: Float[Tensor, " times"]) -> list[Moment]:
    """Of each of these times."""
    with torch.no_grad():
        table = net.table(times)

    def at(rows: Sequence[Tensor], i: int) -> tuple[Tensor, ...]:
        return tuple(row[i].contiguous() for row in rows)

    bias = table.bias.contiguous()
    return [Moment(bias[i], at(table.scale, i), at(table.shift, i)) for i in range(len(times))]


def side_by_side(each: Sequence[Moment]) -> Moment:
    """One time's moments of several networks as one."""
    scale, shift = (
        tuple(torch.stack(layer)[:, None] for layer in zip(*rows, strict=True))
        for rows in ([one.scale for one in each], [one.shift for one in each])
    )
    return Moment(torch.stack([one.bias for one in each])[:, None], scale, shift)


class FrozenPerceptron(nn.Module):
    """One or several perceptrons whose weights stay as they are, as functions of z at one moment.

    Args:
        nets: of one shape; they run side by side if there are several.
        how: by which kernels and in which precision; eager or packed.
    """

    def __init__(self, nets: Sequence[SkipPerceptron], how: Execution) -> None:
        super().__init__()

        def affine(layers: Sequence[nn.Linear]) -> Affine:
            return make_affine([linear.weight for linear in layers], [linear.bias for linear in layers], how)

        blocks = list(zip(*(cast(Iterable[ModulatedBlock], net.blocks) for net in nets), strict=True))
        inputs = [net.input.weight[:, : net.inputs] for net in nets]
        self.input = make_affine(inputs, [net.input.bias for net in nets], how)
        self.ups = [affine([block.up for block in each]) for each in blocks]
        self.downs = [affine([block.down for block in each]) for each in blocks]
        self.maps = nn.ModuleList([*self.ups, *self.downs])  # whose weights are part of the module
        outputs = [padded(net.output, max(other.output.out_features for other in nets)) for net in nets]
        self.output = make_affine([weight for weight, _ in outputs], [bias for _, bias in outputs], how)
        several = len(nets) > 1
        self.scale, self.shift = (
            nn.Parameter(together([p.detach()[None] if several else p.detach() for p in own]), requires_grad=False)
            for own in ([net.norm.weight for net in nets], [net.norm.bias for net in nets])
        )

    def forward(self, z: Float[Tensor, "batch inputs"], at: Moment) -> Float[Tensor, "*batch outputs"]:
        """The outputs (B, out), or (K, B, out) of several."""
        h = self.input(z, at.bias).to(z.dtype)
        for up, down, scale, shift in zip(self.ups, self.downs, at.scale, at.shift, strict=True):
            h = down.onto(h, up.silu(norm(h, scale, shift)[0]))
        return self.output(norm(h, self.scale, self.shift)[0]).to(z.dtype)

    def linearise(self, z: Float[Tensor, "batch inputs"], at: Moment) -> tuple[Tensor, Saved]:
        """The outputs, and what `pull` needs."""
        h, saved = self.input(z, at.bias).to(z.dtype), []
        for up, down, scale, shift in zip(self.ups, self.downs, at.scale, at.shift, strict=True):
            m, mean, rstd = norm(h, scale, shift)
            u = up(m)
            saved.append((h, mean, rstd, u))
            h = down.onto(h, functional.silu(u))
        m, mean, rstd = norm(h, self.scale, self.shift)
        return self.output(m).to(z.dtype), [*saved, (h, mean, rstd)]

    def pull(self, g: Float[Tensor, "*batch outputs"], at: Moment, saved: Saved) -> Float[Tensor, "batch inputs"]:
        """(d outputs / d z)^T g, (B, in), at the z of `linearise`."""
        h, mean, rstd = saved[-1]
        g = norm_pull(self.output.pull(g), h, mean, rstd, self.scale)
        blocks = zip(self.ups, self.downs, at.scale, saved[:-1], strict=True)
        for up, down, scale, (h, mean, rstd, u) in reversed(list(blocks)):
            g_u = torch.ops.aten.silu_backward(down.pull(g).to(u.dtype), u)
            g = g + norm_pull(up.pull(g_u).to(g.dtype), h, mean, rstd, scale)
        g_z = self.input.pull(g)
        return g_z if g_z.ndim == 2 else g_z.sum(0)


class OneByOne(nn.Module):
    """Several perceptrons, one after another.

    Args:
        nets: frozen perceptrons, compiled or not.
        outputs: how many each has; where others have more, it is padded with 0.
    """

    def __init__(self, nets: Sequence["Runs"], outputs: Sequence[int]) -> None:
        super().__init__()
        self.nets, self.outputs = list(nets), list(outputs)
        self.maps = nn.ModuleList(net for net in nets if isinstance(net, nn.Module))

    def forward(self, z: Float[Tensor, "batch inputs"], at: Sequence[Moment]) -> Float[Tensor, "nets batch outputs"]:
        """The outputs of each; `at` has a moment for each."""
        return self._stacked([net(z, moment) for net, moment in zip(self.nets, at, strict=True)])

    def linearise(self, z: Float[Tensor, "batch inputs"], at: Sequence[Moment]) -> tuple[Tensor, Saved]:
        """The outputs, and of each network d output / d z if it has one output, else what its own `pull` needs."""
        outputs, saved = [], []
        for net, moment in zip(self.nets, at, strict=True):
            out, own = net.linearise(z, moment)
            outputs.append(out)
            saved.append((net.pull(torch.ones_like(out), moment, own),) if out.shape[1] == 1 else own)
        return self._stacked(outputs), saved

    def pull(self, g: Float[Tensor, "nets batch outputs"], at: Sequence[Moment], saved: Saved) -> Tensor:
        """sum_k (d outputs_k / d z)^T g_k, (B, in)."""
        total = g.new_zeros(())
        for net, moment, own_g, count, own in zip(self.nets, at, g, self.outputs, saved, strict=True):
            needed = own_g[:, :count]
            pulled = needed * own[0] if count == 1 else net.pull(needed.contiguous(), moment, own)
            total = total + pulled
        return total

    def _stacked(self, outputs: Sequence[Tensor]) -> Tensor:
        widest = max(self.outputs)
        return torch.stack([functional.pad(out, (0, widest - out.shape[1])) for out in outputs])


@runtime_checkable
class Runs(Protocol):
    """A frozen perceptron, compiled or not."""

    def __call__(self, z: Tensor, at: Any) -> Tensor: ...

    def linearise(self, z: Tensor, at: Any) -> tuple[Tensor, Saved]: ...

    def pull(self, g: Tensor, at: Any, saved: Saved) -> Tensor: ...


class Linearised(torch.autograd.Function):
    """A frozen perceptron as one operation of autograd."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, net: Runs, at: Any) -> Tensor:
        outputs, ctx.saved = net.linearise(z, at)
        ctx.net, ctx.at = net, at
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return ctx.net.pull(g, ctx.at, ctx.saved), None, None


def run(net: Runs, z: Float[Tensor, "batch inputs"], at: Any) -> Float[Tensor, "*batch outputs"]:
    """The network's outputs, differentiable once in z."""
    if torch.is_grad_enabled() and z.requires_grad:
        outputs: Tensor = Linearised.apply(z, net, at)
        return outputs
    return net(z, at)


# --- normalisation ---


def norm(h: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises, scales and shifts; with the mean and 1 / deviation of each row."""
    size = h.shape[-1:]
    if scale.ndim == 1:  # one kernel
        return torch.native_layer_norm(h, size, scale, shift, EPS)
    normed, mean, rstd = torch.native_layer_norm(h, size, None, None, EPS)
    return torch.addcmul(shift, normed, scale), mean, rstd


def norm_pull(g: Tensor, h: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor) -> Tensor:
    """(d norm / d h)^T g."""
    backward, size, wanted = torch.ops.aten.native_layer_norm_backward, h.shape[-1:], [True, False, False]
    if scale.ndim == 1:
        g_h: Tensor = backward(g, h, size, mean, rstd, scale, scale, wanted)[0]
    else:
        g_h = backward(g * scale, h, size, mean, rstd, None, None, wanted)[0]
    return g_h


def padded(linear: nn.Linear, outputs: int) -> tuple[Tensor, Tensor]:
    """Weight and bias with further outputs, which are 0: networks side by side have as many as the widest."""
    missing = outputs - linear.out_features
    return functional.pad(linear.weight.detach(), (0, 0, 0, missing)), functional.pad(
        linear.bias.detach(), (0, missing)
    )


def together(each: Sequence[Tensor]) -> Tensor:
    """One as it is, several stacked."""
    return each[0] if len(each) == 1 else torch.stack(list(each))
