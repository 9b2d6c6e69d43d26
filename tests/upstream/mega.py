"""Tiny Mega models with the names that fairseq and transformers give them, and what they compute, by definition.

The forward pass is NumPy in float64 for one sequence without padding: the moving average as a recurrence, attention
chunk by chunk, every entry of the position bias on its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from tests.builders.mega import TRANSFORMERS, mega_layer
from tests.builders.named import Arrays

WIDTH, HIDDEN, SHARED, INNER = 4, 5, 6, 7
NORMS: dict[str, tuple[str, ...]] = {
    "layernorm": ("weight", "bias"),
    "scalenorm": ("scalar",),
    "rmsnorm": ("weight",),
    "batchnorm": ("weight", "bias", "running_mean", "running_var"),
    "none": (),
}
_RENAMED = {"gamma": "qk_weight", "beta": "qk_bias", "rel_pos_bias.beta": "rel_pos_bias.b_param"}


def norm(rng: np.random.Generator, kind: str) -> Arrays:
    arrays = {f"norm.{leaf}": rng.uniform(0.5, 1.5, 1 if leaf == "scalar" else WIDTH) for leaf in NORMS[kind]}
    return arrays | ({"norm.num_batches_tracked": np.array(7)} if kind == "batchnorm" else {})


def linear(rng: np.random.Generator, name: str, outputs: int, inputs: int, bias: bool = True) -> Arrays:
    arrays = {f"{name}.weight": rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)}
    return arrays | ({f"{name}.bias": rng.normal(size=outputs) / 3} if bias else {})


def block(
    rng: np.random.Generator, *, kind: str, bias: str, reach: int, states: int, both: bool, feed: bool, theirs: bool
) -> Arrays:
    """One layer, below `layers.{i}.`; `theirs` are the names of transformers."""
    own: Arrays = {f"norm.{name}": a for name, a in norm(rng, kind).items()}
    average = mega_layer(rng, states, WIDTH, bidirectional=both)
    own |= {("ema_gate." + TRANSFORMERS[name] if theirs else f"move.{name}"): a for name, a in average.items()}
    own |= linear(rng, "v_proj", HIDDEN, WIDTH) | linear(rng, "h_proj", WIDTH, HIDDEN)
    own |= linear(rng, "mx_proj", SHARED + HIDDEN + 2 * WIDTH, WIDTH)
    own |= {"gamma": 2 * rng.normal(size=(2, SHARED)), "beta": rng.normal(size=(2, SHARED))}
    if bias == "simple":
        own["rel_pos_bias.rel_pos_bias"] = rng.normal(size=2 * reach - 1)
    else:
        own |= {f"rel_pos_bias.{name}": rng.normal(size=(1, SHARED)) for name in ("alpha", "beta")}
        own["rel_pos_bias._float_tensor"] = np.zeros(1)
    own = {f"mega_layer.{_RENAMED.get(name, name) if theirs else name}": a for name, a in own.items()}
    if feed:
        own |= {f"nffn.norm.{name}": a for name, a in norm(rng, kind).items()}
        own |= linear(rng, "nffn.fc1", INNER, WIDTH) | linear(rng, "nffn.fc2", WIDTH, INNER)
    return own


def layers(seed: int, root: str, count: int = 1, **options: Any) -> Arrays:
    rng = np.random.default_rng(seed)
    defaults = {"kind": "layernorm", "bias": "simple", "reach": 16, "states": 3, "both": True, "feed": True}
    blocks = [block(rng, **{**defaults, **options}) for _ in range(count)]
    return {f"{root}layers.{i}.{name}": a for i, own in enumerate(blocks) for name, a in own.items()}


def single(arrays: Arrays) -> Arrays:
    return {name: np.asarray(a, "f4" if a.dtype.kind == "f" else a.dtype) for name, a in arrays.items()}


def fairseq(
    seed: int = 0,
    *,
    vocabulary: int = 9,
    prenorm: bool = True,
    embed_norm: bool = False,
    pair: bool = False,
    depth: int = 1,
    classes: int = 3,
    prefix: str = "encoder.encoder.",
    **options: Any,
) -> Arrays:
    """An LRA classifier; of real numbers with a vocabulary of 0."""
    rng, kind = np.random.default_rng(seed + 100), options.get("kind", "layernorm")
    if vocabulary:
        ends: Arrays = {f"{prefix}embed_tokens.embed.weight": rng.normal(size=(vocabulary, WIDTH))}
    else:
        ends = {f"{prefix}embed_tokens.{leaf}": rng.normal(size=WIDTH) for leaf in ("weight", "bias")}
    for place in ["embed_norm"] * embed_norm + ["final_norm"] * prenorm:
        ends |= {f"{prefix}{place}.{name}": a for name, a in norm(rng, kind).items()}
    inputs = WIDTH * (2 if pair else 1)
    for j in range(depth):
        ends |= linear(rng, f"classifier.{j}.0", INNER, INNER if j else inputs)
    ends |= linear(rng, "sentence_projection_layer", classes, INNER if depth else inputs, bias=False)
    return single(ends | layers(seed, prefix, theirs=False, **options))


def transformers(
    seed: int = 0, *, head: str = "classification", classes: int = 3, types: bool = False, **options: Any
) -> Arrays:
    """An encoder of transformers with one of its heads."""
    rng, vocabulary = np.random.default_rng(seed + 100), 9
    root = "" if head == "none" else "mega."
    ends: Arrays = {f"{root}embedding_layer.word_embeddings.weight": rng.normal(size=(vocabulary, WIDTH))}
    if types:
        ends[f"{root}embedding_layer.token_type_embeddings.weight"] = rng.normal(size=(2, WIDTH))
    if head == "classification":
        ends |= linear(rng, "classifier.dense", WIDTH, WIDTH) | linear(rng, "classifier.out_proj", classes, WIDTH)
    elif head == "masked":
        ends |= linear(rng, "dense", WIDTH, WIDTH) | linear(rng, "mlm_head", vocabulary, WIDTH)
    elif head == "tokens":
        ends |= linear(rng, "classifier", classes, WIDTH)
    else:
        ends |= linear(rng, "pooler.dense", WIDTH, WIDTH)
    return single(ends | layers(seed, root, theirs=True, **{"bias": "rotary", "kind": "scalenorm", **options}))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "silu": lambda x: x * sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_accurate": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "linear": lambda x: x,
    "tanh": np.tanh,
}


class Reference:
    """A model by its tensors and by what they do not say."""

    def __init__(
        self,
        arrays: Arrays,
        *,
        prenorm: bool = True,
        ffn_prenorm: bool | None = None,
        norm: str | None = None,
        activation: str = "silu",
        attention: str = "softmax",
        chunk: int | None = None,
        truncation: int | None = None,
        shift: bool = False,
        gain: str = "delta",
        pooling: str = "mean",
        classifier: str = "gelu",
    ):
        back = {theirs: ours for ours, theirs in [*TRANSFORMERS.items(), *_RENAMED.items()]}
        self.t: dict[str, np.ndarray] = {}
        for name, array in arrays.items():
            leaf = next((leaf for leaf in back if name.endswith(f".{leaf}")), None)
            name = name if leaf is None else name.removesuffix(leaf) + back[leaf]
            self.t[name.replace(".ema_gate.", ".move.")] = array.astype(float)
        self.theirs = any(".ema_gate." in name for name in arrays)
        self.root = next(name for name in self.t if "layers.0." in name).split("layers.0.")[0]
        self.prenorm, self.ffn_prenorm = prenorm, prenorm if ffn_prenorm is None else ffn_prenorm
        self.norm_kind, self.act, self.attention = norm, ACTIVATIONS[activation], attention
        self.chunk, self.truncation, self.shift, self.gain = chunk, truncation, shift, gain
        self.pooling, self.classifier = pooling, ACTIVATIONS["tanh" if self.theirs else classifier]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.t[f"{name}.weight"].T + self.t.get(f"{name}.bias", 0)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        own = {leaf: self.t.get(f"{name}.norm.{leaf}") for leaves in NORMS.values() for leaf in leaves}
        weight = 1 if own["weight"] is None else own["weight"]
        if own["running_mean"] is not None:
            return (x - own["running_mean"]) / np.sqrt(own["running_var"] + 1e-5) * weight + own["bias"]
        if own["bias"] is not None or self.norm_kind == "layernorm":
            y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * weight
            return y if own["bias"] is None else y + own["bias"]
        if own["weight"] is not None and self.theirs:
            return x * weight
        scale = weight if own["scalar"] is None else own["scalar"]
        return scale * x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)

    def average(self, name: str, x: np.ndarray) -> np.ndarray:
        """Both directions and the residual; past lags from `truncation` on are forgotten by a second recurrence."""
        t = {role: self.t[f"{name}.{role}"] for role in ("delta", "alpha", "beta", "gamma", "omega")}
        decay = 1 - (sigmoid(t["delta"]) * sigmoid(t["alpha"]))[..., 0]
        gain = (sigmoid(t[self.gain]) * t["beta"])[..., 0]
        read = t["gamma"] / np.sqrt(t["gamma"].shape[1])
        length, width = x.shape
        y = x * t["omega"]
        for row in range(len(decay)):
            u = x[:, row % width]
            u = u if row < width else u[::-1]
            state, out = np.zeros(decay.shape[1]), np.zeros(length)
            for k in range(length):
                state = decay[row] * state + gain[row] * u[k]
                if self.truncation is not None and k >= self.truncation:
                    state = state - decay[row] ** self.truncation * gain[row] * u[k - self.truncation]
                out[k] = read[row] @ state
                if row >= width and self.shift:
                    out[k] -= read[row] @ gain[row] * u[k]
            y[:, row % width] += out if row < width else out[::-1]
        return y * sigmoid(y)

    def bias(self, name: str, i: int, j: int) -> float:
        table = self.t.get(f"{name}.rel_pos_bias")
        if table is not None:
            centre = len(table) // 2 if self.chunk is None or not self.theirs else self.chunk - 1
            return table[centre + j - i]
        half = self.t[f"{name}.alpha"].shape[1] // 2
        angle = np.exp(-np.log(10000) * np.arange(half) / half)
        left, right = (
            (self.t[f"{name}.{role}"][0, :half] + 1j * self.t[f"{name}.{role}"][0, half:]) * np.exp(1j * step * angle)
            for role, step in (("alpha", i), ("beta", j))
        )
        return (left * right.conj()).real.sum()

    def attend(self, name: str, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        size = len(q)
        bias = np.array([[self.bias(f"{name}.rel_pos_bias", i, j) for j in range(size)] for i in range(size)])
        if self.attention == "softmax":
            weights = np.exp(q @ k.T / np.sqrt(SHARED) + bias)
            return weights / weights.sum(1, keepdims=True) @ v
        products = q @ k.T / size + bias
        if self.attention == "relu2":
            return np.maximum(products, 0) ** 2 @ v
        return 0.5 * (1 + erf((products - 0.707107) / (0.282095 * np.sqrt(2)))) @ v

    def gated_attention(self, name: str, x: np.ndarray) -> np.ndarray:
        residual = x
        x = self.norm(f"{name}.norm", x) if self.prenorm else x
        v = self.act(self.linear(f"{name}.v_proj", x))
        base = self.linear(f"{name}.mx_proj", self.average(f"{name}.move", x))
        update, z, r, skip = np.split(base, np.cumsum([WIDTH, SHARED, HIDDEN]), axis=1)
        z, r = z * sigmoid(z), r * sigmoid(r)
        q, k = (z * self.t[f"{name}.gamma"][i] + self.t[f"{name}.beta"][i] for i in (0, 1))
        size = self.chunk or len(x)
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        h = np.concatenate([self.attend(name, q[part], k[part], v[part]) for part in parts])
        h = self.act(skip + self.linear(f"{name}.h_proj", h * r))
        y = sigmoid(update) * h + (1 - sigmoid(update)) * residual
        return y if self.prenorm else self.norm(f"{name}.norm", y)

    def feed_forward(self, name: str, x: np.ndarray) -> np.ndarray:
        y = self.norm(f"{name}.norm", x) if self.ffn_prenorm else x
        y = x + self.linear(f"{name}.fc2", self.act(self.linear(f"{name}.fc1", y)))
        return y if self.ffn_prenorm else self.norm(f"{name}.norm", y)

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """(L, D) after the last layer."""
        root = self.root
        if self.theirs:
            h = self.t[f"{root}embedding_layer.word_embeddings.weight"][x]
            h = h + self.t.get(f"{root}embedding_layer.token_type_embeddings.weight", np.zeros((1, WIDTH)))[0]
        elif f"{root}embed_tokens.bias" in self.t:
            h = x[:, None] * self.t[f"{root}embed_tokens.weight"] + self.t[f"{root}embed_tokens.bias"]
        else:
            h = self.t[f"{root}embed_tokens.embed.weight"][x]
        h = self.norm(f"{root}embed_norm", h) if any(f"{root}embed_norm." in name for name in self.t) else h
        i = 0
        while f"{root}layers.{i}.mega_layer.gamma" in self.t:
            h = self.gated_attention(f"{root}layers.{i}.mega_layer", h)
            if f"{root}layers.{i}.nffn.fc1.weight" in self.t:
                h = self.feed_forward(f"{root}layers.{i}.nffn", h)
            i += 1
        return self.norm(f"{root}final_norm", h) if any(f"{root}final_norm." in name for name in self.t) else h

    def __call__(self, *documents: np.ndarray) -> np.ndarray:
        """Logits of a sequence, or of two; with a head for every step, or none, (L, outputs)."""
        hidden = [self.hidden(x) for x in documents]
        if self.theirs:
            (h,) = hidden
            if "classifier.out_proj.weight" in self.t:
                return self.linear("classifier.out_proj", np.tanh(self.linear("classifier.dense", h[0])))
            if "mlm_head.weight" in self.t:
                return self.linear("mlm_head", np.tanh(self.linear("dense", h)))
            return self.linear("classifier", h) if "classifier.weight" in self.t else h
        h = np.concatenate([h.mean(0) if self.pooling == "mean" else h[0] for h in reversed(hidden)])
        j = 0
        while f"classifier.{j}.0.weight" in self.t:
            h = self.classifier(self.linear(f"classifier.{j}.0", h))
            j += 1
        return self.linear("sentence_projection_layer", h)
