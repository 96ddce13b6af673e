"""Precomputed latents: what they hold, what a run from them sees, how they are made, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from dailies.curation.errors import ExportError, UsageError  # noqa: E402
from dailies.curation.tables import Folder  # noqa: E402
from dailies.pipelines.latents import LatentsReport, LatentsRequest, export_latents, run, work  # noqa: E402
from dailies.training.data import latent_crops, precomputed  # noqa: E402
from dailies.training.data.batches import Batches  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.data.items import Clips  # noqa: E402
from dailies.training.data.latent_crops import encode_crops  # noqa: E402
from dailies.training.data.sampling import draw_spec  # noqa: E402
from dailies.training.data.split import MAIN, load  # noqa: E402
from dailies.training.diffusion.encoders import Encoders  # noqa: E402
from dailies.training.loop import train  # noqa: E402
from dailies.training.models.pixels import crop  # noqa: E402
from dailies.training.recipes import load_recipe  # noqa: E402
from dailies.training.recipes.phase import Bucket, Phase  # noqa: E402
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec  # noqa: E402
from tests.conftest import Dailies  # noqa: E402
from tests.training_export import BUILTIN, MODELS, MORE, build_export  # noqa: E402

K = 3
SMALL = {"batch": 2, "size": (32, 24), "steps": 3, "warmup": 0, "validate_every": 3, "validation_clips": 2,
         "validation_sigmas": (1.0,), "save_every": 3, "samples": 1, "sample_steps": 2}  # fmt: skip
RECIPE = TrainingRecipe(
    name="latents",
    unet=UNetSpec(channels=(32,), attention=(True,), heads=1),
    text_tokens=8,
    autocast=False,
    caption=(("caption_coca", 0.5), ("caption_fuse", 0.5)),
    phases=(
        Phase(name="text", task="text-to-video", frames=9, crop="random", **SMALL),
        Phase(name="hq", task="image-to-video", frames=8, **SMALL),
    ),
)
TEXT, HQ = RECIPE.phases


def recipe() -> TrainingRecipe:
    """What ``FILE.py`` gives on the command line."""
    return RECIPE


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders(MODELS, text_tokens=8)


# ---- exports, and latents of them -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of just the frames that a phase takes, so that all of their windows are the same."""
    folder = tmp_path_factory.mktemp("even") / "export"
    build_export(folder, clips=6, size=(64, 48), frames=(24, 24), validation=3, columns=MORE)
    (folder / "index.parquet").touch()
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of different length, the first of which is no video."""
    folder = tmp_path_factory.mktemp("broken") / "export"
    build_export(folder, clips=8, size=(64, 40), frames=(22, 40), validation=4, columns=MORE)
    (folder / "index.parquet").touch()
    shard = folder / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(shard)
    videos = [b"no video", *table["video"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("video"), "video", pa.array(videos)), shard)
    return folder


@pytest.fixture(scope="module")
def by_command(even: Path, dailies: Dailies) -> dict[str, Any]:
    """What the command line reports of the latents it made."""
    out = even.parent / "latents"
    arguments = ("--latents", f"{__file__}:hq", "--out", out, "--views", K, "--engine", "local", "--json")
    done = dailies("export", even, *arguments, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    again = dailies("export", even, *arguments)
    assert again.stdout == done.stdout  # they are there
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def latents(by_command: dict[str, Any]) -> Path:
    return Path(by_command["path"])


class Here:
    """In place of the child process that decodes, whose start takes seconds."""

    def __init__(self, function: str, **_: object) -> None:
        assert function == "dailies.pipelines.latents.work:read_clip"

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    call = staticmethod(work.read_clip)


def make(export: Path, out: Path, **parts: str | None) -> LatentsReport:
    request = LatentsRequest(
        export=str(export), latents=f"{__file__}:text", out=str(out), views=K, device="cpu", parts=parts
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(work, "Isolated", Here)
        return export_latents(request, engine="local")


@pytest.fixture(scope="module")
def with_text(broken: Path) -> LatentsReport:
    return make(broken, broken.parent / "latents")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


# ---- what they hold -------------------------------------------------------------------------------------------------


def online(export: Path, phase: Phase, row: dict[str, Any], view: dict[str, Any]) -> np.ndarray:
    """The pixels of a view, decoded from the export."""
    opened = Export(export)
    (place,) = [one for one in opened.rows if one.columns["clip_id"] == row["clip_id"]]
    frames = Clips(opened, [place], phase.fps, phase.size).frames(0, view["first"], view["first"] + phase.frames)
    return crop(frames, phase.size, (view["crop_x"], view["crop_y"]))


def test_views_hold_what_the_models_see(
    even: Path, latents: Path, broken: Path, with_text: LatentsReport, encoders: Encoders
) -> None:
    for export, made, phase in ((even, latents, HQ), (broken, Path(with_text.path), TEXT)):
        found = rows(made)
        assert found
        for row in found[::2]:
            assert len(row["views"]) == K
            for view in row["views"][:2]:
                pixels = online(export, phase, row, view)
                moments = np.frombuffer(view["moments"], np.float16).reshape(phase.frames, 8, 6, 8)
                wanted = encoders.vae.moments(pixels).numpy()
                assert np.abs(moments - wanted).max() < 2e-3 * np.abs(wanted).max()
                shown = [np.asarray(latent_crops._picture(png)) for png in view["shown"]]
                assert len(shown) == len(phase.task_spec.conditioning_frames)
                assert all(map(np.array_equal, shown, pixels[list(phase.task_spec.conditioning_frames)]))
            for column in ("caption_coca", "caption_fuse") if phase is TEXT else ():
                tokens = np.frombuffer(row[f"text_{column}"], np.float16).reshape(8, 96)
                assert np.abs(tokens - encoders.text([row[column]])[0].numpy()).max() < 5e-3


def test_views_are_drawn_and_the_first_of_a_held_out_clip_is_its_middle(with_text: LatentsReport) -> None:
    found = rows(Path(with_text.path))
    for row in found:
        room = (row["frames"] - 1) // 3 + 1 - TEXT.frames
        first = row["views"][0]
        middle = (min(room, (room + 1) // 2), 0.5, 0.5)
        assert ((first["first"], first["crop_x"], first["crop_y"]) == middle) == (row["split"] == "validation")
        assert all(0 <= view["first"] <= room for view in row["views"])
    assert len({view["crop_x"] for row in found for view in row["views"]}) > len(found)


def test_what_cannot_be_encoded_is_a_row_with_a_reason(broken: Path, with_text: LatentsReport) -> None:
    folder = Path(with_text.path)
    given = rows(broken)
    index = pq.read_table(folder / "index.parquet").to_pylist()
    assert [row["clip_id"] for row in index] == [row["clip_id"] for row in given]
    assert (index[0]["status"], index[0]["failure"]["kind"], index[0]["shard"]) == ("failed", "unreadable", None)
    short = [row["clip_id"] for row in given if (row["frames"] - 1) // 3 + 1 < TEXT.frames]
    assert short
    assert [row["clip_id"] for row in index if (row["failure"] or {}).get("kind") == "too_short"] == short
    ok = [row for row in index if row["status"] == "ok"]
    assert [row["clip_id"] for row in ok] == [row["clip_id"] for row in rows(folder)]
    assert with_text.failed == 1 + len(short)
    assert with_text.reasons == {"unreadable": 1, "too_short": len(short)}
    for row in ok:
        group = pq.ParquetFile(folder / row["shard"]).read_row_group(row["row_group"], columns=["clip_id"])
        assert group["clip_id"][row["row"]].as_py() == row["clip_id"]
    assert "1 clips have none (unreadable)" in (folder / "README.md").read_text()


def test_datasets_loads_them(latents: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(latents), split="train", cache_dir=str(tmp_path))
    stored = [row for row in rows(latents) if row["split"] == "train"]
    assert [row["clip_id"] for row in loaded] == [row["clip_id"] for row in stored]
    for ours, theirs in zip(stored, loaded, strict=True):
        assert len(theirs["views"]) == K
        assert [view["moments"] for view in theirs["views"]] == [view["moments"] for view in ours["views"]]
    whole = np.frombuffer(loaded[0]["views"][0]["moments"], np.float16)
    assert whole.size == 8 * 8 * 6 * 8  # frames, mean and log-variance of four channels, a quarter of 24 and 32 px


def test_groups_are_small_and_media_is_stored_as_it_is(latents: Path) -> None:
    (shard, *_) = sorted((latents / "data").iterdir())
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    assert {c.compression for c in columns if "moments" in c.path_in_schema or "shown" in c.path_in_schema} == {
        "UNCOMPRESSED"
    }
    assert not any(name.startswith(".") for name in os.listdir(latents.parent))


# ---- training from them ---------------------------------------------------------------------------------------------


def test_a_run_from_latents_is_the_run_from_clips(
    even: Path, latents: Path, encoders: Encoders, tmp_path: Path
) -> None:
    splits = [load(RECIPE, HQ, {MAIN: Export(folder)}, MODELS) for folder in (even, latents)]
    makers = [Batches(RECIPE, HQ, split, encoders, 5.0) for split in splits]
    for step in range(3):
        (one,), (other,) = (maker.training(step) for maker in makers)
        assert one.clip_ids == other.clip_ids
        for name in ("noise", "sigma"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.allclose(one.clean, other.clean, atol=2e-3 * one.clean.abs().max().item())
        for name in ("tokens_BLD", "added_time_ids_BK", "image_latents_BSCHW", "kept_B"):
            assert torch.equal(getattr(one.condition, name), getattr(other.condition, name)), name
    for subset, specs in makers[1].held_out():
        assert makers[1].pixels(subset, specs[0]).shape == (8, 24, 32, 3)  # decoded, for people to look at

    alone = dataclasses.replace(RECIPE, phases=(HQ,))
    runs = [
        train(alone, folder, tmp_path / name, MODELS, say=lambda line: None)
        for name, folder in (("clips", even), ("latents", latents))
    ]
    losses = [
        [json.loads(line)["loss"] for line in (run.folder / "phases/hq/metrics.jsonl").open() if '"loss"' in line]
        for run in runs
    ]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    validation = [run.facts["phases"][0]["validation"][-1][1] for run in runs]
    assert validation[0] == pytest.approx(validation[1], rel=5e-3)


def test_training_on_text_loads_neither_vae_nor_text_encoder(with_text: LatentsReport) -> None:
    fresh = Encoders(MODELS, text_tokens=8)
    split = load(RECIPE, TEXT, {MAIN: Export(with_text.path)}, MODELS)
    made = Batches(RECIPE, TEXT, split, fresh, 5.0)
    seen = Counter(name for step in range(3) for batch in made.training(step) for name in batch.clip_ids)
    assert set(seen) <= set(split.clip_ids)
    (batch,) = made.validation(1.0)
    assert batch.condition.tokens_BLD.shape[1:] == (8, 96)
    assert {"vae", "text", "image"}.isdisjoint(vars(fresh))


def test_pictures_beside_videos_are_first_frames_of_crops(with_text: LatentsReport, encoders: Encoders) -> None:
    joint = dataclasses.replace(TEXT, image_share=0.5)
    split = load(RECIPE, joint, {MAIN: Export(with_text.path)}, MODELS)
    pictures, videos = Batches(RECIPE, joint, split, encoders, 5.0).training(0)
    assert (pictures.clean.shape, videos.clean.shape) == ((1, 4, 6, 8), (1, 9, 4, 6, 8))
    spec = draw_spec(RECIPE.seed, "text", 1, len(split.pictures.items.clip_ids), subset="pictures", index=0)
    (row,) = (row for row in rows(Path(with_text.path)) if row["clip_id"] == pictures.clip_ids[0])
    assert row["clip_id"] == split.pictures.items.clip_ids[spec.item]
    moments = np.frombuffer(row["views"][int(spec.offset * K)]["moments"], np.float16).reshape(9, 8, 6, 8)
    mean, logvar = torch.from_numpy(moments[0].astype(np.float32)).chunk(2)
    posterior = torch.from_numpy(spec.rng.standard_normal((1, 4, 6, 8), dtype=np.float32))[0]
    torch.testing.assert_close(pictures.clean[0], (mean + (logvar / 2).exp() * posterior) * encoders.vae.scale)


def test_crops_are_read_again_where_they_do_not_fit(latents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load(RECIPE, HQ, {MAIN: Export(latents)}, MODELS)
    kept = split.train[0].items
    monkeypatch.setattr(precomputed, "CACHE_BYTES", 0)
    read = load(RECIPE, HQ, {MAIN: Export(latents)}, MODELS).train[0].items
    assert (kept.fits, read.fits) == (True, False)
    assert kept.crop(1, 2) is kept.crop(1, 2)
    assert read.crop(1, 2) is not read.crop(1, 2)
    assert torch.equal(kept.crop(1, 2).moments, read.crop(1, 2).moments)
    assert [kept.crop_number(offset) for offset in (0.0, 0.34, 0.99)] == [0, 1, 2]


# ---- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "of_recipe", "words"),
    [
        ({"fps": 4.0}, {}, r"fps=4: the latents in .* were made at 8 fps"),
        ({"size": (48, 32)}, {}, r"size=48x32: the latents in .* have 32x24"),
        ({"frames": 5}, {}, r"frames=5: the latents in .* have 9"),
        (
            {"buckets": (Bucket(size=(32, 24), frames=9), Bucket(size=(24, 32), frames=9))},
            {},
            "buckets=32x24x9, 24x32x9: ",
        ),
        ({"crop": "center"}, {}, "crop=center: .* were made with random crops"),
        (
            {"task": "image-to-video"},
            {},
            "task=image-to-video: conditions on frames 0; .* for text-to-video, keep no frames",
        ),
        ({}, {"text_tokens": 12}, "text_tokens=12: .* have texts of 8 tokens"),
        ({}, {"caption": "uri"}, "caption=uri: .* have texts of caption_coca, caption_fuse"),
    ],
)
def test_a_phase_that_does_not_fit_is_refused_by_field(
    changes: dict[str, Any], of_recipe: dict[str, Any], words: str, with_text: LatentsReport, tmp_path: Path
) -> None:
    phase = dataclasses.replace(TEXT, **changes)
    asked = dataclasses.replace(RECIPE, phases=(phase,), **of_recipe)
    with pytest.raises(UsageError, match=f"phase text: {words}"):
        train(asked, with_text.path, tmp_path / "run", MODELS)
    assert not (tmp_path / "run").exists()


def test_other_weights_are_refused(with_text: LatentsReport, latents: Path) -> None:
    other_vae = dataclasses.replace(MODELS, vae=MODELS.vae_temporal)
    other_text = dataclasses.replace(MODELS, text=str(BUILTIN / "coca-world"))
    exports = {MAIN: Export(with_text.path)}
    with pytest.raises(UsageError, match=r"phase text: vae=.*temporal: has weights of sha256 [0-9a-f]{16}…; the"):
        load(RECIPE, TEXT, exports, other_vae)
    with pytest.raises(UsageError, match=r"text=.*coca-world: has weights"):
        load(RECIPE, TEXT, exports, other_text)
    split = load(RECIPE, TEXT, exports)
    with pytest.raises(UsageError, match="vae="):
        Batches(RECIPE, TEXT, split, Encoders(other_vae, text_tokens=8), 5.0)
    load(RECIPE, HQ, {MAIN: Export(latents)}, other_text)  # which an image's phase does not ask


def test_random_crops_are_not_had_from_crops_of_the_middle(latents: Path) -> None:
    with pytest.raises(UsageError, match=r"phase hq: crop=random: .* made with center crops"):
        load(RECIPE, dataclasses.replace(HQ, crop="random"), {MAIN: Export(latents)})
    with pytest.raises(UsageError, match=r"holds latents; give the export with videos, "):
        Export(latents).with_video(Export(latents).rows[0])


def test_a_rule_that_latents_were_made_by_is_told(latents: Path, tmp_path: Path) -> None:
    shutil.copytree(latents, tmp_path / "latents")
    manifest = json.loads((latents / "latents.json").read_text())
    (tmp_path / "latents" / "latents.json").write_text(json.dumps(manifest | {"select": [["motion", 0.5, None]]}))
    (note,) = load(RECIPE, HQ, {MAIN: Export(tmp_path / "latents")}).notes
    assert "made with select ('motion', 0.5, None)" in note
    (tmp_path / "latents" / "latents.json").write_text(json.dumps(manifest | {"views": "many"}))
    with pytest.raises(UsageError, match=r"latents\.json: views='many': "):
        Export(tmp_path / "latents")


# ---- making them ----------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    pass


def _stopped() -> None:
    raise Stopped


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _make_half(export: Path, out: Path, end: Callable[[], None]) -> None:
    """``end`` comes in the middle of the last shard."""
    torch.set_num_threads(1)
    made = iter(range(99))

    def encode(*arguments: Any) -> Any:
        crops = encode_crops(*arguments)
        if arguments[2][0].crop == latent_crops.MIDDLE and next(made) == 1:  # the second clip of the validation shard
            end()
        return crops

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dailies.pipelines.processes.ALONE_SECONDS", 3600.0)  # a child has no fixtures
        patched.setattr(latent_crops, "encode_crops", encode)
        make(export, out)


@pytest.mark.parametrize("how", ["stopped", pytest.param("killed", marks=pytest.mark.slow)])
def test_making_goes_on_where_it_was_stopped(how: str, broken: Path, with_text: LatentsReport, tmp_path: Path) -> None:
    if how == "killed":
        process = multiprocessing.get_context("spawn").Process(
            target=_make_half, args=(broken, tmp_path / "latents", _killed)
        )
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    else:
        with pytest.raises(Stopped):
            _make_half(broken, tmp_path / "latents", _stopped)
    (staging,) = tmp_path.glob(".staging-latents-*")
    done = staging / "data" / "train-00000-of-00001.parquet"
    before = done.stat().st_mtime_ns
    if how == "stopped":
        (staging / "data" / ".validation-00000-of-00001.parquet.99.tmp").touch()  # as a kill leaves it
    assert any(name.endswith(".tmp") for name in os.listdir(staging / "data"))
    report = make(broken, tmp_path / "latents")
    assert [path.name for path in tmp_path.iterdir()] == ["latents"]
    assert (tmp_path / "latents" / "data" / done.name).stat().st_mtime_ns == before
    assert dataclasses.replace(report, path=with_text.path) == with_text
    files = [path.relative_to(tmp_path / "latents") for path in sorted((tmp_path / "latents").rglob("*.*"))]
    assert files == [path.relative_to(with_text.path) for path in sorted(Path(with_text.path).rglob("*.*"))]
    for name in files:
        assert (tmp_path / "latents" / name).read_bytes() == (Path(with_text.path) / name).read_bytes(), name


@pytest.mark.parametrize("moved", [True, False])
def test_making_goes_on_from_an_export_that_moved_but_not_from_another(
    moved: bool, broken: Path, with_text: LatentsReport, tmp_path: Path
) -> None:
    out = tmp_path / "latents"
    with pytest.raises(Stopped):
        _make_half(broken, out, _stopped)
    export = shutil.copytree(broken, tmp_path / "moved" / "other-name")
    if not moved:
        rewrite(export, lambda captions: [text.upper() for text in captions])
    (staging,) = tmp_path.glob(".staging-*")
    before = (staging / "data" / "train-00000-of-00001.parquet").stat().st_mtime_ns
    assert make(export, out).splits == with_text.splits
    kept = (out / "data" / "train-00000-of-00001.parquet").stat().st_mtime_ns == before
    assert kept == moved
    captions = [row["caption_fuse"] for row in rows(out) if row["split"] == "train"]
    assert captions
    assert all(text.isupper() != moved for text in captions)


def rewrite(export: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the captions of an export's training shard."""
    (shard,) = (export / "data").glob("train-*")
    table = pq.read_table(shard)
    number = table.column_names.index("caption_fuse")
    captions = pa.array(change(table["caption_fuse"].to_pylist()))
    pq.write_table(table.set_column(number, table.field(number), captions), shard)


