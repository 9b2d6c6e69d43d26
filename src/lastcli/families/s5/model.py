"""The published S5 architecture as a flax module whose parameter tree is the checkpoint's own.

Names, order of operations and constants follow the public S5 code (Smith, Warrington, Linderman, "Simplified State
Space Layers for Sequence Modeling", arXiv 2208.04933), with one thing added: every layer has a state size of its
own, so that the parameters of a pruned checkpoint are taken as they are::

    model = S5Model(features=1, d_output=10, d_model=48, ssm_sizes=(20, 11, 25, 9), activation="full_glu")
    log_probabilities = model.apply({"params": params, "batch_stats": batch_stats}, x)

This module imports JAX and flax; import it only where a model is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lastcli.engine.simulate import simulate
from lastcli.engine.system import DiagonalSystem
from lastcli.errors import UsageError
from lastcli.families.parts.blocks import class_scores, pool
from lastcli.families.parts.discretise import discrete
from lastcli.families.parts.storage import join_pair
from lastcli.families.s5.dynamics import CLIP

__all__ = ["S5SSM", "S5Encoder", "S5Model", "S5SequenceLayer", "decoded", "encoded", "widen"]

Array = jax.Array


def widen(values: Array) -> Array:
    """At least float32: bfloat16 and float16 store parameters, nothing is computed in them."""
    values = jnp.asarray(values)
    return values.astype(np.promote_types(values.dtype, np.float32))


class S5SSM(nn.Module):
    """One S5 state space layer, (n, L, H) → (n, L, H).

    With `system` given, that system computes the output and no parameter is touched; else the layer discretises its
    own parameters in their own precision. The input is sown as intermediate "input".
    """

    H: int
    P: int
    discretization: str = "zoh"
    conj_sym: bool = True
    clip_eigs: bool = False
    bidirectional: bool = False
    step_rescale: float = 1.0
    joint_c: bool = False

    @nn.compact
    def __call__(self, u: Array, system: DiagonalSystem | None = None) -> Array:
        """The layer's output for the input u."""
        self.sow("intermediates", "input", u)
        return simulate(self.own_system() if system is None else system, u)

    def own_system(self) -> DiagonalSystem:
        """The layer's parameters as a discrete system; declares them when the model is initialised."""
        log_step = self.param("log_step", _log_steps, (self.P, 1))
        real = self.param("Lambda_re", nn.initializers.constant(-0.5), (self.P,))
        imag = self.param("Lambda_im", _frequencies, (self.P,))
        b = self.param("B", nn.initializers.normal(self.H**-0.5), (self.P, self.H, 2))
        read_outs = self._read_outs()
        d = self.param("D", nn.initializers.normal(1.0), (self.H,))

        if self.clip_eigs:
            real = jnp.minimum(real, jnp.asarray(CLIP, real.dtype))
        step = self.step_rescale * jnp.exp(widen(log_step)[:, 0])
        a = jax.lax.complex(widen(real), widen(imag))
        poles, gain = discrete(jnp, self.discretization, a, step.astype(a.dtype))
        return DiagonalSystem(
            poles=poles[None],
            B=(gain[:, None] * join_pair(widen(b)))[None],
            C=jnp.stack([join_pair(widen(c)) for c in read_outs])[None],
            D=jnp.diag(widen(d))[None],
            pairing=2 if self.conj_sym else 1,
            feedthrough="diagonal",
        )

    def _read_outs(self) -> list[Array]:
        initial = nn.initializers.normal(self.P**-0.5)
        shape = (self.H, self.P, 2)
        if not self.bidirectional:
            return [self.param("C", initial, shape)]
        if self.joint_c:
            return jnp.split(self.param("C", initial, (self.H, 2 * self.P, 2)), 2, axis=1)
        return [self.param("C1", initial, shape), self.param("C2", initial, shape)]


def _log_steps(key: Array, shape: tuple[int, ...]) -> Array:
    """Log-uniform step sizes between 0.001 and 0.1."""
    return jax.random.uniform(key, shape, minval=jnp.log(1e-3), maxval=jnp.log(1e-1))


