"""What a map says of one part: a tensor's name, or functions of tensors that can be undone.

    log_step              the tensor
    real(Lambda)          half of a complex tensor; imag(Lambda) is the other half
    log(-real(A))         functions inside one another
    complex(C_re, C_im)   two real tensors as one complex one
    complex(C)            a real tensor whose last axis is (real, imaginary) as complex numbers; pair(C) the other way
    (axes of one and permutations are said under `axes`, see `lastcli.families.mapped.axes`)

Every function has an inverse, so that what a reduction makes of a part becomes the file's own tensor again. Logarithms
and the like are taken in float64, whatever the file's dtype, so that they come back to the same bits. NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families.parts.multi_siso import inverse_transform, transform
from lastcli.families.parts.storage import join_pair
from lastcli.mappings import suggestion

__all__ = ["Expression", "parse"]

_TOKEN = re.compile(r"\s*(?:([A-Za-z_]+)\s*\(|([,()-])|([^\s,()-][^\s,()]*))")
_DEPTH = 10


@dataclass(frozen=True)
class Expression:
    """A tensor (`function` empty), or a function of other expressions.

    Attributes:
        function: a key of `_FUNCTIONS`, "complex", "real", "imag", or "" for a tensor.
        name: of the tensor, relative to its layer; "" for a function.
        arguments: of the function.
    """

    function: str = ""
    name: str = ""
    arguments: tuple[Expression, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor in it, in the order of writing."""
        return (self.name,) if not self.function else tuple(n for a in self.arguments for n in a.names)

    def renamed(self, names: Mapping[str, str]) -> Expression:
        """With tensors by their full names."""
        arguments = tuple(argument.renamed(names) for argument in self.arguments)
        return Expression(self.function, names[self.name] if not self.function else "", arguments)

    def shape_of(self, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> tuple[tuple[int, ...], str]:
        """(shape, dtype) from those of its tensors.

        Raises:
            UnsupportedModelError: a function does not go with a tensor's shape or dtype.
        """
        if not self.function:
            return shapes[self.name]
        (shape, dtype), *others = (argument.shape_of(shapes) for argument in self.arguments)
        is_complex = dtype.startswith("complex")
        half = "float64" if dtype == "complex128" else "float32"
        if self.function in ("real", "imag", "pair"):
            self._expect(is_complex, "a complex tensor", shape, dtype)
            return (*shape, 2) if self.function == "pair" else shape, half
        if self.function == "complex":
            self._expect(not is_complex and all(other == (shape, dtype) for other in others), "real tensors alike")
            self._expect(bool(others) or shape[-1:] == (2,), "two tensors, or one with a last axis of 2", shape, dtype)
            return shape if others else shape[:-1], "complex128" if dtype == "float64" else "complex64"
        if self.function in ("-", "conj"):
            return shape, dtype
        self._expect(not is_complex, "a real tensor", shape, dtype)
        return shape, "float64"

    def value(self, read: Callable[[str], Any]) -> Any:
        """The numbers; `read` gives the tensors, NumPy's or (for what a forward pass takes) JAX's."""
        if not self.function:
            return read(self.name)
        first, *others = (argument.value(read) for argument in self.arguments)
        if self.function == "complex":
            if not others:
                return join_pair(first)
            wide = np.result_type(first.dtype, np.complex64)
            return first.astype(wide) + 1j * others[0].astype(wide)
        if self.function in ("real", "imag"):
            return getattr(first, self.function)
        if self.function == "pair":
            return np.stack([first.real, first.imag], axis=-1)
        if self.function == "conj":
            return first.conj()
        return -first if self.function == "-" else _FUNCTIONS[self.function][0](np.asarray(first))

    def undo(self, values: np.ndarray, what: str) -> list[tuple[str, str, np.ndarray]]:
        """The tensors that this value stands for: (name, which of "", "real" or "imag" of it, numbers).

        Args:
            values: of the whole expression.
            what: the part's name, for messages.

        Raises:
            UnsupportedModelError: a function cannot give such values (a logarithm is of positive ones).
        """
        if not self.function:
            return [(self.name, "", values)]
        if self.function in ("real", "imag"):
            return [(self.arguments[0].name, self.function, values)]
        if self.function == "complex":
            if len(self.arguments) == 1:
                return self.arguments[0].undo(np.stack([values.real, values.imag], axis=-1), what)
            first, second = self.arguments
            return first.undo(values.real, what) + second.undo(values.imag, what)
        if self.function == "pair":
            return self.arguments[0].undo(join_pair(values), what)
        if self.function in ("-", "conj"):
            return self.arguments[0].undo(-values if self.function == "-" else values.conj(), what)
        wide = values.astype(np.float64)
        with np.errstate(all="ignore"):
            back = _FUNCTIONS[self.function][1](wide)
        if not np.isfinite(back).all():
            raise UnsupportedModelError(
                f"{what}: the map makes it by {self.function}(…), which cannot give {float(wide.min()):.3g} to "
                f"{float(wide.max()):.3g}; use a method that keeps the poles."
            )
        return self.arguments[0].undo(back, what)

    def _expect(self, ok: bool, wanted: str, shape: tuple[int, ...] = (), dtype: str = "") -> None:
        if not ok:
            is_of = f", {self.names[0]} is {dtype} {shape}" if dtype else ""
            raise UnsupportedModelError(f"The map says {self}: {self.function} takes {wanted}{is_of}; correct the map.")

    def __str__(self) -> str:
        if not self.function:
            return self.name
        inner = ", ".join(map(str, self.arguments))
        return f"-{inner}" if self.function == "-" else f"{self.function}({inner})"


# name → (function, its inverse), elementwise on real numbers
_FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "log": (lambda x: np.log(x.astype(np.float64)), np.exp),
    "exp": (lambda x: np.exp(x.astype(np.float64)), np.log),
    "softplus": (lambda x: transform(x, "softplus"), lambda y: inverse_transform(y, "softplus")),
    "inv_softplus": (
        lambda x: inverse_transform(x.astype(np.float64), "softplus"),
        lambda y: transform(y, "softplus"),
    ),
    "sigmoid": (lambda x: transform(x, "sigmoid"), lambda y: np.log(y) - np.log1p(-y)),
}
_ARITY = {"complex": (1, 2), **dict.fromkeys(("real", "imag", "conj", "pair", *_FUNCTIONS), (1, 1))}


