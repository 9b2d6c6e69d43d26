"""The model of the S4 repository's training code in PyTorch, with the attributes that give its tensors their names.

The state space layers compute by the published convolution, one product at a time, from a kernel that the test works
out of its own numbers. Nothing here comes from `lastcli`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.builders.named import Arrays
from tests.upstream.s4 import convolve

Kernel = Callable[[int], np.ndarray]  # length → K (rows, H, L)


@dataclass(frozen=True)
class Given:
    """One state space layer: its tensors by their names below the layer, its kernel, and its direction."""

    arrays: Arrays
    kernel: Kernel
    both: bool = False


@dataclass(frozen=True)
class Shape:
    """How the model is put together; the names are those of its configuration."""

    version: int = 4  # 4, 3, or 1 (which has no number behind encoder and decoder)
    width: int = 4
    prenorm: bool = True
    norm: str = "layer"  # layer, scalar, transposed, batch, group, instance, none
    heads: int = 1
    activation: str = "gelu"
    postact: str | None = "glu"
    weight_norm: bool = False
    gate: int | None = None
    bottleneck: int | None = None
    ff: str | None = None
    residual: str = "R"
    encoder: str = "linear"  # linear, embedding, none
    features: int = 3
    decoder: str = "sequence"  # sequence, retrieval, retrieval2
    outputs: int = 3
    mode: str = "pool"
    l_output: int = 0
    use_lengths: bool = True
    mask_padding: bool = True
    dropout: float = 0.0
    tie_dropout: bool = False


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "none": lambda x: x,
    "id": lambda x: x,
    "glu": lambda x: functional.glu(x, dim=-1),
    "glu-gelu": lambda x: x.chunk(2, -1)[0] * functional.gelu(x.chunk(2, -1)[1]),
}


class Act(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x):
        return ACTIVATIONS[self.name](x)


def linear_activation(into: int, out: int, act: str | None, shape: Shape) -> nn.Module:
    """A linear map with its activation behind it, and room for a gate."""
    linear: nn.Module = nn.Linear(into, out * 2 if act is not None and act.startswith("glu") else out)
    if shape.version == 1:
        linear.bias = nn.Parameter(linear.bias[:, None].detach())
        linear.forward = lambda x: functional.linear(x, linear.weight, linear.bias[:, 0])  # type: ignore[method-assign]
    if shape.weight_norm:
        linear = WeightNormed(linear)
    return linear if act is None else nn.Sequential(linear, Act(act))


class WeightNormed(nn.Module):
    """A linear map that keeps the direction and the length of every row apart."""

    def __init__(self, linear):
        super().__init__()
        self.weight_g, self.weight_v = nn.Parameter(torch.rand(len(linear.weight), 1) + 0.5), linear.weight
        self.bias = linear.bias

    def forward(self, x):
        return functional.linear(x, self.weight_g * functional.normalize(self.weight_v, dim=1), self.bias)


class Scalar(nn.Module):
    """One scale and one shift for all features."""

    def __init__(self):
        super().__init__()
        self.m, self.s = nn.Parameter(torch.randn(1)), nn.Parameter(1 + 0.3 * torch.randn(1))

    def forward(self, x):
        return self.s * (x - x.mean(-1, keepdim=True) + self.m) / x.std(-1, keepdim=True, unbiased=False)


class Nested(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.ln = nn.LayerNorm(width)

    def forward(self, x):
        return self.ln(x)


class Norm(nn.Module):
    def __init__(self, kind: str, width: int):
        super().__init__()
        self.over_time = kind in ("batch", "group", "instance")
        self.norm = {
            "layer": nn.LayerNorm,
            "scalar": lambda _: Scalar(),
            "transposed": Nested,
            "batch": nn.BatchNorm1d,
            "group": lambda d: nn.GroupNorm(1, d),
            "instance": nn.InstanceNorm1d,
            "none": lambda _: nn.Identity(),
        }[kind](width)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2) if self.over_time else self.norm(x)


class Convolution(nn.Module):
    def __init__(self, given: Given):
        super().__init__()
        self.given, self.seen = given, None
        for name, array in given.arrays.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, torch.tensor(array))

    def convolve(self, u):
        self.seen = u.detach().numpy()
        K, D = self.given.kernel(u.shape[1]), self.given.arrays["D"].astype(float)
        y = [convolve(K, np.atleast_2d(D), sequence, self.given.both) for sequence in u.double().numpy()]
        return torch.tensor(np.stack(y), dtype=u.dtype)


class LayerV4(nn.Module):
    def __init__(self, given: Given, shape: Shape):
        super().__init__()
        self.layer = Convolution(given)
        self.act = Act(shape.activation)
        if shape.postact is not None:
            self.output_linear = linear_activation(shape.width * shape.heads, shape.width, shape.postact, shape)

    def forward(self, u):
        y = self.act(self.layer.convolve(u))
        return self.output_linear(y) if hasattr(self, "output_linear") else y


class LayerV3(Convolution):
    def __init__(self, given: Given, shape: Shape):
        super().__init__(given)
        inner = shape.width // (shape.bottleneck or 1)
        self.act = Act(shape.activation)
        if shape.bottleneck:
            self.input_linear = linear_activation(shape.width, inner, shape.activation, shape)
        if shape.gate:
            self.input_gate = linear_activation(shape.width, shape.width * shape.gate, shape.activation, shape)
            self.output_gate = linear_activation(shape.width * shape.gate, shape.width, None, shape)
        out = shape.width * (shape.gate or 1)
        self.output_linear = linear_activation(inner * shape.heads, out, shape.postact, shape)

    def forward(self, u):
        gate = self.input_gate(u) if hasattr(self, "input_gate") else None
        u = self.input_linear(u) if hasattr(self, "input_linear") else u
        y = self.output_linear(self.act(self.convolve(u)))
        return y if gate is None else self.output_gate(y * gate)


class FeedForward(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        first = linear_activation(shape.width, 2 * shape.width, shape.ff, shape)
        self.ff = nn.Sequential(first, nn.Identity(), linear_activation(2 * shape.width, shape.width, None, shape))

    def forward(self, x):
        return self.ff(x)


class Affine(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.affine = nn.Parameter(torch.randn(width))


class Block(nn.Module):
    def __init__(self, layer: nn.Module, shape: Shape, number: int):
        super().__init__()
        self.layer, self.shape, self.number = layer, shape, number
        # one mask for all steps or one a step; it has no tensors and does nothing outside training
        self.drop = (nn.Dropout1d if shape.tie_dropout else nn.Dropout)(shape.dropout)
        if shape.norm != "none":
            self.norm = Norm(shape.norm, shape.width)
        if shape.residual == "A":
            self.residual = Affine(shape.width)

    def forward(self, x, lengths):
        y = self.norm(x) if self.shape.prenorm and hasattr(self, "norm") else x
        if lengths is not None and self.shape.mask_padding and not isinstance(self.layer, FeedForward):
            y = torch.stack([row * (torch.arange(len(row)) < n)[:, None] for row, n in zip(y, lengths)])
        y = self.drop(self.layer(y))
        depth = self.number**-0.5
        y = {
            "R": lambda: x + y,
            "F": lambda: y,
            "A": lambda: x + self.residual.affine * y,
            "D": lambda: np.sqrt(1 - depth**2) * x + depth * y,
        }[self.shape.residual]()
        return y if self.shape.prenorm or not hasattr(self, "norm") else self.norm(y)


class Backbone(nn.Module):
    def __init__(self, given: list[Given], shape: Shape):
        super().__init__()
        layers: list[nn.Module] = []
        for one in given:
            layers.append((LayerV4 if shape.version == 4 else LayerV3)(one, shape))
            layers += [FeedForward(shape)] if shape.ff else []
        self.layers = nn.ModuleList(Block(layer, shape, i) for i, layer in enumerate(layers, 1))
        if shape.prenorm and shape.norm != "none":
            self.norm = Norm(shape.norm, shape.width)

    def forward(self, x, lengths):
        for layer in self.layers:
            x = layer(x, lengths)
        return self.norm(x) if hasattr(self, "norm") else x


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape, d = shape, shape.width
        if shape.decoder == "sequence":
            self.output_transform = nn.Linear(d, shape.outputs)
        else:
            self.retrieval = nn.Module()
            wide = [4 * d, d, shape.outputs] if shape.decoder == "retrieval" else [2 * d, d, d // 2, shape.outputs]
            maps = [part for a, b in itertools.pairwise(wide) for part in (nn.Linear(a, b), nn.ReLU())]
            self.retrieval.classifier = nn.Sequential(*maps[:-1])

    def restrict(self, x):
        """One sequence (L, H) of its true length → what the head reads of it."""
        count, mode = max(self.shape.l_output, 1), self.shape.mode
        if mode == "sequence":
            return x
        part = {
            "last": lambda: x[-count:],
            "first": lambda: x[:count],
            "sum": lambda: torch.stack([x[: len(x) - j].sum(0) for j in reversed(range(count))]),
            "pool": lambda: x.mean(0, keepdim=True),
        }[mode]()
        return part if self.shape.l_output else part[0]

    def forward(self, x, lengths):
        cut = lengths is not None and self.shape.use_lengths and self.shape.mode != "sequence"
        x = torch.stack(
            [self.restrict(row[:n] if cut else row) for row, n in zip(x, x if lengths is None else lengths)]
        )
        if self.shape.decoder == "sequence":
            return self.output_transform(x)
        first, second = x.chunk(2)
        parts = (
            [first, second] if self.shape.decoder == "retrieval2" else [first, second, first - second, first * second]
        )
        return self.retrieval.classifier(torch.cat(parts, -1))


class Lightning(nn.Module):
    """What the checkpoint's state_dict belongs to."""

    def __init__(self, given: list[Given], shape: Shape):
        super().__init__()
        self.shape, self.model = shape, Backbone(given, shape)
        encoder = {
            "linear": lambda: nn.Linear(shape.features, shape.width),
            "embedding": lambda: nn.Embedding(shape.features, shape.width),
            "none": nn.Identity,
        }[shape.encoder]()
        decoder = Decoder(shape)
        alone = shape.version == 1
        self.encoder = encoder if alone else nn.Sequential(encoder)
        self.decoder = decoder if alone else nn.ModuleList([decoder])

    def forward(self, x: np.ndarray, lengths: np.ndarray | None = None):
        if self.shape.decoder != "sequence":
            x = np.concatenate([x[:, 0], x[:, 1]])
            lengths = None if lengths is None else np.concatenate([lengths[:, 0], lengths[:, 1]])
        h = self.model(self.encoder(torch.tensor(x)), lengths)
        return (self.decoder if self.shape.version == 1 else self.decoder[0])(h, lengths)


def build(given: list[Given], shape: Shape, seed: int = 0) -> tuple[Lightning, Arrays]:
    """The model in evaluation mode, every parameter and statistic moved off its initial value, and its tensors."""
    torch.manual_seed(seed)
    model = Lightning(given, shape).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name:
                value += 0.2 * torch.randn_like(value)
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value += 0.3 * torch.randn_like(value)
            elif name.endswith("running_var"):
                value *= torch.rand_like(value) + 0.5
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


def inputs_of(model: Lightning) -> list[np.ndarray]:
    """What each state space layer got in the last run."""
    return [part.seen for part in model.modules() if isinstance(part, Convolution)]
