"""No import circles in the package, imports inside functions included; those for type checkers alone do not count."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import ripieno

PACKAGE = Path(ripieno.__file__).parent


def imports(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(module, name) of each import of the package below `body`; the name is empty for `import module`."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(node.orelse)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ripieno":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "ripieno")
        else:
            for _, value in ast.iter_fields(node):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt | ast.excepthandler):
                    yield from imports(value)


def graph() -> dict[str, set[str]]:
    """Modules that each module of the package imports."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        trees[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    found = {name: set() for name in trees}
    for name, tree in trees.items():
        for module, what in imports(tree.body):
            target = f"{module}.{what}" if f"{module}.{what}" in trees else module
            if target != name:
                found[name].add(target)
    return found


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, the first again at its end; empty without one."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges.get(name, ())):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle(graph()) == []


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
