"""Small changes of a module's code, each of which makes it wrong unless it changes nothing that matters."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Change", "changes_of"]

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        line: first line of the changed expression or statement, from 1.
        what: what it was and what it becomes, in one line.
        source: the whole module after the change.
    """

    line: int
    what: str
    source: str


def changes_of(source: str) -> Iterator[Change]:
    """Every change of the bodies of a module's functions.

    An operator is exchanged for its neighbour, a condition is negated, `not` and unary minus go, a number becomes the
    next one, a truth value its opposite, a returned value None, and a call whose value nobody takes is left out. Texts,
    annotations, default values, raised errors and what stands under `if TYPE_CHECKING` stay.
    """
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        node.number = number  # type: ignore[attr-defined]
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for statement in function.body:
                if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield from _below(tree, statement)


def _below(tree: ast.Module, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, (ast.Raise, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assert)):
        return
    for what, changed in _of_node(node):
        yield Change(node.lineno, what, _with(tree, node, changed))  # type: ignore[attr-defined]
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "op", "ops", "slice") and not (field == "slice" and _counts(value)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.expr_context, ast.JoinedStr)):
                yield from _below(tree, child)


def _counts(node: ast.AST) -> bool:
    """Whether an index has an operator or a number in it."""
    return any(isinstance(part, (ast.BinOp, ast.Constant)) for part in ast.walk(node))


def _of_node(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
        yield _replaced(node, op=_OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
        yield _replaced(node, ops=[_OPERATORS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield f"{ast.unparse(node)} → {ast.unparse(node.operand)}", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _replaced(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield _replaced(node, value=node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield _replaced(node, value=ast.Constant(None))
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        negated = copy.copy(node)
        negated.test = ast.UnaryOp(ast.Not(), node.test)
        yield f"if {ast.unparse(node.test)} → if not", negated
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"{ast.unparse(node)} → pass", ast.Pass()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _replaced(node: ast.AST, **fields: object) -> tuple[str, ast.AST]:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return f"{ast.unparse(node)} → {ast.unparse(changed)}".replace("\n", " "), changed


def _with(tree: ast.Module, node: ast.AST, changed: ast.AST | None) -> str:
    class Exchange(ast.NodeTransformer):
        def visit(self, found: ast.AST) -> ast.AST | None:
            if getattr(found, "number", None) == node.number:  # type: ignore[attr-defined]
                return changed
            return self.generic_visit(found)

    return ast.unparse(ast.fix_missing_locations(Exchange().visit(copy.deepcopy(tree)))) + "\n"
