"""Specs in recipes: a name with parameters, or an object, becomes an observer, detector, scorer or captioner, and data
again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from pydantic import BeforeValidator, ValidationInfo

from dailies.curation.chat import plain_prompt
from dailies.curation.config import offered
from dailies.curation.errors import RecipeError
from dailies.curation.openclip import OpenClip
from dailies.pipelines.recipes.own import OwnSpec, build, is_own, own_from_file, own_from_object

log = logging.getLogger("dailies")


def spec_of(table: Mapping[str, Any], what: str, *, own: bool = False) -> BeforeValidator:
    """Validate ``NAME``, ``{NAME: {parameter: value}}`` or an object to a spec: of a class in ``table`` or, where ``own``
    says so, of the user's (see ``dailies.pipelines.recipes.own``).

    The validation's context may hold ``folder``, to which files are relative, ``notes``, which lines for people join, and
    ``recorded``, which says that the value is a dataset's word and not the user's.
    """

    def read(value: Any, info: ValidationInfo) -> Any:
        context = info.context or {}
        if type(value) in table.values() or isinstance(value, OwnSpec):
            return value
        if own and not isinstance(value, str | dict | list | tuple | int | float | None):
            return own_from_object(value)
        name, parameters = _named(value, what)
        if name in table:
            return build(table[name], parameters, f"{what} {name}", context)
        if own and is_own(name):
            return own_from_file(name, parameters, context)
        raise RecipeError(f"unknown {what} {name!r}{offered(name, [*table, 'FILE.py:CLASS'] if own else table)}")

    return BeforeValidator(read)


def _named(value: Any, what: str) -> tuple[str, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, dict) or len(value) != 1:
        raise RecipeError(f"{what}={value!r}: not a name, nor one name with its parameters")
    ((name, parameters),) = value.items()
    if not isinstance(parameters or {}, dict):
        raise RecipeError(f"{what} {name}={parameters!r}: its parameters must be a mapping")
    return str(name), parameters or {}


def kind_of(spec: Any, table: Mapping[str, Any]) -> str:
    """Return the name of a spec's class in ``table``; of an own one, its class's name in small letters."""
    return spec.kind if isinstance(spec, OwnSpec) else next(name for name, cls in table.items() if type(spec) is cls)


def spec_data(spec: Any, table: Mapping[str, Any]) -> Any:
    """Return a spec as plain data from which ``spec_of`` makes it again."""
    if isinstance(spec, OwnSpec):
        name, values = spec.reference, dict(spec.parameters)
    else:
        name, values = kind_of(spec, table), changed_values(spec)
    return {name: values} if values else name


def changed_values(spec: Any) -> dict[str, Any]:
    """Return the values of a dataclass that are not its defaults, as plain data."""
    return {
        f.name: plain_prompt(getattr(spec, f.name))
        for f in fields(spec)
        if f.default is MISSING or getattr(spec, f.name) != f.default
    }


def meaning_of(spec: Any) -> list[Any]:
    """Return what a spec's numbers depend on, for fingerprints; a renamed parameter goes by its former name.

    A parameter that came ``later`` than the first tables is left out where it has its default, so that they stay found.
    """
    own = isinstance(spec, OwnSpec)
    inner = spec.spec if own else spec
    means = (
        [f for f in fields(inner) if f.metadata.get("meaning", True)] if hasattr(inner, "__dataclass_fields__") else []
    )
    means = [f for f in means if not (f.metadata.get("later") and getattr(inner, f.name) == f.default)]
    values = {f.metadata.get("formerly", f.name): getattr(inner, f.name) for f in means}
    code = [spec.code] if own and spec.code else []
    return [*spec.identity.rsplit(".", 1), spec.meaning, values, *code]


def observer_meaning(observer: Any) -> list[Any]:
    """Return what an observer's numbers depend on. Few have weights of their own; the names of all others stay."""
    weights = observer.weights() if hasattr(observer, "weights") else None
    return meaning_of(observer) + ([] if weights is None else [weights])


def built_in_models(spec: Any) -> dict[str, str]:
    """Return those parameters of a spec that name a model built in, each as ``zoo:NAME``."""
    from dailies.zoo.formats.references import SCHEME, as_reference

    inner = spec.spec if isinstance(spec, OwnSpec) else spec
    named = {name: getattr(inner, name) for name in spec.models}
    references = {name: as_reference(value) for name, value in named.items() if isinstance(value, str)}
    return {name: value for name, value in references.items() if value.startswith(SCHEME)}


def fetch_models(spec: Any) -> None:
    """Download what ``spec`` names of a library's own models. Where this machine cannot, its workers may: a line says so."""
    inner = spec.spec if isinstance(spec, OwnSpec) else spec
    if isinstance(inner, OpenClip):
        try:
            inner.fetch()
        except (OSError, RuntimeError) as error:
            log.warning(f"model={inner.model}: cannot be downloaded here: {error}")


def resolved(spec: Any) -> Any:
    """Return ``spec`` with a folder for each ``zoo:NAME`` in its ``models``. Raises ``NoSuchModel``."""
    inner = spec.spec if isinstance(spec, OwnSpec) else spec
    named = {name: getattr(inner, name) for name in spec.models}
    named = {name: value for name, value in named.items() if isinstance(value, str) and value.startswith("zoo:")}
    if not named:
        return spec
    from dailies.zoo.catalog import resolve
    from dailies.zoo.default import default_zoo

    folders = {name: str(resolve(value, default_zoo())) for name, value in named.items()}
    return spec.replaced(**folders) if isinstance(spec, OwnSpec) else replace(spec, **folders)
