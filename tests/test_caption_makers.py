"""What a card says of captions is what their table says."""

from __future__ import annotations

from typing import Any

import pytest

from dailies.curation.caption_fields import FORMAT
from dailies.curation.captioners.captions import caption_table
from dailies.curation.chat import Reply, prompt_hash
from dailies.curation.export import CaptionMaker
from dailies.pipelines.recipes.caption_makers import caption_makers
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.recipes.steps import ExportStep
from tests.test_describe import a_clip

CLIPS = [{"observe": {"observers": ["boundary"]}}, {"cut": {"detector": "boundary"}}]


def endpoint(name: str, **how: Any) -> dict[str, Any]:
    return {"caption": {"captioner": {"endpoint": {"url": "http://localhost:1/v1", "model": "m", **how}}, "name": name}}


def makers(*steps: dict[str, Any]) -> tuple[Any, dict[str, CaptionMaker]]:
    recipe = parse_recipe({"name": "r", "steps": [*CLIPS, *steps, {"select": {}}, {"export": {}}]})
    return recipe, caption_makers(recipe, recipe.step(ExportStep))


@pytest.mark.parametrize(
    "how", [{}, {"fields": True}, {"system": "You are brief."}, {"fields": True, "system": "Be brief."}]
)
def test_card_and_table_have_one_hash_of_all_that_the_model_was_told(how: dict[str, Any]) -> None:
    recipe, cards = makers(endpoint("one", **how))
    spec = recipe.before(None)[-1].spec
    reply = Reply(text='{"subject": "a dog"}', model="m")
    (row,) = caption_table([spec.caption(a_clip(), reply, spec.told)]).to_pylist()
    assert cards["caption_one"].prompt_hash == row["prompt_hash"]
    assert (row["prompt_hash"] == prompt_hash("describe")) is (how == {})


def test_the_best_of_captions_of_fields_are_captions_of_fields() -> None:
    best = {"caption": {"captioner": {"best": {"captions": ["caption_one", "caption_two"]}}}}
    _, cards = makers(endpoint("one", fields=True), endpoint("two", fields=True, seed=1), best)
    assert {name: card.format for name, card in cards.items()} == dict.fromkeys(cards, FORMAT)
    _, cards = makers(endpoint("one", fields=True), endpoint("two"), best)
    assert cards["caption_best"].format is None
