"""Training recipes: hashes and run.json that outlive renames, ``--set``, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys

import pytest

from dailies.curation.errors import RecipeError
from dailies.training.recipes import RECIPES, TrainingRecipe, UNetSpec, load_recipe
from dailies.training.recipes.old_names import to_new_names, to_old_names

# Hashes that runs have been begun with, by recipe. They must never change. (svd's did once, before any release, when the
# captions that it draws from became the paper's three.)
HASHES = {"tiny": "87f9a734", "svd": "1a98874b", "finetune": "d84d645f", "lora": "e806ba95"}


def before() -> TrainingRecipe:
    """A recipe of a run that was trained when ``unet`` was called ``net``, and ``time_id_width`` ``time_ids``."""
    short = {"batch": 2, "warmup": 1, "validate_every": 1, "save_every": 1, "samples": 1, "sample_steps": 2}
    short |= {"validation_clips": 1, "size": (32, 32)}
    tiny = load_recipe("tiny")
    image = dataclasses.replace(tiny.phase("image"), steps=2, **short)
    video = dataclasses.replace(tiny.phase("video"), steps=3, frames=3, guidance=(1.0, 2.0), **short)
    unet = UNetSpec(channels=(32,), attention=(True,), heads=1, time_id_width=8)
    return dataclasses.replace(tiny, name="before", unet=unet, phases=(image, video))


# ---- what outlives a rename -----------------------------------------------------------------------------------------


def test_builtin_recipes_keep_their_hashes() -> None:
    assert {name: make().hash for name, make in RECIPES.items()} == HASHES


def test_the_hash_of_an_older_run_stays() -> None:
    pytest.importorskip("torch")
    from dailies.training.run_log import run_hash

    assert before().hash == "f276f9db"
    # Its run.json says 3a2bf049, from when a run's length was part of it: test_before goes on with it all the same.
    assert run_hash(before()) == "7f548fab"
    longer = dataclasses.replace(
        before(), phases=(*before().phases[:1], dataclasses.replace(before().phases[1], steps=9))
    )
    assert run_hash(longer) == run_hash(before())


def test_a_recipe_is_read_by_its_old_names() -> None:
    row = to_old_names(dataclasses.asdict(before()))
    assert row["net"]["time_ids"] == 8
    assert row["begins"] == "random"
    assert not {"unet", "init_from"} & row.keys()
    assert TrainingRecipe.from_json(row) == TrainingRecipe.from_json(to_new_names(row)) == before()


def test_a_whole_number_in_an_older_run_is_the_same_as_today() -> None:
    """The hash of a recipe that said ``fps=8`` was taken of 8, today it is of 8.0: run.json is compared by value."""
    pytest.importorskip("torch")
    from dailies.training.run_log import _same_recipe, run_hash

    new = {"recipe": dataclasses.asdict(before()), "recipe_hash": run_hash(before())}
    old = to_new_names(to_old_names(new["recipe"]))
    for phase in old["phases"]:
        phase["fps"] = 8
    assert _same_recipe({"recipe": old, "recipe_hash": "00000000"}, new)
    old["phases"][0]["fps"] = 9
    assert not _same_recipe({"recipe": old, "recipe_hash": "00000000"}, new)


# ---- --set ----------------------------------------------------------------------------------------------------------


def test_values_are_set_by_field_phase_and_part() -> None:
    sets = ["seed=3", "unet.heads=4", "unet.layers=2", "*.lr=1e-4", "video.size=[96, 64]", "hq.noise_aug=None"]
    recipe = load_recipe("tiny", [*sets, "video.mix=[{data: a, weight: 2}, {data: b, select: [[motion, 1, null]]}]"])
    assert (recipe.seed, recipe.unet) == (3, UNetSpec(heads=4, layers=2))
    assert [phase.lr for phase in recipe.phases] == [1e-4] * 3
    assert recipe.phase("video").size == (96, 64)
    assert recipe.phase("hq").noise_aug is None
    assert [(share.data, share.weight) for share in recipe.phase("video").mix] == [("a", 2.0), ("b", 1.0)]
    assert recipe.phase("video").mix[1].select == (("motion", 1.0, None),)


@pytest.mark.parametrize(
    ("text", "today", "line"),
    [
        ("net.heads=4", "unet.heads=4", "--set net.heads=4: the field is called unet.heads now"),
        (
            "net.time_ids=16",
            "unet.time_id_width=16",
            "--set net.time_ids=16: the field is called unet.time_id_width now",
        ),
        ("net={heads: 4, time_ids: 16}", "unet={heads: 4, time_id_width: 16}", "the field is called unet now"),
        ("begins=given", "init_from=given", "--set begins=given: the field is called init_from now"),
    ],
)
def test_old_names_of_fields_are_understood(text: str, today: str, line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        old = load_recipe("tiny", [text])
    (message,) = caplog.messages
    assert message.endswith(line)
    assert old == load_recipe("tiny", [today]) != load_recipe("tiny")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tinny", "", "recipe 'tinny': no such training recipe; allowed: tiny, svd, finetune, lora"),
        ("tiny", "imag.steps=3", "--set imag.steps=3: no phase 'imag'; allowed: image, video, hq, *, unet"),
        ("tiny", "image.stepz=3", "--set image.stepz=3: a phase has no key 'stepz' (did you mean steps?)"),
        ("tiny", "sed=3", "--set sed=3: the recipe has no key 'sed'; allowed: unet, caption"),
        ("tiny", "unet.head=3", "--set unet.head=3: the unet has no key 'head'; allowed: channels"),
        ("tiny", "image.name=x", "--set image.name=x: a phase has no key 'name'"),
        ("tiny", "steps", "--set steps: must have the form NAME.KEY=VALUE"),
        ("tiny", "*.steps=0", "phase image: steps=0: must be above 0"),
        ("tiny", "seed=x", "seed='x': must be a whole number"),
        ("tiny", "unet.channels=[48]", "unet.channels.0=48: must be a multiple of 32"),
        ("tiny", "video.buckets=[{size: [80, 20], frames: 3}]", "phase video: buckets: size.1=20: must be a multiple"),
        ("tiny", "unet=null", "unet=None: needs models='given' and init_from='given'"),
        ("tiny", "caption=[[a, 0.5], [b, 0.4]]", "the probabilities sum to 0.9, not 1"),
        ("finetune", "unet.heads=4", "--set unet.heads=4: this recipe takes the UNet of the weights it starts from"),
        ("tiny", "hq.start=hq", "phase hq: start='hq': is no phase before this one; allowed: image, video"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(name: str, text: str, words: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(name, [text] if text else [])
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_phases_in_a_wrong_order_are_refused() -> None:
    tiny = load_recipe("tiny")
    with pytest.raises(
        RecipeError, match=r"^phase video: task='text-to-video': cannot start from hq \(image-to-video\)"
    ):
        dataclasses.replace(tiny, phases=(tiny.phase("hq"), tiny.phase("video")))
    with pytest.raises(RecipeError, match=r"^phases: two are called image$"):
        dataclasses.replace(tiny, phases=tiny.phases[:1] * 2)
    with pytest.raises(RecipeError, match=r"^phases: "):
        dataclasses.replace(tiny, phases=())


def test_recipes_import_without_torch() -> None:
    code = "import sys, dailies.training.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