def _frequencies(key: Array, shape: tuple[int, ...]) -> Array:
    """π·n, the imaginary parts of the simplest diagonal initialisation (S4D-Lin, arXiv 2206.11893)."""
    return jnp.pi * jnp.arange(shape[0], dtype=jnp.float32)


class S5SequenceLayer(nn.Module):
    """Norm, state space layer, activation, skip connection; (n, L, H) → (n, L, H)."""

    d_model: int
    ssm: dict[str, Any]
    activation: str = "half_glu1"
    prenorm: bool = True
    norm: str = "batch"
    bn_momentum: float = 0.9
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, system: DiagonalSystem | None = None, train: bool = False) -> Array:
        """The layer's output; `train` uses the batch's own statistics and dropout."""
        skip = x
        norm: nn.Module
        if self.norm == "batch":
            norm = nn.BatchNorm(use_running_average=not train, momentum=self.bn_momentum, epsilon=1e-5, name="norm")
        else:
            norm = nn.LayerNorm(epsilon=1e-6, name="norm")
        if self.prenorm:
            x = norm(x)
        x = S5SSM(H=self.d_model, name="seq", **self.ssm)(x, system)
        x = skip + self._activate(x, train)
        return x if self.prenorm else norm(x)

    def _activate(self, x: Array, train: bool) -> Array:
        # One mask for all time steps of a sequence, as in the published code.
        drop = nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)
        g = drop(nn.gelu(x))
        if self.activation == "gelu":
            return g
        if self.activation == "full_glu":
            x = nn.Dense(self.d_model, name="out1")(g)
        elif self.activation == "half_glu1":
            x = g
        return drop(x * nn.sigmoid(nn.Dense(self.d_model, name="out2")(g)))


class S5Encoder(nn.Module):
    """A linear encoder and the stack of layers, (n, L, F) → (n, L, H)."""

    d_model: int
    layers: tuple[dict[str, Any], ...]

    @nn.compact
    def __call__(self, x: Array, systems: Sequence[DiagonalSystem] | None = None, train: bool = False) -> Array:
        """The encoded sequence; `systems` replace the layers' own parameters."""
        x = nn.Dense(self.d_model, name="encoder")(x)
        for i, options in enumerate(self.layers):
            layer = S5SequenceLayer(d_model=self.d_model, name=f"layers_{i}", **options)
            x = layer(x, None if systems is None else systems[i], train)
        return x