def parse(text: str, where: str) -> Expression:
    """The expression that a map says.

    Args:
        where: names its place in messages.

    Raises:
        InputError: it is none; says what was read and which functions there are.
    """
    # a token begins at every character that is no space
    left = iter([*_TOKEN.finditer(text), None])
    expression, following = _expression(left, next(left), where, 0)
    if following is not None:
        raise InputError(f"{where}: {text[:60]!r} goes on after a whole expression; correct the brackets.")
    return expression


def _expression(left: Any, token: re.Match[str] | None, where: str, depth: int) -> tuple[Expression, Any]:
    """(the expression that begins with `token`, the token after it)."""
    if token is None or token[2] in (",", "(", ")") or depth > _DEPTH:
        raise InputError(f"{where}: a tensor name is missing; write NAME or FUNCTION(NAME).")
    if token[3] is not None:
        return Expression(name=token[3]), next(left, None)
    if token[2] == "-":
        inner, following = _expression(left, next(left, None), where, depth + 1)
        return Expression("-", arguments=(inner,)), following
    name = token[1]
    arguments: list[Expression] = []
    if name not in _ARITY:
        raise InputError(f"{where}: a map has no function {name!r}.{suggestion(name, _ARITY)}")
    following = token
    while not arguments or (following is not None and following[2] == ","):
        inner, following = _expression(left, next(left, None), where, depth + 1)
        arguments.append(inner)
    few, many = _ARITY[name]
    if following is None or following[2] != ")" or not few <= len(arguments) <= many:
        raise InputError(f"{where}: {name}(…) takes {few if few == many else f'{few} or {many}'} tensors in brackets.")
    if name in ("real", "imag") and arguments[0].function:
        raise InputError(
            f"{where}: {name}(…) takes the name of a tensor; write {name}(NAME) inside the other function."
        )
    return Expression(name, arguments=tuple(arguments)), next(left, None)
