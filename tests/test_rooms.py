"""Imports go one way: the tables of docs/architecture.md, held against what every module really imports."""

import ast
import graphlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "lastcli"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LATE = " (in functions)"


@dataclass(frozen=True)
class Import:
    """One import of the package's own: `name` is the module without the package, "" for the package itself."""

    name: str
    line: int
    late: bool = False
    typing: bool = False


def short(module):
    return module.removeprefix(PACKAGE).removeprefix(".") or "__init__"


def package_modules():
    found = {}
    for path in sorted((ROOT / "src" / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        found[short(".".join(parts[:-1] if parts[-1] == "__init__" else parts))] = path
    return found


class Imports(ast.NodeVisitor):
    """Every import of the package: at the top, inside functions, for types, and by name as a string."""

    def __init__(self, known):
        self.known = known
        self.found = []
        self.late = self.typing = False

    def visit_Import(self, node):
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node):
        assert node.level == 0, f"line {node.lineno}: a relative import; write the whole name"
        for alias in node.names:
            # `from package import module` is the module, `from module import name` is the module too
            whole = f"{node.module}.{alias.name}"
            self.add(whole if short(whole) in self.known else node.module, node.lineno)

    def visit_Constant(self, node):
        if isinstance(node.value, str) and node.value.startswith(PACKAGE + ".") and short(node.value) in self.known:
            late, self.late = self.late, True
            self.add(node.value, node.lineno)
            self.late = late

    def visit_If(self, node):
        before = self.typing
        self.typing = before or ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in node.body:
            self.visit(child)
        self.typing = before
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node):
        before, self.late = self.late, True
        self.generic_visit(node)
        self.late = before

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def add(self, module, line):
        if module == PACKAGE or module.startswith(PACKAGE + "."):
            self.found.append(Import(short(module), line, self.late, self.typing))


def imports_of(text, known):
    visitor = Imports(known)
    visitor.visit(ast.parse(text))
    return visitor.found


def room_of(name):
    return name.partition(".")[0]


def inside(name, place):
    return name == place or name.startswith(place + ".")


def rows(title):
    """The cells of the table of the page whose first heading is `title`, without backquotes."""
    block = re.search(rf"^\| {title} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.strip("|\n").split(" | ")] for row in block[1].splitlines()]


def names(cell):
    return [] if cell == "–" else cell.split(", ")


MODULES = package_modules()
IMPORTS = {name: imports_of(path.read_text(), MODULES) for name, path in MODULES.items()}
ROOMS = {row[0]: names(row[1]) for row in rows("room")}
STRICT = {row[0]: names(row[1]) for row in rows("module")}


def allowed(place, item):
    return any(
        inside(item.name, entry.removesuffix(LATE)) and (item.late or item.typing or not entry.endswith(LATE))
        for entry in (*ROOMS[place], place)
    )


def test_the_table_names_every_room_and_no_other():
    assert set(ROOMS) == {room_of(name) for name in MODULES}


def test_every_entry_of_the_tables_is_a_module():
    entries = [entry.removesuffix(LATE) for cell in (*ROOMS.values(), *STRICT.values()) for entry in cell]
    assert set(entries) | set(STRICT) <= set(MODULES)


def test_a_room_imports_only_rooms_below_it():
    order = list(ROOMS)
    for room, entries in ROOMS.items():
        for entry in entries:
            assert order.index(room_of(entry.removesuffix(LATE))) > order.index(room), (room, entry)


def test_the_order_is_that_of_the_house():
    stations = ["cli", "api", "verbs", "reduction", "evaluation", "families", "containers", "engine", "mappings"]
    order = list(ROOMS)
    assert sorted(stations, key=order.index) == stations
    beside = {"evaluation", "model", "plan"}
    for room in beside:
        assert not beside & set(ROOMS[room])
        assert order.index("reduction") < order.index(room) < order.index("families")
    assert ROOMS["demo"] == ["errors"]
    assert ROOMS["results"] == ["errors", "lazily"]
    assert ROOMS["report"] == ["results", "errors", "lazily", "_version"]
    assert ROOMS["_version"] == ROOMS["errors"] == ROOMS["lazily"] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_table_allows(room):
    wrong = [
        f"{name}:{item.line} imports {item.name}"
        for name, found in IMPORTS.items()
        if room_of(name) == room
        for item in found
        if not allowed(room, item)
    ]
    assert not wrong, f"docs/architecture.md allows {room} only {ROOMS[room] or 'itself'}: {'; '.join(wrong)}"


@pytest.mark.parametrize("module", STRICT)
def test_a_module_held_more_strictly_keeps_to_it(module):
    wrong = [
        f"line {item.line} imports {item.name}"
        for item in IMPORTS[module]
        if not item.typing and any(inside(item.name, place) for place in STRICT[module])
    ]
    assert not wrong, f"{module} must not import {STRICT[module]}: {'; '.join(wrong)}"


def test_no_module_imports_itself_through_others():
    cycle = circle({name: {item.name for item in found} for name, found in IMPORTS.items()})
    assert not cycle, " → ".join(cycle)


def circle(graph):
    try:
        graphlib.TopologicalSorter({name: found - {name} for name, found in graph.items()}).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_the_reader_of_imports_sees_every_kind():
    text = (
        "import typing\nfrom lastcli import demo\nimport lastcli.errors\n"
        "if TYPE_CHECKING:\n    from lastcli.api import open\n"
        "def f():\n    from lastcli.plan.plan import Plan\n"
        "TABLE = {'a': 'lastcli.families.s5.family', 'b': 'lastcli.unknown'}\n"
    )
    assert imports_of(text, MODULES) == [
        Import("demo", 2),
        Import("errors", 3),
        Import("api", 5, typing=True),
        Import("plan.plan", 7, late=True),
        Import("families.s5.family", 8, late=True),
    ]


def test_a_circle_is_found_wherever_it_starts():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_an_import_in_a_function_is_told_from_one_at_the_top():
    assert allowed("plan", Import("engine.poles", 1, late=True))
    assert not allowed("plan", Import("engine.poles", 1))
    assert not allowed("plan", Import("families.base", 1, late=True))
    assert allowed("families", Import("containers.base", 1))
    assert not allowed("families", Import("containers.registry", 1))
