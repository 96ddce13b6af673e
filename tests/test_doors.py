"""The doors of the house: which room may import which, and what stays out of a light import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("curation", "zoo", "training", "pipelines")
MAY_IMPORT = {
    "curation": {"curation"},
    "zoo": {"zoo", "dailies.curation.timing", "dailies.curation.schema", "dailies.curation.video"},
    "training": {"training", "zoo", "dailies.curation.timing", "dailies.curation.schema", "dailies.curation.video"},
    "pipelines": {"pipelines", "training", "zoo", "curation"},
}
RAY_DOORS = {"pipelines/engine.py", "pipelines/workers.py", "curation/captioners/vllm.py"}
# Inside functions only: importing curation must not load torch, which a test below holds.
TORCH_DOORS = {
    "curation/scorers/openclip.py",
    "curation/captioners/coca.py",
    "curation/captioners/decoding.py",
    "curation/scorers/clip.py",
    "curation/scorers/raft.py",
    "scripts/builtin/learning.py",
    "scripts/builtin/train_clip.py",
    "scripts/builtin/train_coca.py",
    "scripts/builtin/train_cuts.py",
}
VIDEO_DOORS = {
    "curation/video/__init__.py",
    "curation/video/decode.py",
    "curation/video/encode.py",
    "curation/video/pixels.py",
    "curation/video/source.py",
    "curation/video/remux.py",
    "curation/video/splice.py",
    "curation/world/encode.py",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def named(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, inside functions too."""
    return tuple(named(ast.walk(tree(path))))


def files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", files(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_doors_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[room]
    for module in imports(path):
        if module.split(".")[0] not in ROOMS or module in ROOMS:
            continue
        inside = any(module == door or module.startswith(f"{door}.") for door in allowed)
        through = any(door.startswith(f"{module}.") for door in allowed)  # `from curation import video`
        assert inside or through, f"{path.relative_to(ROOT)} imports {module}; {room} may import {sorted(allowed)}"


@pytest.mark.parametrize(
    ("library", "doors"),
    [("ray", RAY_DOORS), ("av", VIDEO_DOORS), ("torch", TORCH_DOORS), ("duckdb", {"curation/tables/sql.py"})],
)
def test_heavy_libraries_have_their_doors(library: str, doors: set[str]) -> None:
    rooms = ("curation", "pipelines") if library == "torch" else ROOMS
    users = {
        str(path.relative_to(ROOT))
        for path in files(*rooms)
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users <= doors


def loaded_after(statement: str, blocked: tuple[str, ...] = ()) -> set[str]:
    """Top-level modules loaded by a statement in a fresh interpreter in which ``blocked`` cannot be imported."""
    code = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        f"{statement}\n"
        "print(' '.join(sorted({name.split('.')[0] for name, module in sys.modules.items() if module is not None})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_packages_is_light() -> None:
    assert not loaded_after("import curation, training, zoo") & {"torch", "ray", "av", "cv2", "pyarrow", "duckdb"}


def test_help_is_light() -> None:
    heavy = loaded_after(
        "from typer.testing import CliRunner\nfrom dailies.pipelines.cli.main import app\nCliRunner().invoke(app, ['--help'])"
    )
    assert not heavy & {"torch", "ray", "av", "cv2", "pyarrow", "duckdb", "deltalake"}


def everything(*rooms: str) -> str:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files(*rooms)
    ]
    return "import " + ", ".join(modules)


BARE = ("ray", "decord", "av", "cv2", "scenedetect", "rapidocr", "deltalake", "duckdb")


@pytest.mark.slow  # it imports diffusers, transformers and peft anew
def test_training_and_zoo_work_on_a_bare_gpu_box() -> None:
    assert not loaded_after(everything("training", "zoo"), BARE) & set(BARE)


def test_training_and_zoo_import_nothing_that_a_bare_gpu_box_lacks() -> None:
    left, seen, ours = files("training", "zoo"), set[Path](), set(files(*ROOMS))
    while left:
        path = left.pop()
        seen.add(path)
        for module in named(tree(path).body):  # what stands in functions is imported when they are called
            parts = module.split(".")
            assert parts[0] not in BARE, f"{path.relative_to(ROOT)} imports {module}"
            for end in range(1, len(parts) + 1):
                inside = ROOT.joinpath(*parts[:end])
                left += {inside.with_suffix(".py"), inside / "__init__.py"} & ours - seen
    assert ROOT / "curation" / "schema.py" in seen


def test_curation_works_without_torch() -> None:
    assert "torch" not in loaded_after(everything("curation"), ("torch", "ray", "torchvision", "transformers"))
