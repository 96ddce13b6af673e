"""The doors of the house: the table of which room may import which, and what stays out of a light import.

A room is a folder, or a file that stands in one of the four packages by itself. An arrow counts wherever the import stands:
at a module's top, in a function, or for type checking alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("curation", "zoo", "training", "pipelines")

BASE = (
    "curation/addresses",
    "curation/errors",
    "curation/timing",
    "curation/types",
    "curation/geometry",
    "curation/schema",
    "curation/export_schema",
)
READING = (
    *BASE,
    "curation/config",
    "curation/caption_fields",
    "curation/model_folders",
    "curation/atomic",
    "curation/cards",
    "curation/cores",
    "curation/plain_text",
    "curation/litter",
    "curation/packages",
    "curation/parquet_files",
    "curation/policy",
    "curation/progress",
    "curation/downloads",
    "curation/inside",
    "curation/json_columns",
    "curation/locking",
    "curation/retrying",
    "curation/table_files",
    "curation/user_cache",
)
SHARED = (
    *READING,
    "curation/pictures",
    "curation/contact_sheet",
    "curation/video",
)  # all that the zoo and training may know of curation
CURATION = (
    *(
        *SHARED,
        "curation/tables",
        "curation/observers",
        "curation/detectors",
        "curation/camera_words",
        "curation/transformers_folder",
        "curation/caption_measures",
        "curation/chat",
        "curation/openclip",
        "curation/scorers",
        "curation/captioners",
    ),
    *(
        "curation/observe",
        "curation/observations",
        "curation/folders",
        "curation/sources",
        "curation/select",
        "curation/duplicates",
        "curation/clips",
        "curation/cuts",
    ),
    *("curation/export", "curation/world"),
)
TRAINING = (
    *SHARED,
    "zoo/formats",
    "training/recipes",
    "training/models",
    "training/models/vae",
    "training/diffusion",
    "training/data",
)

# Room → the rooms it may import.
ARROWS: dict[str, tuple[str, ...]] = {
    # ---- curation: what is done to one source or one clip ----
    "curation/addresses": (),
    "curation/errors": ("curation/addresses",),
    "curation/policy": ("curation/errors",),
    "curation/progress": (),
    "curation/downloads": ("curation/errors", "curation/progress"),
    "curation/timing": (),
    "curation/schema": ("curation/addresses",),
    "curation/export_schema": ("curation/schema",),
    "curation/json_columns": (),
    "curation/atomic": (),
    "curation/user_cache": (),
    "curation/cards": ("curation/plain_text",),
    "curation/contact_sheet": ("curation/atomic", "curation/plain_text"),
    "curation/cores": (),
    "curation/plain_text": (),
    "curation/litter": (),
    "curation/model_folders": ("curation/errors", "curation/config", "curation/inside"),
    "curation/types": ("curation/timing",),
    "curation/geometry": ("curation/timing", "curation/types"),
    "curation/config": ("curation/errors",),
    "curation/packages": ("curation/errors",),
    "curation/parquet_files": (),
    "curation/pictures": ("curation/errors",),
    "curation/inside": ("curation/errors",),
    "curation/locking": ("curation/errors", "curation/inside"),
    "curation/retrying": ("curation/addresses", "curation/errors"),
    "curation/video": READING,
    "curation/tables": (*READING, "curation/folders"),
    "curation/observers": READING,
    "curation/detectors": (*READING, "curation/observers"),
    "curation/caption_fields": ("curation/errors", "curation/plain_text"),
    "curation/caption_measures": ("curation/plain_text",),
    "curation/camera_words": ("curation/observers",),
    "curation/transformers_folder": (
        "curation/errors",
        "curation/config",
        "curation/inside",
        "curation/downloads",
        "curation/litter",
    ),
    "curation/openclip": (*READING, "curation/video"),
    "curation/chat": (*SHARED, "curation/transformers_folder"),
    "curation/scorers": (
        *SHARED,
        "curation/observers",
        "curation/openclip",
        "curation/chat",
        "curation/camera_words",
        "curation/transformers_folder",
        "curation/caption_measures",
    ),
    "curation/captioners": (
        *SHARED,
        "curation/observers",
        "curation/openclip",
        "curation/scorers",
        "curation/chat",
        "curation/camera_words",
        "curation/caption_measures",
    ),
    "curation/table_files": ("curation/addresses", "curation/errors", "curation/parquet_files"),
    "curation/manifests": (*SHARED, "curation/table_files"),
    "curation/folders": ("curation/plain_text",),
    "curation/sources": (*SHARED, "curation/folders", "curation/manifests"),
    "curation/select": (*READING, "curation/tables"),
    "curation/duplicates": (*SHARED, "curation/caption_measures"),
    "curation/observe": (*SHARED, "curation/observers"),
    "curation/observations": (*SHARED, "curation/observers", "curation/observe"),
    "curation/clips": (
        *READING,
        "curation/observers",
        "curation/detectors",
        "curation/observe",
        "curation/observations",
    ),
    "curation/cuts": (*SHARED, "curation/observers", "curation/detectors", "curation/observe", "curation/clips"),
    "curation/export": (*SHARED, "curation/tables", "curation/clips"),
    "curation/world": (*READING, "curation/video"),
    # ---- zoo: models that people list, trust, run and publish ----
    "zoo/formats": READING,
    "zoo": (*SHARED, "curation/folders", "zoo/formats"),
    # ---- training: a network, phase by phase ----
    "training/recipes": READING,
    "training/models": (*READING, "zoo/formats", "training/recipes"),
    "training/models/vae": (*READING, "zoo/formats", "training/models"),
    "training/diffusion": TRAINING[:-2],
    "training/data": TRAINING[:-1],
    "training": TRAINING,
    "training/vae": (*TRAINING, "training"),
    "training/captioner": (*TRAINING, "training", "curation/chat", "curation/openclip"),
    # ---- pipelines: Ray and recipes around curation, training and the zoo ----
    "pipelines/recipes": (*CURATION, "zoo", "zoo/formats"),
    "pipelines": (*CURATION, "zoo", *TRAINING, "training", "training/vae", "training/captioner", "pipelines/recipes"),
    "pipelines/latents": (*CURATION, "zoo", *TRAINING, "training", "pipelines"),
    "pipelines/report": (*CURATION, "pipelines", "pipelines/recipes"),
    "pipelines/cli": (
        *CURATION,
        "zoo",
        *TRAINING,
        "training",
        "training/vae",
        "training/captioner",
        "pipelines",
        "pipelines/latents",
        "pipelines/recipes",
        "pipelines/report",
    ),
}
RAY_DOORS = {
    *(f"pipelines/{name}.py" for name in ("clusters", "engine", "private_cluster", "workers")),
    "curation/chat/vllm_chat.py",  # inside of functions alone
}
# Inside functions only: importing curation must not load torch, which a test below holds.
TORCH_DOORS = {
    "curation/captioners/coca.py",
    "curation/openclip/coca_steps.py",
    "curation/openclip/decoding.py",
    "curation/chat/chat_folder.py",
    "curation/chat/generation.py",
    "curation/chat/inputs.py",
    "curation/scorers/aesthetic_heads.py",
    "curation/scorers/craft.py",
    "curation/scorers/encoders.py",
    "curation/scorers/image_classifier.py",
    "curation/scorers/raft.py",
    "curation/scorers/state_dict.py",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module or name that a file imports, inside functions too."""
    return tuple(imported(ast.walk(tree(path))))


