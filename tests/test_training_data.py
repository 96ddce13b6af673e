"""What a phase takes of its data, and what it leaves out and says: bad items, slow clips, the order, and what is drawn."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from dailies.curation.errors import ExportError, Misshapen, RecipeError, UsageError  # noqa: E402
from dailies.training.data import MAIN, BucketSubset, Export, Split, load  # noqa: E402
from dailies.training.data.batches import Batches  # noqa: E402
from dailies.training.data.pictures import folder_pictures, parquet_pictures  # noqa: E402
from dailies.training.data.reader import check_shape  # noqa: E402
from dailies.training.diffusion.encoders import Encoders  # noqa: E402
from dailies.training.loop import train  # noqa: E402
from dailies.training.phase_state import motion_reference  # noqa: E402
from dailies.training.plan import available  # noqa: E402
from dailies.training.recipes.recipe import Phase, TrainingRecipe, UNetSpec  # noqa: E402
from tests.training_export import MODELS, build_export  # noqa: E402

SMALL: dict[str, Any] = {
    "batch": 2, "size": (32, 24), "steps": 2, "validate_every": 2, "validation_clips": 1, "validation_sigmas": (1.0,),
    "save_every": 2, "samples": 1, "sample_steps": 1,
}  # fmt: skip
VIDEO = Phase(name="video", task="text-to-video", frames=3, **SMALL)
HQ = Phase(name="hq", task="image-to-video", frames=3, **SMALL)
STILL = Phase(name="image", task="text-to-image", **SMALL)


def recipe_of(phase: Phase) -> TrainingRecipe:
    unet = UNetSpec(channels=(32,), attention=(True,), heads=1)
    return TrainingRecipe(name="data", unet=unet, text_tokens=8, phases=(phase,), autocast=False)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "export"
    return build_export(folder, clips=9, size=(64, 48), frames=(24, 30), validation=9)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders(MODELS, text_tokens=8)


def changed(export: Path, to: Path, change: Any) -> Path:
    """The export at ``to``, its training rows (with ``video``) as ``change`` makes them."""
    (to / "data").mkdir(parents=True)
    for shard in sorted((export / "data").glob("*.parquet")):
        table = pq.read_table(shard)
        rows = table.to_pylist()
        if shard.name.startswith("train"):
            rows = change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), to / "data" / shard.name, row_group_size=1)
    return to


# ---- bad items ------------------------------------------------------------------------------------------------------


def png(size: tuple[int, int], colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "png")
    return out.getvalue()


def pictures_file(path: Path, images: list[bytes | None]) -> Path:
    cells = [None if image is None else {"bytes": image} for image in images]
    kind = pa.struct([("bytes", pa.binary())])
    pq.write_table(pa.table({"image": pa.array(cells, kind), "text": ["a"] * len(cells)}), path)
    return path


BAD = [None, b"", b"no picture", png((4096, 16)), png((1, 1)), png((40, 30))[:60]]


def test_bad_pictures_among_good_ones_are_replaced_and_said(tmp_path: Path) -> None:
    good = [png((40, 30), (10 * number, 0, 0)) for number in range(20)]
    path = pictures_file(tmp_path / "p.parquet", [*good[:7], *BAD, *good[7:]])
    phase = dataclasses.replace(STILL, images="parquet", image_path=str(path), steps=14, save_every=14)
    lines: list[str] = []
    run = train(recipe_of(phase), build_export(tmp_path / "e", clips=1), tmp_path / "run", MODELS, say=lines.append)
    (entry,) = json.loads((run.folder / "run.json").read_text())["phases"]
    assert entry["done"]
    trained = {f"p.parquet:0:{number}" for number in range(7, 13)} & set(load(recipe_of(phase), phase, {}).clip_ids)
    assert set(entry["unreadable"]["first"]) == trained
    assert entry["unreadable"]["items"] == len(trained) > 3
    (line,) = [line for line in lines if "could not be read" in line]
    assert f"{len(trained)} items could not be read and were replaced: p.parquet:0:" in line
    assert "no_video: holds no picture" in line


def test_a_bad_pictures_place_is_taken_by_the_next(tmp_path: Path, encoders: Encoders) -> None:
    path = pictures_file(tmp_path / "p.parquet", [png((40, 30), (n, n, n)) for n in range(5)] + [None])
    phase = dataclasses.replace(STILL, images="parquet", image_path=str(path))
    split = load(recipe_of(phase), phase, {})
    ids = list(split.train[0].items.clip_ids)
    phase = dataclasses.replace(phase, batch=len(ids))  # one epoch
    assert ids[-1] == "p.parquet:0:5"
    made = Batches(recipe_of(phase), phase, split, encoders, 1.0)
    (batch,) = made.training(0)
    made.close()
    assert "p.parquet:0:5" not in batch.clip_ids
    assert sorted(batch.clip_ids) == sorted([*ids[:-1], ids[0]])


@pytest.mark.parametrize("kind", ["pictures", "clips"])
def test_data_that_is_mostly_bad_ends_a_phase_before_its_first_step(kind: str, export: Path, tmp_path: Path) -> None:
    if kind == "pictures":
        path = pictures_file(tmp_path / "p.parquet", [*BAD, *BAD, png((40, 30))])
        phase = dataclasses.replace(STILL, images="parquet", image_path=str(path))
    else:
        phase = VIDEO
        export = changed(export, tmp_path / "bad", lambda rows: [row | {"video": b"no video"} for row in rows[:-1]])
    with pytest.raises(ExportError, match=r"phase \w+: data: \d+ of \d+ items tried cannot be read \(.+: .+\); mend"):
        train(recipe_of(phase), export, tmp_path / "run", MODELS, say=lambda line: None)
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))


def test_bad_clips_among_good_ones_are_replaced_and_said(export: Path, tmp_path: Path) -> None:
    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        bad = [{"video": None}, {"video": b"no video"}, {"width": 4096, "height": 16}, {"fps": None}]
        return [*(row | one for row, one in zip(rows, bad, strict=False)), *rows[len(bad) :]]

    lines: list[str] = []
    phase = dataclasses.replace(VIDEO, steps=4, save_every=4)
    folder = changed(export, tmp_path / "spoilt", spoil)
    run = train(recipe_of(phase), folder, tmp_path / "run", MODELS, say=lines.append)
    (entry,) = run.facts["phases"]
    assert entry["unreadable"]["items"] == 3
    kinds = {reason.partition(":")[0] for reason in entry["unreadable"]["first"].values()}
    assert {"no_video", "misshapen"} < kinds
    assert any("1 clip lacks frames, fps, width, height, left out" in line for line in lines)


def test_a_shape_that_would_be_cut_away_or_blurred_is_refused() -> None:
    for size in ((1920, 804), (90, 160), (2, 2), (512, 64)):  # 21:9 over 9:16; 16 times enlarged; an eighth left
        check_shape(*size, (32, 32) if size != (1920, 804) else (144, 256))
    for size, words in (((520, 64), "narrow"), ((4096, 16), "narrow"), ((16, 4096), "narrow"), ((1, 1), "small")):
        with pytest.raises(Misshapen, match=words):
            check_shape(*size, (32, 32))


def test_pictures_are_trained_as_people_see_them(tmp_path: Path) -> None:
    """Upright by EXIF, 16 bits scaled, the ground where they are clear; from folders and from Parquet."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.repeat(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8), 48, 1).repeat(12, 0)).save(
        tmp_path / "a.png", exif=exif
    )
    Image.fromarray(np.full((32, 32), 128 * 257, np.uint16)).save(tmp_path / "b.png")
    Image.fromarray(np.full((32, 32, 4), (0, 255, 0, 0), np.uint8)).save(tmp_path / "c.png")
    data = [path.read_bytes() for path in sorted(tmp_path.glob("*.png"))]
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("x")
    for pictures in (
        folder_pictures(tmp_path, (24, 24)),
        parquet_pictures(pictures_file(tmp_path / "p.parquet", list(data)), (24, 24)),
    ):
        turned, gray, clear = (pictures.frames(number, 0, 1)[0] for number in range(3))
        assert turned.shape == (48, 24, 3)
        assert [turned[20, x].tolist() for x in (2, 21)] == [[0, 0, 255], [255, 0, 0]]
        assert (gray == 128).all()
        assert (clear == 255).all()


