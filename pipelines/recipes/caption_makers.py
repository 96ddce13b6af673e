"""Who wrote the captions of an export, for its card and for those of the models that are trained on it."""

from __future__ import annotations

from dailies.curation.caption_fields import FORMAT
from dailies.curation.captioners import CAPTIONERS, model_name
from dailies.curation.chat import prompt_hash
from dailies.curation.export import CaptionMaker
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.specs import built_in_models, kind_of, resolved
from dailies.pipelines.recipes.steps import CaptionStep, ExportStep


def caption_makers(recipe: CurationRecipe, step: ExportStep) -> dict[str, CaptionMaker]:
    """Return the maker of each column of captions that an export of ``step`` has."""
    return {earlier.name: _maker(earlier) for earlier in recipe.before(step) if isinstance(earlier, CaptionStep)}


def _maker(step: CaptionStep) -> CaptionMaker:
    spec = step.captioner
    inner = spec.spec if isinstance(spec, OwnSpec) else spec
    model = built_in_models(spec).get("model") or getattr(inner, "model", None)
    prompt = getattr(inner, "prompt", None)
    return CaptionMaker(
        captioner=kind_of(spec, CAPTIONERS),
        model=None if model is None else model_name(model),
        revision=resolved(spec).weights(),
        prompt_hash=None if prompt is None else prompt_hash(prompt),
        format=FORMAT if getattr(inner, "fields", False) is True else None,
    )
