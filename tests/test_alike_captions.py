"""Captions that are nearly the same are counted: planted groups are found, others stay apart, and rules can cap them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dailies.curation import schema
from dailies.curation.duplicates import caption_groups
from dailies.curation.errors import RecipeError
from dailies.curation.tables import DatasetTables
from dailies.pipelines import again
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.run_rows import record_run
from tests import report_dataset

WORDS = [f"w{number}" for number in range(4000)]


def drawn(count: int, length: int, seed: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [[WORDS[at] for at in draw.integers(0, len(WORDS), length)] for _ in range(count)]


def test_nearly_the_same_by_hand() -> None:
    texts = [
        "A red ring, over a grey background.",
        "a red ring over a grey background",  # the same words
        "a blue ring over a grey background",  # 9 of 15 words and pairs: 0.6
        None,
        "…",
        "slow motion",
    ]
    assert caption_groups(texts, 0.8).tolist() == [0, 0, 2, -1, -1, 5]
    assert caption_groups(texts, 0.6).tolist() == [0, 0, 0, -1, -1, 5]
    assert caption_groups(texts, 0.61).tolist() == [0, 0, 2, -1, -1, 5]
    assert caption_groups([], 0.8).tolist() == []
    assert caption_groups(["b a", "a b"], 0.8).tolist() == [0, 1]  # 2 of 4: the order of words counts


def test_planted_groups_are_found_and_others_stay_apart() -> None:
    """Of 2,000 captions of 40 words each, 300 come again with one word changed, which leaves at least 0.9."""
    texts = drawn(2000, 40, seed=1)
    changed = [[*text[:20], "other", *text[21:]] for text in texts[:300]]
    order = np.random.default_rng(2).permutation(2300)
    together = [(texts + changed)[at] for at in order]
    groups = caption_groups([" ".join(text) for text in together], 0.8)
    place = np.argsort(order)
    sizes = np.bincount(groups, minlength=2300)
    copied = groups[place[:300]] == groups[place[2000:]]
    assert copied.mean() == 1.0
    assert (sizes[groups[place[300:2000]]] == 1).all()


def test_a_caption_that_all_clips_share_is_one_group_at_once() -> None:
    groups = caption_groups(["a man talks"] * 200_000 + ["a dog"], 0.8)
    assert (groups[:-1] == 0).all()
    assert groups[-1] == 200_000


def with_dedup(step: dict[str, Any]) -> list[dict[str, Any]]:
    at = next(number for number, other in enumerate(report_dataset.STEPS) if "select" in other)
    return [*report_dataset.STEPS[:at], {"dedup": {"perceptual": False, **step}}, *report_dataset.STEPS[at:]]


def test_clips_are_counted_and_capped_by_what_their_captions_say(tmp_path: Path) -> None:
    """The dataset's captions say "the camera moves slowly" with no, one, two or three times "very": the last three are
    nearly the same."""
    truth = report_dataset.build(tmp_path / "dataset", 60)
    recipe = parse_recipe({"name": "reported", "steps": with_dedup({"captions": {"caption": "caption_motion"}})})
    dataset = DatasetTables.open(truth.path)
    record_run(dataset, recipe)
    again.dedup_again(str(truth.path), [], engine="local", workers=1)
    table = dataset.table(recipe.tables()["dedup"])
    rows = {row["clip_id"]: row for row in table.read().to_pylist()}
    captions = dataset.table(recipe.tables()["caption_motion"]).read(["clip_id", "text"]).to_pylist()
    kinds: dict[str, list[str]] = {"none": [], "very": [], "hostile": []}
    for row in captions:
        kind = "hostile" if "script" in row["text"] else "very" if "very" in row["text"] else "none"
        kinds[kind].append(row["clip_id"])
    assert min(map(len, kinds.values())) == 1
    for ids in kinds.values():
        name = min(ids) if len(ids) > 1 else None
        told = {(rows[each]["captions_alike_group"], rows[each]["captions_alike"]) for each in ids}
        assert told == {(name, len(ids))}
    settings = ["main.at_most={captions_alike_group: {count: 2}}", "main.rules={}", "main.duplicates=keep"]
    assert again.select_again(str(truth.path), "main", settings).reasons["captions_alike_group_cap"] == sum(
        max(0, len(ids) - 2) for ids in kinds.values()
    )
    # A source that goes takes its clips out of the counts.
    gone = next(
        row["source_id"] for row in dataset.table(recipe.clips).read().to_pylist() if row["clip_id"] in kinds["very"]
    )
    lost = [each for each in kinds["very"] if rows[each]["source_id"] == gone]
    dataset.withdraw([gone])
    left = {row["clip_id"]: row for row in table.read().to_pylist()}
    assert {left[each]["captions_alike"] for each in kinds["very"] if each in left} == {len(kinds["very"]) - len(lost)}


def test_tables_of_steps_without_captions_keep_their_names() -> None:
    plain, off, on, stricter = (
        parse_recipe({"name": "reported", "steps": with_dedup(step)}).tables()["dedup"]
        for step in (
            {},
            {"captions": False},
            {"captions": {"caption": "caption_motion"}},
            {"captions": {"caption": "caption_motion", "similarity": 0.9}},
        )
    )
    assert plain == off
    assert len({plain, on, stricter}) == 3


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"captions": {"caption": "caption_coca"}}, "no earlier step writes captions by that name.*caption_motion"),
        ({"captions": {"caption": "text_area"}}, "no earlier step writes captions"),
        ({"captions": {"caption": "caption_motion", "similarity": 0}}, "similarity=0"),
    ],
)
def test_a_step_that_cannot_compare_captions_is_refused(step: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe({"name": "reported", "steps": with_dedup(step)})


def test_the_columns_are_of_the_table() -> None:
    assert set(pa.schema(schema.ALIKE_COLUMNS).names).isdisjoint(schema.DUPLICATES.names)