def test_captions_without_a_picture_are_counted(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.pdf").touch()
    names = ["a.png", "b.png", "gone.png", "c.png", "notes.pdf"]
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},x\n" for name in names))
    phase = dataclasses.replace(STILL, images="folder", image_path=str(tmp_path))
    assert (
        "2 files named in metadata.csv and no picture there: gone.png, notes.pdf"
        in load(recipe_of(phase), phase, {}).notes
    )


def test_a_folders_pictures_are_those_that_a_run_was_begun_with(tmp_path: Path) -> None:
    for name in ("a.png", "b.tiff", "c.gif", "d.webp"):
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("x")
    phase = dataclasses.replace(STILL, images="folder", image_path=str(tmp_path))
    names = [load(recipe_of(phase), phase, {}, data_rules=rules).clip_ids for rules in (1, 2)]
    assert names == [["a.png", "d.webp"], ["a.png", "b.tiff", "c.gif", "d.webp"]]


# ---- rates ----------------------------------------------------------------------------------------------------------


def at_rate(fps: dict[int, float]) -> Any:
    """Change training rows' own rate, by their number."""
    return lambda rows: [row | {"fps": fps.get(number, row["fps"])} for number, row in enumerate(rows)]


def test_clips_below_the_phases_rate_are_left_out_and_counted(export: Path, tmp_path: Path) -> None:
    folder = changed(export, tmp_path / "slow", at_rate({0: 6.0, 1: 7.98, 2: 7.995}))
    rows = pq.read_table(sorted((folder / "data").glob("train*"))[0]).to_pylist()
    split = load(recipe_of(VIDEO), VIDEO, {MAIN: Export(folder)})
    assert set(split.slow) == {rows[0]["clip_id"], rows[1]["clip_id"]}
    assert set(split.clip_ids) == {row["clip_id"] for row in rows[2:]}  # a thousandth below is the same rate
    assert any("2 clips have fewer than 8 frames a second, left out" in note for note in split.notes)
    there = available(recipe_of(VIDEO), VIDEO, {MAIN: Export(folder)})
    assert (there.clips, there.slow, there.short) == (6, 2, 0)
    run = train(recipe_of(VIDEO), folder, tmp_path / "run", MODELS, say=lambda line: None)
    (entry,) = run.facts["phases"]
    assert (entry["too_slow"]["clips"], entry["trained_fps"]) == (2, [8.0])
    stills = load(recipe_of(STILL), STILL, {MAIN: Export(folder)})
    assert len(stills.clip_ids) == 8  # a picture has no rate
    with pytest.raises(UsageError, match="no training clip of 3 frames at 30 fps"):
        load(recipe_of(VIDEO), dataclasses.replace(VIDEO, fps=30.0), {MAIN: Export(folder)})