def files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


MODULES = {
    ".".join(("dailies", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in files(*PACKAGES)
}


@cache
def file_of(name: str) -> Path | None:
    """The file of ours in which an imported name is defined or passed on."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return MODULES.get(name)


def room_of(path: Path) -> str:
    folder, relative = path.parent.relative_to(ROOT).as_posix(), path.relative_to(ROOT).with_suffix("").as_posix()
    if folder == "curation" and path.stem != "__init__":
        return relative
    return folder


@cache
def arrows() -> dict[str, set[tuple[str, str]]]:
    """Room → (file, imported room) for all that it imports of the others."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in files(*PACKAGES):
        for name in imports(path):
            target = file_of(name)
            if target is not None and room_of(target) != room_of(path):
                found.setdefault(room_of(path), set()).add((str(path.relative_to(ROOT)), room_of(target)))
    return found


@pytest.mark.parametrize("room", sorted({room_of(path) for path in files(*PACKAGES)} - {"curation"}))
def test_a_room_imports_what_the_table_allows(room: str) -> None:
    assert room in ARROWS, f"{room} is a new room: say in ARROWS what it may import"
    strangers = sorted((file, target) for file, target in arrows().get(room, ()) if target not in ARROWS[room])
    assert not strangers, f"{room} may not import these: {strangers}"


def test_the_table_holds_rooms_that_there_are() -> None:
    assert set(ARROWS) == {room_of(path) for path in files(*PACKAGES)} - {"curation"}


def test_there_is_no_circle_among_rooms() -> None:
    graph = {room: {target for _, target in targets} for room, targets in arrows().items()}
    assert "curation/errors" in graph["training/data"]  # the arrows are found at all
    TopologicalSorter(graph).prepare()  # raises CycleError naming the circle


def test_there_is_no_circle_among_the_files_of_a_room() -> None:
    for room in ARROWS:
        inside = [path for path in files(*PACKAGES) if room_of(path) == room and path.stem != "__init__"]
        graph = {
            str(path.relative_to(ROOT)): {
                str(target.relative_to(ROOT))
                for name in imports(path)
                if (target := file_of(name)) is not None and target in inside and target != path
            }
            for path in inside
        }
        TopologicalSorter(graph).prepare()  # raises CycleError naming the circle


@pytest.mark.parametrize(
    "door", [path for path in files(*PACKAGES) if path.stem == "__init__"], ids=lambda path: room_of(path)
)
def test_a_door_says_what_it_is_and_what_may_be_used(door: Path) -> None:
    name = next(name for name, path in MODULES.items() if path == door)
    module = import_module(name)
    assert (module.__doc__ or "").strip(), "a door says in a sentence what the room is"
    for offered in module.__all__:
        assert hasattr(module, offered) or f"{name}.{offered}" in MODULES


def test_rooms_are_entered_by_what_their_doors_offer() -> None:
    """From outside, only names and modules in a room's ``__all__`` are used, from its door or from where they are defined."""
    strangers = []
    for path in files(*PACKAGES):
        for name in imports(path):
            target = file_of(name)
            room = room_of(target) if target is not None else ""
            if target is None or room == room_of(path) or not (ROOT / room).is_dir():
                continue
            door = f"dailies.{room.replace('/', '.')}"
            offered = set(import_module(door).__all__)
            if name != door and not offered & set(name.removeprefix(f"{door}.").split(".")):
                strangers.append(f"{path.relative_to(ROOT)} uses {name}: {door} does not offer it")
    assert not strangers


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_door_stays_light(package: str) -> None:
    """A package's own door imports nothing of ours when it is loaded: rooms are opened by name."""
    assert not [name for name in imported(tree(ROOT / package / "__init__.py").body) if name.startswith("dailies.")]


# ---- one copy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_a_second_copy_of_a_package_cannot_be_imported(package: str) -> None:
    """From the repository's root the folders could be imported by their bare names: that would be another copy."""
    command = [sys.executable, "-c", f"import {package}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert f"import dailies.{package}" in done.stderr.splitlines()[-1]


def test_nothing_names_the_packages_without_their_namespace() -> None:
    for folder in (*PACKAGES, "src", "tests", "benchmarks", "scripts", "examples"):
        for path in files(folder):
            bare = [name for name in imports(path) if name.split(".")[0] in PACKAGES]
            assert not bare, f"{path.relative_to(ROOT)} imports {bare[0]}: say dailies.{bare[0]}"


# ---- heavy libraries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("ray", RAY_DOORS),
        ("torch", TORCH_DOORS),
        ("duckdb", {"curation/tables/sql.py", "curation/tables/sql_errors.py"}),
    ],
)
def test_heavy_libraries_have_their_doors(library: str, doors: set[str]) -> None:
    packages = ("curation", "pipelines") if library == "torch" else PACKAGES
    users = {
        str(path.relative_to(ROOT))
        for path in files(*packages)
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users == doors, "a door that nobody uses is taken off the list"


def test_av_is_imported_in_the_video_room_alone() -> None:
    users = {room_of(path) for path in files(*PACKAGES) if any(m.split(".")[0] == "av" for m in imports(path))}
    assert users <= {"curation/video", "curation/world"}


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
    statement = "import dailies, dailies.curation, dailies.training, dailies.zoo, dailies.pipelines"
    assert not loaded_after(statement) & {"torch", "ray", "av", "cv2", "pyarrow", "duckdb", "numpy"}


def test_help_is_light() -> None:
    heavy = loaded_after(
        "from typer.testing import CliRunner\n"
        "from dailies.pipelines.cli.main import app\n"
        "CliRunner().invoke(app, ['--help'])"
    )
    assert not heavy & {"torch", "ray", "av", "cv2", "pyarrow", "duckdb", "deltalake"}


def everything(*packages: str) -> str:
    return "import " + ", ".join(name for name, path in MODULES.items() if path.relative_to(ROOT).parts[0] in packages)


BARE = ("ray", "decord", "av", "cv2", "scenedetect", "rapidocr", "deltalake", "duckdb")


@pytest.mark.slow  # it imports diffusers, transformers and peft anew
def test_training_and_zoo_work_on_a_bare_gpu_box() -> None:
    assert not loaded_after(everything("training", "zoo"), BARE) & set(BARE)


def test_training_and_zoo_import_nothing_that_a_bare_gpu_box_lacks() -> None:
    left, seen = files("training", "zoo"), set[Path]()
    while left:
        path = left.pop()
        seen.add(path)
        for module in imported(tree(path).body):  # what stands in functions is imported when they are called
            assert module.split(".")[0] not in BARE, f"{path.relative_to(ROOT)} imports {module}"
            if (target := file_of(module)) is not None and target not in seen:
                left.append(target)
    assert ROOT / "curation" / "schema.py" in seen


def test_curation_works_without_torch() -> None:
    assert "torch" not in loaded_after(everything("curation"), ("torch", "ray", "torchvision", "transformers"))
