"""Two captioners beside each other, by captions and similarities that are known."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

import dailies as door
from dailies.curation.caption_measures import chrf, split_words
from dailies.curation.errors import UsageError
from dailies.pipelines.caption_comparing import compare_captions, expected_distinct
from tests import captioned_dataset
from tests.conftest import Dailies

OTHERS = [
    "a red ring",
    "a red ring",
    None,
    "the camera moves slowly",
    "a cross over sand\x1b[31m",
    "one two three four five",
]
FITS = ([0.3, 0.2, 0.9, None, 0.25, 0.1], [0.1, 0.25, None, 0.3, 0.25, 0.4])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, str]]:
    """A dataset, the ids of its captioned clips, and the first captioner's texts."""
    path = tmp_path_factory.mktemp("compared") / "dataset"
    tables, recipe, ids = captioned_dataset.build(
        path, OTHERS, fits=FITS, flags=["against_camera", "a,against_camera", None, None, None, None]
    )
    table = tables.table(recipe.tables()["caption_motion"])
    return path, ids, {row["clip_id"]: row["text"] for row in table.read(["clip_id", "text"]).to_pylist()}


def test_figures_of_each_captioner(dataset: tuple[Path, list[str], dict[str, str]]) -> None:
    path, _, motions = dataset
    told = compare_captions(str(path), "motion", "caption_other")
    other = told.b
    texts = [text for text in OTHERS if text]
    lengths = [len(split_words(text)) for text in texts]
    assert lengths == [3, 3, 4, 5, 5]  # what turns a terminal red has a word of its own
    assert (other.name, other.texts, other.statuses) == ("other", 5, {"ok": 5, "failed": 1})
    assert other.flags == {"against_camera": 2, "a": 1}
    assert (other.mean_length, other.median_length, other.longest) == (4.0, 4, 5)
    assert other.vocabulary == len({word for text in texts for word in split_words(text)})
    assert other.alike == 2
    assert (told.a.texts, told.a.flags) == (len(motions), {})
    assert told.a.longest == max(len(split_words(text)) for text in motions.values())


def test_what_both_say_and_where_each_fits_better(dataset: tuple[Path, list[str], dict[str, str]]) -> None:
    path, ids, motions = dataset
    told = compare_captions(str(path), "motion", "other")
    both = {clip: text for clip, text in zip(ids, OTHERS, strict=True) if text}
    assert told.both == told.compared == 5
    assert told.same == sum(motions[clip] == text for clip, text in both.items())
    assert told.likeness == pytest.approx(sum(chrf(motions[clip], text) for clip, text in both.items()) / 5)
    # Both similarities are known of clips 0, 1, 4 and 5: 0.3/0.1, 0.2/0.25, a tie, 0.1/0.4.
    assert (told.a.wins, told.b.wins, told.ties) == (1, 2, 1)
    assert told.a.similarity == pytest.approx((0.3 + 0.2 + 0.25 + 0.1) / 4)
    assert told.b.similarity == pytest.approx((0.1 + 0.25 + 0.25 + 0.4) / 4)
    assert [pair.clip_id for pair in told.a_fits_better] == [ids[0]]
    assert [pair.clip_id for pair in told.b_fits_better] == [ids[5], ids[1]]  # the farthest first
    turned = compare_captions(str(path), "other", "motion")
    assert (turned.a, turned.b, turned.ties) == (told.b, told.a, told.ties)


def test_samples_follow_from_the_seed(dataset: tuple[Path, list[str], dict[str, str]]) -> None:
    path, ids, motions = dataset
    drawn = [
        [pair.clip_id for pair in compare_captions(str(path), "motion", "other", samples=3, seed=seed).samples]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(each) for each in drawn}) > 1
    assert all(len(set(each)) == 3 and set(each) <= set(ids) for each in drawn)
    (pair,) = compare_captions(str(path), "motion", "other", samples=1).samples
    assert (pair.a, pair.b) == (motions[pair.clip_id], OTHERS[ids.index(pair.clip_id)])


def test_distinct_words_of_equal_samples_are_the_mean_over_all_draws() -> None:
    counts = {"a": 3, "b": 2, "c": 1}
    bag = [word for word, count in counts.items() for _ in range(count)]
    for size in range(1, 7):
        draws = [len(set(draw)) for draw in combinations(bag, size)]
        assert expected_distinct(counts, size) == pytest.approx(sum(draws) / len(draws))


def test_who_wrote_more_has_no_smaller_ratio_for_it(dataset: tuple[Path, list[str], dict[str, str]]) -> None:
    """The ratio is among as many words as the one has that wrote fewer."""
    path, _, motions = dataset
    told = compare_captions(str(path), "motion", "other")
    assert told.b.type_token_ratio == pytest.approx(told.b.vocabulary / 20)
    assert told.a.type_token_ratio is not None
    assert told.a.type_token_ratio > told.a.vocabulary / sum(len(split_words(text)) for text in motions.values())


def test_without_similarities_nobody_wins(tmp_path: Path) -> None:
    captioned_dataset.build(tmp_path / "dataset", ["a", None, "b c", "d"])
    told = door.Dataset(tmp_path / "dataset").compare_captions("motion", "other")
    assert (told.a.wins, told.b.wins, told.ties, told.a.similarity) == (None, None, None, None)
    assert told.a_fits_better == ()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("motion", "othr"), r"othr: no captioner of the last run.*did you mean other"),
        (("motion", "caption_motion"), "the same captioner twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    dataset: tuple[Path, list[str], dict[str, str]], names: tuple[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        compare_captions(str(dataset[0]), *names)


def test_the_command_prints_and_tells_programs(
    dataset: tuple[Path, list[str], dict[str, str]], dailies: Dailies
) -> None:
    path, ids, _ = dataset
    done = dailies("captions", "compare", str(path), "motion", "other")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    rows = {line[:26].strip(): line[26:].split() for line in done.stdout.splitlines()}
    assert rows["fits better"] == ["1", "2"]
    assert "where other fits better" in done.stdout
    assert ids[0] in done.stdout
    assert "a cross over sand" in done.stdout
    told = json.loads(dailies("captions", "compare", str(path), "motion", "other", "--json", "--samples", "2").stdout)
    assert (told["b"]["wins"], told["both"], len(told["samples"])) == (2, 5, 2)
    wrong = dailies("captions", "compare", str(path), "motion", "nobody")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("dailies: nobody: no captioner")