@pytest.mark.parametrize("phase", [VIDEO, HQ], ids=["text", "image"])
def test_each_sample_is_told_the_rate_that_it_is_trained_at(
    phase: Phase, export: Path, tmp_path: Path, encoders: Encoders
) -> None:
    folder = changed(export, tmp_path / "mixed", at_rate({0: 6.0, 1: 6.0, 2: 3.0}))
    phase = dataclasses.replace(phase, rates=(12.0, 8.0, 5.0), steps=40)
    split = load(recipe_of(phase), phase, {MAIN: Export(folder)})
    assert [(subset.fps, len(subset.items.clip_ids)) for subset in split.train] == [(5.0, 7), (8.0, 5), (12.0, 5)]
    assert len(split.slow) == 1
    slow = {row["clip_id"] for row in pq.read_table(sorted((folder / "data").glob("train*"))[0]).to_pylist()[:2]}
    made = Batches(recipe_of(phase), phase, split, encoders, 1.0)
    told: dict[float, set[str]] = {}
    for step in range(12):
        for batch in made.training(step):
            assert batch.condition.added_time_ids_BK is not None
            for clip_id, fps in zip(batch.clip_ids, batch.condition.added_time_ids_BK[:, 0].tolist(), strict=True):
                told.setdefault(fps + 1, set()).add(clip_id)
    made.close()
    assert set(told) == {5.0, 8.0, 12.0}
    assert told[5.0] & slow
    assert not (told[8.0] | told[12.0]) & slow


def test_the_frames_of_a_rate_lie_on_its_grid(export: Path) -> None:
    phase = dataclasses.replace(VIDEO, rates=(8.0, 4.0))
    slow, fast = load(recipe_of(phase), phase, {MAIN: Export(export)}).train
    assert slow.items.clip_ids == fast.items.clip_ids
    assert [2 * length - 1 - other for length, other in zip(slow.items.lengths, fast.items.lengths, strict=True)] != []
    one, other = slow.items.frames(0, 0, 3), fast.items.frames(0, 0, 5)  # type: ignore[attr-defined]
    assert np.array_equal(one, other[::2])


def test_wrong_rates_are_refused() -> None:
    for change, words in (
        ({"rates": (6.0, 12.0)}, "must hold fps=8"),
        ({"rates": (8.0, 8.0)}, "named twice"),
        ({"rates": (8.0, -1.0)}, "rates"),
        ({"rates": (8.0,), "task": "text-to-image", "frames": 1}, "no rate"),
    ):
        with pytest.raises(RecipeError, match=words):
            dataclasses.replace(VIDEO, **change)  # type: ignore[arg-type]


# ---- order ----------------------------------------------------------------------------------------------------------


