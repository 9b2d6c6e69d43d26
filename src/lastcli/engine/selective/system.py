"""Selective layers from the input of the mixer to its output: `S6System` (Mamba 1) and `SSDSystem` (Mamba 2).

A mixer projects its input u to an inner signal x and a gate z, runs a causal convolution and a SiLU over x, and then a
recurrence whose step, B and C are computed from x at every time (Gu and Dao, arXiv 2312.00752)::

    h[t] = exp(δ[t] A) h[t-1] + δ[t] B[t] x[t],   y[t] = C[t] h[t] + D x[t],   out = W_o (y[t] · silu(z[t]))

In S6 A is (d, N), the step is one of each channel, and B, C come from x by one matrix after the convolution. In SSD
(Dao and Gu, arXiv 2405.21060) A is one number a head, B and C leave the same projection as x and pass the convolution
and the SiLU with it, G groups of heads share them, and a norm may follow the gate. State n of a set is what is kept or
dropped: n of all channels of the layer (S6), or of all heads of a group (SSD).

Zamba's first version (Glorioso et al., arXiv 2405.16712) divides the channels of S6 into heads, each with matrices of
its own that make step, B and C: several S6 mixers side by side, whose answers are summed (`S6HeadsSystem`).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["S6HeadsSystem", "S6System", "SSDSystem", "SelectiveSystem"]

Array = Any  # numpy.ndarray or jax.Array


@dataclass(frozen=True)
class SelectiveSystem(ABC):
    """What both forms have; see the module. Arrays that a model has not are None.

    Attributes:
        out_proj: (H, d), and its bias (H,).
        D: feedthrough, (d,) a channel, or of SSD also (heads,).
    """

    kind: ClassVar[str] = "selective"
    time_invariant: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = False

    out_proj: Array
    out_bias: Array | None
    D: Array

    @property
    @abstractmethod
    def states(self) -> int:
        """N, the states of one index set."""

    @property
    def sets(self) -> int:
        """Index sets: 1, or the groups of SSD."""
        return 1

    @property
    def multi(self) -> bool:
        """Whether there are several index sets."""
        return self.sets > 1

    @property
    def stored_states(self) -> int:
        """States this layer counts with in the budget: sets · N."""
        return self.sets * self.states

    @property
    def inputs(self) -> int:
        """H, the width of the model."""
        return int(self.out_proj.shape[0])

    @property
    def channels(self) -> int:
        """d, the inner width."""
        return int(self.out_proj.shape[1])

    @property
    def width(self) -> int:
        """The inner signals of one step, and the states that are held beside them."""
        return 4 * self.channels

    @property
    def drivable(self) -> bool:
        """Whether B comes from the inner signal by one matrix and nothing after it."""
        return False

    @property
    def form(self) -> dict[str, int]:
        """What a reduction never changes."""
        H = self.inputs
        return {"groups": 1, "inputs": H, "outputs": H, "directions": 1, "channels": self.channels, "sets": self.sets}

    def replace(self, **changes: Any) -> Any:
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class S6System(SelectiveSystem):
    """Mamba 1's mixer.

    Attributes:
        in_proj: (2d, H), x before z; its bias (2d,).
        conv: (d, K) taps, the last that of the present; its bias (d,).
        to_step: (r, d), to_B and to_C: (N, d), what computes them from x.
        step_proj: (d, r) and step_bias (d,): δ = softplus(step_proj step + step_bias).
        A: (d, N), negative.
        step_norm, B_norm, C_norm: weights of RMS norms over step, B and C (Jamba; FalconMamba's are ones), or None.
        norm_eps: of those.
    """

    in_proj: Array
    in_bias: Array | None
    conv: Array
    conv_bias: Array | None
    to_step: Array
    to_B: Array
    to_C: Array
    step_proj: Array
    step_bias: Array
    A: Array
    step_norm: Array | None = None
    B_norm: Array | None = None
    C_norm: Array | None = None
    norm_eps: float = 1e-6

    @property
    def states(self) -> int:
        """N."""
        return int(self.A.shape[1])

    @property
    def normed(self) -> bool:
        """Whether norms couple the states, so that leaving one out changes the others."""
        return self.B_norm is not None

    @property
    def drivable(self) -> bool:
        """Unless a norm follows."""
        return not self.normed


@dataclass(frozen=True)
class S6HeadsSystem(SelectiveSystem):
    """Mamba 1's mixer in h heads of p = d / h channels; state n of a head is what is kept or dropped.

    Attributes:
        D: (h, p).
        in_proj, conv and their biases: as of `S6System`, head after head.
        to_step: (h, r, p), to_B and to_C: (h, N, p).
        step_proj: (h, p, r), step_bias: (h, p). A: (h, p, N), negative.
    """

    in_proj: Array
    in_bias: Array | None
    conv: Array
    conv_bias: Array | None
    to_step: Array
    to_B: Array
    to_C: Array
    step_proj: Array
    step_bias: Array
    A: Array

    @property
    def states(self) -> int:
        """N."""
        return int(self.A.shape[2])

    @property
    def sets(self) -> int:
        """h."""
        return int(self.A.shape[0])

    @property
    def heads(self) -> tuple[S6System, ...]:
        """Every head as a mixer of its own; their answers are summed, and only the first has the last bias."""
        h, p = self.A.shape[:2]
        d = h * p

        def part(head: int) -> S6System:
            own = slice(head * p, (head + 1) * p)
            both = [*range(own.start, own.stop), *range(d + own.start, d + own.stop)]
            return S6System(
                out_proj=self.out_proj[:, own],
                out_bias=self.out_bias if head == 0 else None,
                D=self.D[head],
                in_proj=self.in_proj[both, :],
                in_bias=None if self.in_bias is None else self.in_bias[both],
                conv=self.conv[own],
                conv_bias=None if self.conv_bias is None else self.conv_bias[own],
                to_step=self.to_step[head],
                to_B=self.to_B[head],
                to_C=self.to_C[head],
                step_proj=self.step_proj[head],
                step_bias=self.step_bias[head],
                A=self.A[head],
            )

        return tuple(map(part, range(h)))


@dataclass(frozen=True)
class SSDSystem(SelectiveSystem):
    """Mamba 2's mixer; the inner projection and the convolution are taken apart into their blocks.

    Attributes:
        to_z, to_x: (d, H); to_B, to_C: (G, N, H); to_step: (heads, H); biases in the same shapes without H, or None.
        conv_x: (d, K) and its bias; conv_B, conv_C: (G, N, K) and theirs.
        step_bias, A: (heads,), A negative.
        norm: (d,) weights of the gated RMS norm, or None; over each of `norm_groups` parts of d.
        step_limits: least and largest step.
        norm_first: whether the norm comes before the gate.
    """

    to_z: Array
    to_x: Array
    to_B: Array
    to_C: Array
    to_step: Array
    z_bias: Array | None
    x_bias: Array | None
    B_bias: Array | None
    C_bias: Array | None
    dt_bias: Array | None
    conv_x: Array
    conv_B: Array
    conv_C: Array
    conv_x_bias: Array | None
    conv_B_bias: Array | None
    conv_C_bias: Array | None
    step_bias: Array
    A: Array
    norm: Array | None = None
    norm_eps: float = 1e-5
    norm_groups: int = 1
    norm_first: bool = False
    step_limits: tuple[float, float] = (0.0, float("inf"))

    @property
    def states(self) -> int:
        """N."""
        return int(self.to_B.shape[1])

    @property
    def sets(self) -> int:
        """G, the groups."""
        return int(self.to_B.shape[0])

    @property
    def heads(self) -> int:
        """The heads of all groups."""
        return int(self.A.shape[0])
