"""A name means one thing: no two classes share one, and words that are no nouns name nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("curation", "training", "zoo", "pipelines")
KEPT = {("pipelines/reports.py", "given")}  # a key of what `dailies curate --json` prints
NO_NAMES = {"one", "found", "made", "words", "given", "held", "seen", "said"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for folder in (*ROOMS, "src"):  # whose links rglob does not follow
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of whatever a tree names: variables, fields, parameters, functions, classes, imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias | ast.ExceptHandler | ast.MatchAs) and (
            name := getattr(node, "asname", node.name)
        ):
            yield node.lineno, name


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{file}:{node.lineno}")
    assert len(places) > 150
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_names_are_nouns_and_verbs() -> None:
    wrong = [
        f"{file}:{line} {name}"
        for file, tree in trees()
        for line, name in bound_names(tree)
        if name in NO_NAMES and (file, name) not in KEPT
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "one = 1",
        "for one in (): pass",
        "class A:\n    one: int = 1",
        "self.one = 1",
        "def f(*, one): ...",
        "def one(): ...",
        "import json as one",
        "try: ...\nexcept ValueError as one: ...",
        "(one := 1)",
        "with open('f') as one: ...",
        "match 1:\n    case one: ...",
    ],
)
def test_every_way_to_bind_a_name_is_looked_at(code: str) -> None:
    assert "one" in {name for _, name in bound_names(ast.parse(code))}
