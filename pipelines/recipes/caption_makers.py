"""Who wrote the captions of an export, for its card and for those of the models that are trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dailies.curation.caption_fields import FORMAT
from dailies.curation.captioners import CAPTIONERS, model_name
from dailies.curation.captioners.best import BestCaptioner
from dailies.curation.chat import prompt_hash
from dailies.curation.export import CaptionMaker
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.specs import built_in_models, kind_of, resolved
from dailies.pipelines.recipes.steps import CaptionStep, ExportStep


def caption_makers(recipe: CurationRecipe, step: ExportStep) -> dict[str, CaptionMaker]:
    """Return the maker of each column of captions that an export of ``step`` has."""
    makers: dict[str, CaptionMaker] = {}
    for earlier in recipe.before(step):
        if isinstance(earlier, CaptionStep):
            makers[earlier.name] = _maker(earlier, makers)
    return makers


def _maker(step: CaptionStep, before: Mapping[str, CaptionMaker]) -> CaptionMaker:
    """Return the maker of a step's captions; ``before``: those of earlier steps."""
    spec = step.captioner
    inner = spec.spec if isinstance(spec, OwnSpec) else spec
    model = built_in_models(spec).get("model") or getattr(inner, "model", None)
    told = getattr(inner, "told", None) or getattr(inner, "prompt", None)
    return CaptionMaker(
        captioner=kind_of(spec, CAPTIONERS),
        model=None if model is None else model_name(model),
        revision=resolved(spec).weights(),
        prompt_hash=None if told is None else prompt_hash(told),
        format=_format(inner, before),
    )


def _format(captioner: Any, before: Mapping[str, CaptionMaker]) -> int | None:
    """Return the version of the serializer that wrote the texts; None where not all of them are written by one."""
    if isinstance(captioner, BestCaptioner):  # which copies them
        formats = {before[name].format if name in before else None for name in captioner.captions}
        return formats.pop() if len(formats) == 1 else None
    return FORMAT if getattr(captioner, "fields", False) is True else None
