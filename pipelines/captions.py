"""Training that reads captions, and exports without them: said before any work, with the command that makes them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dailies.curation import inside
from dailies.curation.errors import DailiesError, ExportError
from dailies.curation.litter import without_litter
from dailies.curation.parquet_files import open_parquet
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe

RECIPES = (
    "captioned",
    "svd",
)  # of curation, the lighter first; the built-in recipes of training read what one of them makes
WITH_VALUE = frozenset({"--out", "-o", "--recipe", "-r", "--set", "-s", "--engine", "--column", "--readmit"})
KEPT = frozenset({"--allow-local", "--allow-private-hosts", "--no-links", "--private-sources", "--column"})
MOST_SOURCES = 4  # of a command that is shown


def reads_captions(phase: Phase) -> bool:
    """Return whether a phase reads captions of clips, as text-to-image and text-to-video do; what begins with an image
    reads none."""
    of_clips = phase.images == "frames" or phase.task_spec.video
    return of_clips and phase.task_spec.cross_attention == "text"


def check_captions(recipe: TrainingRecipe, phases: Sequence[Phase], exports: Mapping[str, str]) -> None:
    """Raise ``ExportError`` where an export lacks a column of captions that ``phases`` read, with the command that makes it.

    ``exports``: folders by the names that mixes have for them. Reads one footer of each.
    """
    for line in missing_captions(recipe, phases, exports):
        raise ExportError(line)


def missing_captions(recipe: TrainingRecipe, phases: Sequence[Phase], exports: Mapping[str, str]) -> list[str]:
    """Return a line on each export that lacks captions which ``phases`` read."""
    lines = []
    for name, folder in exports.items():
        readers = [
            phase.name for phase in phases if reads_captions(phase) and name in [share.data for share in phase.shares]
        ]
        there = _columns(folder) if readers else None
        lacking = [] if there is None else [column for column, _ in recipe.captions if column not in there]
        if there is not None and lacking:
            lines.append(_line(recipe, readers, phases, folder, lacking, there))
    return lines


def _columns(export: str) -> list[str] | None:
    """Return the columns of an export's first shard; None where there is none that can be read, which is said elsewhere."""
    try:
        shards = list(without_litter(Path(export) / "data", "*.parquet"))
        if not shards:
            return None
        with open_parquet(inside.inside(export, f"data/{shards[0].name}")) as file:
            return list(file.schema_arrow.names)
    except (OSError, ValueError, DailiesError):
        return None


def _line(
    recipe: TrainingRecipe,
    readers: Sequence[str],
    phases: Sequence[Phase],
    export: str,
    lacking: Sequence[str],
    there: Sequence[str],
) -> str:
    others = [phase.name for phase in phases if not reads_captions(phase)]
    free = f" ({', '.join(others)}: none)" if others else ""
    who = f"caption: phase{'s' * (len(readers) > 1)} {', '.join(readers)} of {recipe.name} read {', '.join(lacking)}{free}"
    makers = [name for name in RECIPES if set(lacking) <= _captions_by(name)]
    has = [column for column in there if column.startswith("caption_")]
    if has:
        advice = f"which has {', '.join(has)}; take one: --set caption={has[-1]}"
        if makers:
            advice += f", or make it: {curate_command(export, makers[0])}"
    elif makers:
        command = curate_command(export, makers[0])
        advice = f"which has no captions; make them: {command} (then train on the export that it prints)"
    else:
        advice = "which has no captions; curate with a recipe whose caption step makes it"
    return f"{who}, not in {export}, {advice}"


def _captions_by(name: str) -> set[str]:
    """Return the captions that a built-in recipe of curation makes."""
    from dailies.pipelines.recipes.recipe import load_recipe
    from dailies.pipelines.recipes.steps import CaptionStep

    return {step.name for step in load_recipe(name).steps if isinstance(step, CaptionStep)}


def curate_command(export: str, recipe: str = RECIPES[0]) -> str:
    """Return the command that curates the sources of an export's dataset again, with captions by ``recipe``.

    The sources are those of the last ``dailies curate`` where they are still there; else ``SOURCE…`` stands for them.
    """
    dataset = Path(export).resolve().parent.parent
    if not (dataset / "dataset.json").is_file():
        return f"dailies curate SOURCE… --out DATASET --recipe {recipe}"
    sources, options = _last_curated(dataset)
    arguments = [*map(shlex.quote, sources)] if sources else ["SOURCE…"]
    return " ".join(
        ["dailies curate", *arguments, "--out", shlex.quote(_near(dataset)), f"--recipe {recipe}", *options]
    )


def _near(path: Path) -> str:
    """Return a path as seen from the working directory, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path != here and path.is_relative_to(here) else str(path)


def _last_curated(dataset: Path) -> tuple[list[str], list[str]]:
    """Return the sources of the last ``dailies curate`` over a dataset, if they are there, and the options they came with."""
    from dailies.curation.tables import DatasetTables

    try:
        commands = DatasetTables.open(dataset).runs(["command"])["command"].to_pylist()
    except DailiesError:
        return [], []
    for command in reversed(commands):
        arguments = (command or "").split(" ")
        if "curate" in arguments[1:2]:
            return _sources_of(arguments[2:])
    return [], []


def _sources_of(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sources and the kept options of a command's arguments; no sources where one of them is not there.

    The arguments were joined by spaces, so a name with a space in it has come apart; such ones are not there.
    """
    sources: list[str] = []
    options: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            sources.append(word)
            continue
        name, equals, _ = word.partition("=")
        taken = [word, left.pop(0)] if name in WITH_VALUE and not equals and left else [word]
        options += map(shlex.quote, taken if name in KEPT else [])
    there = all("://" in source or Path(source).expanduser().exists() for source in sources)
    return (sources if there and len(sources) <= MOST_SOURCES else []), options
