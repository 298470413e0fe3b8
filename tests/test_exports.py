"""What the package exports is what its table of contents lists, and every public name is explained."""

import ast
import re
from pathlib import Path

import pytest

import synth

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("synth", "runtime", "costmodels") for path in (ROOT / package).rglob("*.py")
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def test_exports_are_sorted():
    assert synth.__all__ == sorted(synth.__all__)


def test_exports_are_the_table_of_contents():
    listed = re.findall(r":(?:class|func):`(\w+)`", synth.__doc__)
    assert sorted(listed) == synth.__all__


def test_contents_say_what_is_a_class():
    classes = re.findall(r":class:`(\w+)`", synth.__doc__)
    assert set(classes) == {name for name in synth.__all__ if isinstance(getattr(synth, name), type)}


@pytest.mark.parametrize("name", synth.__all__)
def test_export_is_documented(name):
    text = getattr(synth, name).__doc__
    assert text
    assert not text.startswith(f"{name}("), "the docstring that dataclass makes"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_definitions_are_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body
    assert not [node.name for node in public_definitions(tree) if not ast.get_docstring(node)]


def public_definitions(node):
    """The functions and classes of a module, and the methods of those classes."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child)