def elsewhere(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same clips from another folder: other ids, and so another order of the shards."""
    rows = [row | {"clip_id": f"other-{row['content_id']}", "uri": f"/elsewhere{row['uri']}"} for row in rows]
    return sorted(rows, key=lambda row: str(row["clip_id"])[::-1])


def test_the_same_footage_elsewhere_trains_the_same_model(export: Path, tmp_path: Path) -> None:
    other = changed(export, tmp_path / "other", elsewhere)
    runs = [
        train(recipe_of(VIDEO), folder, tmp_path / name, MODELS, say=lambda line: None)
        for name, folder in (("one", export), ("two", other))
    ]
    assert runs[0].facts["phases"][0]["validation"] == runs[1].facts["phases"][0]["validation"]
    losses = [
        [json.loads(line).get("loss") for line in (run.folder / "phases/video/metrics.jsonl").open()] for run in runs
    ]
    assert losses[0] == losses[1]
    contents = [
        [next(row for row in Export(folder).rows if row.columns["clip_id"] == clip_id).columns["content_id"]
         for clip_id in load(recipe_of(VIDEO), VIDEO, {MAIN: Export(folder)}).clip_ids]
        for folder in (export, other)
    ]  # fmt: skip
    assert contents[0] == contents[1]


def test_a_run_begun_before_keeps_its_order_and_its_clips(export: Path, tmp_path: Path) -> None:
    folder = changed(export, tmp_path / "slow", at_rate({0: 6.0}))
    rows = pq.read_table(sorted((folder / "data").glob("train*"))[0], columns=["clip_id"])["clip_id"].to_pylist()
    split = load(recipe_of(VIDEO), VIDEO, {MAIN: Export(folder)}, data_rules=1)
    assert split.clip_ids == rows
    assert any("1 clip is below 8 fps, with frames repeated" in note for note in split.notes)
    assert load(recipe_of(VIDEO), VIDEO, {MAIN: Export(folder)}).clip_ids != rows[1:]


# ---- what is drawn --------------------------------------------------------------------------------------------------


def test_text_and_image_are_dropped_independently(export: Path, encoders: Encoders) -> None:
    """Of 200 samples at one half each, a quarter has both dropped and a quarter neither; tied draws give a half each."""
    phase = dataclasses.replace(HQ, drop_text=0.5, drop_image=0.5, batch=10, steps=20)
    made = Batches(recipe_of(phase), phase, load(recipe_of(phase), phase, {MAIN: Export(export)}), encoders, 1.0)
    pairs = []
    for step in range(20):
        (batch,) = made.training(step)
        text = batch.condition.tokens_BLD.flatten(1).any(1)
        channels = batch.condition.concat_channels(3)
        assert channels is not None
        pairs += list(zip(text.tolist(), channels.flatten(1).any(1).tolist(), strict=True))
    made.close()
    for pair in ((True, True), (True, False), (False, True), (False, False)):
        assert 30 <= pairs.count(pair) <= 70


def test_the_augmentation_id_is_the_level_that_was_drawn(export: Path, encoders: Encoders) -> None:
    """The third id is σ of the noise on the conditioning frame: ln σ of N(−3, 0.5²) in training, e^−3 in validation, and the
    frame's latents have noise that grows with it."""
    phase = dataclasses.replace(HQ, batch=10, steps=20)
    split = load(recipe_of(phase), phase, {MAIN: Export(export)})
    made = Batches(recipe_of(phase), phase, split, encoders, 1.0)
    ids = torch.cat([batch.condition.added_time_ids_BK[:, 2] for step in range(20) for batch in made.training(step)])
    assert float(ids.log().mean()) == pytest.approx(-3, abs=0.12)
    assert float(ids.log().std()) == pytest.approx(0.5, abs=0.1)
    (fixed,) = made.validation()
    assert fixed.condition.added_time_ids_BK is not None
    assert fixed.condition.added_time_ids_BK[:, 2].tolist() == pytest.approx([math.exp(-3)])
    made.close()

    def latents(mean: float) -> Any:
        louder = dataclasses.replace(phase, noise_aug=(mean, 0.0))
        noisy = Batches(recipe_of(louder), louder, split, encoders, 1.0)
        (batch,) = noisy.training(0)
        noisy.close()
        assert batch.condition.added_time_ids_BK is not None
        assert batch.condition.added_time_ids_BK[:, 2].tolist() == pytest.approx([math.exp(mean)] * 10)
        return batch.condition.image_latents_BSCHW

    clean, little, much = latents(-20.0), latents(-3.0), latents(-1.0)
    assert float((much - clean).std()) > 3 * float((little - clean).std()) > 0


def test_the_motion_reference_is_the_median() -> None:
    """Excludes the mean, 22, and another item than the middle one; a clip without a score counts for nothing."""

    class Scored:
        clip_ids = ("a", "b", "c", "d", "e", "f")

        def number(self, index: int, column: str) -> float | None:
            assert column == "motion"
            return (1.0, 100.0, 2.0, None, 3.0, 4.0)[index]

    subset = BucketSubset(name="", items=Scored(), shape=VIDEO.shapes[0])  # type: ignore[arg-type]
    assert motion_reference(Split(train=(subset,), validation=())) == 3.0