def test_latents_are_known_by_what_they_are_made_of(
    broken: Path, with_text: LatentsReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export and models may move; others of the same name are refused, in one process too."""
    monkeypatch.setattr(work.LatentsWork, "_shard", lambda *_: pytest.fail("made again"))
    out = Path(with_text.path)
    export = shutil.copytree(broken, tmp_path / "export")
    vae = shutil.copytree(str(MODELS.vae), tmp_path / "vae")
    assert make(export, out, vae=str(vae)) == with_text
    models = dataclasses.replace(MODELS, vae=str(vae))
    load(RECIPE, TEXT, {MAIN: Export(out)}, models)

    weights = vae / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UsageError, match=r"^--out=.*: holds other latents, by vae; "):
        make(export, out, vae=str(vae))
    with pytest.raises(UsageError, match=r"phase text: vae=.* has weights of sha256"):
        load(RECIPE, TEXT, {MAIN: Export(out)}, models)

    (shard,) = (export / "data").glob("train-*")
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"mdat", b"mdaT", 1))
    with pytest.raises(UsageError, match="holds other latents, by source_content; "):
        make(export, out)
    shard.write_bytes(data)
    assert make(export, out) == with_text
    rewrite(export, lambda captions: [text.upper() for text in captions])
    with pytest.raises(UsageError, match="holds other latents, by source_content; "):
        make(export, out)


def test_latents_made_before_contents_were_kept_are_known_by_their_exports_place(
    broken: Path, with_text: LatentsReport, tmp_path: Path
) -> None:
    out = shutil.copytree(with_text.path, tmp_path / "latents")
    manifest = json.loads((out / "latents.json").read_text())
    del manifest["source_content"]
    manifest["source_path"] = str(broken)
    (out / "latents.json").write_text(json.dumps(manifest))
    assert make(broken, out).splits == with_text.splits
    with pytest.raises(UsageError, match="holds other latents, by source_path; "):
        make(shutil.copytree(broken, tmp_path / "export"), out)


@pytest.mark.parametrize("beside", [False, True])
def test_another_tokenizer_beside_the_same_text_encoder_is_refused(
    beside: bool, broken: Path, with_text: LatentsReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the text encoder's folder, and in the one beside it, as diffusers keeps them; not for a phase without texts."""
    monkeypatch.setattr(work.LatentsWork, "_shard", lambda *_: pytest.fail("made again"))
    text = shutil.copytree(str(MODELS.text), tmp_path / "text_encoder")
    place = text
    if beside:
        place = tmp_path / "tokenizer"
        place.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (text / name).rename(place / name)
    out = Path(with_text.path)
    assert make(broken, out, text=str(text)) == with_text
    models = dataclasses.replace(MODELS, text=str(text))
    load(RECIPE, TEXT, {MAIN: Export(out)}, models)
    vocabulary = json.loads((place / "tokenizer.json").read_text())
    words = vocabulary["model"]["vocab"]
    (first, one), (second, other) = list(words.items())[-2:]
    words |= {first: other, second: one}
    (place / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(UsageError, match=r"^--out=.*: holds other latents, by tokenizer; "):
        make(broken, out, text=str(text))
    with pytest.raises(
        UsageError, match=r"phase text: text=.*text_encoder: has a tokenizer of sha256 [0-9a-f]{16}…; the"
    ):
        load(RECIPE, TEXT, {MAIN: Export(out)}, models)


def test_latents_made_before_tokenizers_were_kept_are_taken(
    broken: Path, with_text: LatentsReport, tmp_path: Path
) -> None:
    out = shutil.copytree(with_text.path, tmp_path / "latents")
    manifest = json.loads((out / "latents.json").read_text())
    assert manifest.pop("tokenizer")
    (out / "latents.json").write_text(json.dumps(manifest))
    assert make(broken, out).splits == with_text.splits
    load(RECIPE, TEXT, {MAIN: Export(out)}, MODELS)


def test_a_second_process_is_refused_in_one_line(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    words = rf"^--out={out}: pid {os.getpid()} on .* is writing to it; only one run"
    with run._sole_maker(Folder.at(out)), pytest.raises(ExportError, match=words):
        make(broken, out)
    assert not any(tmp_path.iterdir())


def test_what_another_process_has_made_meanwhile_is_not_made_again(
    broken: Path, with_text: LatentsReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "latents"

    @contextmanager
    def late(final: Folder) -> Iterator[None]:
        shutil.copytree(with_text.path, out)
        yield

    monkeypatch.setattr(run, "_sole_maker", late)
    monkeypatch.setattr(work.LatentsWork, "_shard", lambda *_: pytest.fail("made again"))
    assert make(broken, out).splits == with_text.splits


def test_the_command_line_says_what_it_made(by_command: dict[str, Any], even: Path, latents: Path) -> None:
    assert by_command["splits"] == {"train": 4, "validation": 2}
    assert (by_command["phase"], by_command["views"], by_command["failed"]) == ("latents:hq", K, 0)
    assert by_command["bytes"] > 6 * K * 2 * 8 * 8 * 6 * 8
    assert load_recipe(f"{__file__}").phase("hq") == HQ
    assert Export(latents).columns[-1] == "views"
    assert [row.columns["clip_id"] for row in Export(latents).rows] == [r.columns["clip_id"] for r in Export(even).rows]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--latents", f"{__file__}:hq"), "add --out FOLDER"),
        (
            ("--latents", f"{__file__}:other", "--out", "{out}"),
            "phase 'other': recipe latents has no such phase; allowed: text, hq",
        ),
        (("--latents", "huge", "--out", "{out}"), "recipe 'huge': no such training recipe; allowed: tiny, "),
        (("--latents", "vae", "--out", "{out}"), "recipe vae: trains a VAE and has no phases; allowed: tiny, "),
        (
            ("--latents", f"{__file__}:hq", "--out", "{out}", "--set", "hq.size=[32]"),
            "phase hq: size.1: field required",
        ),
        (("--latents", f"{__file__}:hq", "--out", "{out}", "--device", "cuda:9"), "device=cuda:9: is not available"),
        (("--latents", f"{__file__}:hq", "--out", "{latents}", "--views", "2"), "holds other latents"),
        (("--latents", f"{__file__}:hq", "--out", "{export}"), "is not empty"),
        (("--latents", "svd:II-a", "--out", "{out}"), "II-a of svd read caption_video, caption_summary, not in "),
        (("--latents", "svd:II-a", "--out", "{out}", "--set", "caption=caption_coca"), "models: there is no VAE"),
        (("--latents", f"{__file__}:hq", "--out", "{out}", "--set", "hq.select=[[motion,99,null]]"), "no clip of"),
        (("--latents", f"{__file__}:hq", "--out", "{out}", "--set", "hq.select=[[blur,0,null]]"), "column 'blur'"),
        (("--vae", "x"), "--vae=x: only export --latents takes it"),
    ],
)
def test_a_wrong_request_is_refused_before_work(
    arguments: tuple[str, ...], words: str, even: Path, latents: Path, tmp_path: Path, dailies: Dailies
) -> None:
    places = {"out": tmp_path / "out", "latents": latents, "export": even}
    done = dailies("export", even, *(one.format(**places) if "{" in one else one for one in arguments))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert not any(tmp_path.iterdir())


def test_latents_are_not_made_of_latents(latents: Path, tmp_path: Path, dailies: Dailies) -> None:
    done = dailies("export", latents, "--latents", f"{__file__}:hq", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "holds latents already" in done.stderr
