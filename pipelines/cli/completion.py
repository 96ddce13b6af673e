"""What a shell completes beside commands and options: names that a value may have. Hardly anything is imported for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

PACKAGE = Path(__file__).resolve().parents[2]


def choice(choices: str) -> dict[str, Any]:
    """Return the settings of an option that takes one of ``choices``, which are joined by ``|``."""
    plain = [word.partition("[")[0] for word in choices.split("|")]

    def complete(incomplete: str) -> list[str]:
        return _begun(plain, incomplete)

    return {"metavar": choices, "autocompletion": complete}


def named(names: Callable[..., Iterable[str]]) -> dict[str, Any]:
    """Return the setting of a parameter whose value is one of ``names()``, or of something that has no list."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return _begun(names(ctx), incomplete)

    return {"autocompletion": complete}


def _begun(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


# ---- names ----------------------------------------------------------------------------------------------------------


def curation_recipes(ctx: typer.Context) -> list[str]:
    return sorted(path.stem for path in (PACKAGE / "pipelines" / "recipes").glob("*.yaml"))


def parts_of_recipes(ctx: typer.Context) -> list[str]:
    """Return what ``dailies recipe explain`` takes beside recipes: the modules that observers, scorers … are in."""
    rooms = ("observers", "detectors", "scorers", "captioners")
    modules = [path.stem for room in rooms for path in (PACKAGE / "curation" / room).glob("[a-z]*.py")]
    return sorted({*curation_recipes(ctx), *modules})


def phases(ctx: typer.Context) -> list[str]:
    """Return the phases of the training recipe that the command line names already."""
    from dailies.training.recipes import RECIPES

    typed = [ctx.params.get("recipe"), *ctx.args]  # not parsed yet where the last option still lacks its value
    recipe = next((word for word in typed if word in RECIPES), None)
    return [] if recipe is None else [phase.name for phase in RECIPES[recipe]().phases]


def zoo_models(ctx: typer.Context) -> list[str]:
    from dailies.zoo.default import default_zoo
    from dailies.zoo.formats.references import BUILTIN
    from dailies.zoo.store import Store

    built_in = [path.parent.name for path in BUILTIN.glob("*/model.json")]
    return sorted([*built_in, *Store(ctx.params.get("zoo") or default_zoo()).names()])


def zoo_references(ctx: typer.Context) -> list[str]:
    """Return the models that ship with dailies as options take them."""
    return [f"zoo:{path.parent.name}" for path in sorted((PACKAGE / "zoo" / "builtin").glob("*/model.json"))]
