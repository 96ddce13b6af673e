"""What a command imports is what its user waits for: here is what each may load, since times are for a benchmark.

``python benchmarks/startup.py`` measures them. A new import at a module's top shows here by its library's name.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import world
from dailies.pipelines.recipes.recipe import load_recipe, parse_recipe
from dailies.pipelines.run import curate

RECIPE = str(Path(__file__).parent / "plain.yaml")
HEAVY = {
    *("PIL", "accelerate", "aiohttp", "av", "cv2", "datasets", "decord", "deltalake", "diffusers", "duckdb", "easyocr"),
    *("fsspec", "huggingface_hub", "jinja2", "markdown_it", "numpy", "omegaconf", "onnxruntime", "open_clip", "pandas"),
    *("peft", "pyarrow", "pydantic", "pygments", "rapidocr", "ray", "requests", "safetensors", "scenedetect", "scipy"),
    *("tensorboard", "tokenizers", "torch", "torchvision", "transformers", "yaml"),
}
OPTIONS = {"pydantic"}  # typer reads them with it
RECIPES = {*OPTIONS, "yaml", "numpy", "pyarrow", "cv2"}
TABLES = {*OPTIONS, "yaml", "numpy", "pyarrow", "deltalake"}

# What is asked → its arguments, the code that it ends with, and which of the heavy libraries it may load.
COMMANDS: dict[str, tuple[Sequence[str], int, set[str]]] = {
    "help": (["--help"], 0, set()),
    "help of a command": (["train", "--help"], 0, OPTIONS),
    "models": (["zoo", "list", "--zoo", "zoo"], 0, {*OPTIONS, "yaml"}),
    "a misspelled step": (["curate", "videos", "--out", "other", "--set", "observ.fps=1"], 2, RECIPES),
    "a misspelled field": (["train", "tiny", "--dry-run", "--set", "stepz=1"], 2, RECIPES - {"cv2"}),
    "a recipe checked": (["recipe", "check", "cpu"], 0, RECIPES),
    "two recipes": (["recipe", "diff", "cpu", "svd"], 0, RECIPES),
    "nothing to do": (
        ["curate", "videos", "--out", "dataset", "-r", RECIPE, "--engine", "local"],
        0,
        {*RECIPES, *TABLES, "duckdb"},
    ),
    "select": (["select", "dataset"], 0, {*RECIPES, *TABLES, "duckdb"}),
    "diff": (["diff", "dataset", "main", "main"], 0, {*RECIPES, *TABLES, "duckdb"}),
    "captions": (["captions", "compare", "dataset", "a", "b"], 2, RECIPES | TABLES),
    "info": (["info", "dataset"], 0, RECIPES | TABLES),
    "stats": (["stats", "dataset"], 0, RECIPES | TABLES),
    "report": (["report", "dataset"], 0, {*RECIPES, *TABLES, "jinja2", "PIL"}),
    "sql": (["sql", "dataset", "select 1"], 0, {*TABLES, "duckdb"}),
}

RUN = """
import sys
from dailies.__main__ import main
try:
    main()
except SystemExit as ended:
    code = ended.code or 0
print(code, *sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one short video, and the dataset that it was curated into."""
    folder = tmp_path_factory.mktemp("startup")
    (folder / "videos").mkdir()
    world.encode(world.write_script(1, shots=2, size=(160, 90), shot_frames=(30, 40)), folder / "videos" / "a.mp4")
    curate([str(folder / "videos")], str(folder / "dataset"), load_recipe(RECIPE), engine="local")
    return folder


@pytest.mark.parametrize("asked", COMMANDS)
def test_a_command_loads_what_it_uses(asked: str, folder: Path) -> None:
    arguments, code, allowed = COMMANDS[asked]
    done = python(RUN, *arguments, folder=folder)
    ended, *loaded = done.stdout.splitlines()[-1].split()
    assert int(ended) == code, done.stderr
    assert HEAVY & set(loaded) <= allowed


def python(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


PANDAS = """
import sys
from dailies.pipelines.cli.lazy_pandas import keep_pandas_out, process_is_ours
process_is_ours()
keep_pandas_out()
import pyarrow, pyarrow.dataset
pyarrow.array([1]), pyarrow.scalar(1.0)
assert "pandas" not in sys.modules
import pandas
assert pyarrow.array(pandas.Series([1.0, float("nan")])).null_count == 1, "a column of pandas is not known"
assert list(pyarrow.table({"x": [1, 2]}).to_pandas()["x"]) == [1, 2]
assert pyarrow.Table.from_pandas(pandas.DataFrame({"x": [1, 2]})).num_rows == 2
"""


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas_works_once_something_imports_it(tmp_path: Path) -> None:
    python(PANDAS, folder=tmp_path)


def test_a_recipe_with_a_scorer_of_the_users_is_known(tmp_path: Path) -> None:
    """It may use pandas in any way, so that pyarrow must know all of it."""
    (tmp_path / "own.py").write_text(
        "import pyarrow as pa\n\n\nclass Own:\n    columns = (pa.field('own', pa.float32()),)\n\n    def open(self): ...\n"
    )
    steps: list[dict[str, Any]] = [
        {"observe": {"observers": ["boundary"]}},
        {"cut": {"detector": "boundary"}},
        {"score": {"scorer": "own.py:Own"}},
    ]
    assert parse_recipe({"name": "own", "steps": steps}, folder=tmp_path).runs_own_code
    assert not parse_recipe({"name": "none", "steps": steps[:2]}).runs_own_code


HELP = """
from dailies.pipelines.cli.quick_help import prepare_help
prepare_help(["--help"])
import typer.rich_utils, rich.markdown, rich.traceback
assert type(typer.rich_utils.Markdown("*a*")) is rich.markdown.Markdown
assert typer.rich_utils.Traceback.extract is not None
"""


def test_what_help_leaves_out_is_there_when_it_is_used(tmp_path: Path) -> None:
    python(HELP, folder=tmp_path)