class RetrievalDecoder(nn.Module):
    """Two dense layers over the features of two documents, (n, 4H) → (n, classes)."""

    d_model: int
    d_output: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Scores of the pair."""
        x = nn.gelu(nn.Dense(self.d_model, name="layer1")(x))
        return nn.Dense(self.d_output, name="layer2")(x)


class S5Model(nn.Module):
    """S5 for classification, regression and retrieval, with a state size for each layer.

    Attributes:
        features: F, input features; the vocabulary size for integer tokens.
        d_output: classes or regression targets.
        d_model: H.
        ssm_sizes: stored states of each layer (half the state dimension with `conj_sym`); they may differ.
        activation: "full_glu", "half_glu1", "half_glu2" or "gelu".
        prenorm: normalise before the state space layer instead of after the skip connection.
        norm: "batch" or "layer".
        conj_sym, clip_eigs, bidirectional, discretization, step_rescale: as in the published code.
        joint_c: a bidirectional layer holds both read-outs in one C (H, 2P, 2), as with S5's "complex_normal".
        mode: "pool" (mean over time), "last" (the last step) or "sequence" (an output at every step).
        task: "classification" (log-probabilities), "regression", or "retrieval" (two documents, log-probabilities).
        padded: the data come with true lengths; a call without them is then an error.
        bn_momentum, dropout: used in training only.
    """

    features: int
    d_output: int
    d_model: int
    ssm_sizes: tuple[int, ...]
    activation: str = "half_glu1"
    prenorm: bool = True
    norm: str = "batch"
    conj_sym: bool = True
    clip_eigs: bool = False
    bidirectional: bool = False
    discretization: str = "zoh"
    step_rescale: float = 1.0
    joint_c: bool = False
    mode: str = "pool"
    task: str = "classification"
    padded: bool = False
    bn_momentum: float = 0.9
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        *,
        systems: Sequence[DiagonalSystem] | None = None,
        train: bool = False,
    ) -> Array:
        """The model's output.

        Args:
            x: (n, L, F) inputs, (n, L) integer tokens or one-feature values; for retrieval (n, 2, L, F) or (n, 2, L).
            lengths: true lengths of padded input, (n,) or (n, 2) for retrieval. Padding is left in the scans, as in
                the published code; only the pooling leaves it out.
            systems: discrete systems that replace the layers' own parameters.
            train: batch statistics and dropout as in training.

        Returns:
            (n, d_output), or (n, L, d_output) in mode "sequence".

        Raises:
            UsageError: the model is for padded data and there are no lengths.
        """
        if self.padded and lengths is None:
            raise UsageError("The model was made for padded sequences; pass their true lengths.")
        if self.task == "retrieval":
            # All first documents, then all second ones: batch statistics run over both.
            x = jnp.concatenate([x[:, 0], x[:, 1]])
            lengths = None if lengths is None else jnp.concatenate([lengths[:, 0], lengths[:, 1]])
        encoder = S5Encoder(d_model=self.d_model, layers=_layers(self), name="encoder")
        x = encoder(_features(x, self.features), systems, train)
        if self.task == "retrieval":
            first, second = jnp.split(pool(x, self.mode, lengths), 2)
            x = jnp.concatenate([first, second, first - second, first * second], axis=-1)
            x = RetrievalDecoder(self.d_model, self.d_output, name="decoder")(x)
        else:
            x = nn.Dense(self.d_output, name="decoder")(pool(x, self.mode, lengths))
        return class_scores(x, self.task)


def _layers(model: S5Model) -> tuple[dict[str, Any], ...]:
    """The options of every layer."""
    ssm = {
        "discretization": model.discretization,
        "conj_sym": model.conj_sym,
        "clip_eigs": model.clip_eigs,
        "bidirectional": model.bidirectional,
        "step_rescale": model.step_rescale,
        "joint_c": model.joint_c,
    }
    layer = {
        "activation": model.activation,
        "prenorm": model.prenorm,
        "norm": model.norm,
        "bn_momentum": model.bn_momentum,
        "dropout": model.dropout,
    }
    return tuple({**layer, "ssm": {**ssm, "P": size}} for size in model.ssm_sizes)


def encoded(
    model: S5Model, variables: dict[str, Any], systems: Sequence[Any], x: Array
) -> tuple[Array, tuple[Array, ...]]:
    """What the layers of a model make of every step, (n, L, H), and the input of each of them."""
    own = {collection: tree["encoder"] for collection, tree in variables.items() if "encoder" in tree}
    encoder, inputs = S5Encoder(d_model=model.d_model, layers=_layers(model)), _features(x, model.features)
    h, sown = encoder.apply(own, inputs, tuple(systems), mutable=["intermediates"])
    seen = sown["intermediates"]
    return h, tuple(seen[f"layers_{i}"]["seq"]["input"][0] for i in range(len(model.ssm_sizes)))


def decoded(model: S5Model, variables: dict[str, Any], h: Array) -> Array:
    """The outputs for features (n, L, H) of a model that does not compare documents."""
    head = nn.Dense(model.d_output)
    x = head.apply({"params": variables["params"]["decoder"]}, pool(h, model.mode, None))
    return class_scores(x, model.task)


def _features(x: Array, features: int) -> Array:
    """(n, L) tokens → one-hot, (n, L) values → one feature; the model computes in float32 at least."""
    if x.ndim == 2 and features > 1:
        return jax.nn.one_hot(x.astype(jnp.int32), features)
    if x.ndim == 2:
        x = x[..., None]
    return widen(x)
