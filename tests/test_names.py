"""One meaning a name: no class and no type alias is defined twice in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import ripieno

PACKAGE = Path(ripieno.__file__).parent


def defined(tree: ast.Module) -> Iterator[str]:
    """Names of the classes of a module, wherever they stand, and of its type aliases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        made_by_call = isinstance(value, ast.Call)  # a TypeVar, a logger
        names = [t.id for t in targets if isinstance(t, ast.Name) and value is not None and not made_by_call]
        yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_no_class_or_type_alias_has_two_definitions() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in defined(ast.parse(path.read_text())):
            places[name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_both_kinds_of_definition_are_seen() -> None:
    source = "class A:\n    class B: ...\nCd = int | str\nEf: TypeAlias = int\nT = TypeVar('T')\nMOST = 3\n"
    assert list(defined(ast.parse(source))) == ["A", "B", "Cd", "Ef"]
