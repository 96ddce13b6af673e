"""A recipe's plan: what it counts, what it finds lacking in an export, and that a plan never trains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from dailies.curation.errors import UsageError  # noqa: E402
from dailies.pipelines.cli.main import app  # noqa: E402
from dailies.pipelines.cli.plan_tables import print_plan  # noqa: E402
from dailies.pipelines.train import Request, plan_run, train_run  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.models import SVD, SVD_TEXT, VideoUNet, count_parameters  # noqa: E402
from dailies.training.plan import Plan, available, cost, plan  # noqa: E402
from dailies.training.recipes import load_recipe  # noqa: E402
from dailies.training.recipes.recipe import ENCODER_DIMS, MAIN, Phase, TrainingRecipe, UNetSpec  # noqa: E402
from tests.training_export import COLUMNS, MODELS, build_export  # noqa: E402

BUILTIN = Path(__file__).resolve().parents[1] / "zoo" / "builtin"
VIDEO = Phase(name="video", task="text-to-video", steps=10, batch=3, size=(32, 24), frames=3, fps=8.0)
SMALL = TrainingRecipe(
    name="small", unet=UNetSpec(channels=(32,), attention=(False,), heads=1), text_tokens=5, phases=(VIDEO,)
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training clips of 24 to 30 frames at 24 1/s, 64×48 px."""
    folder = tmp_path_factory.mktemp("plan") / "export"
    return build_export(folder, clips=6, size=(64, 48), frames=(24, 30), validation=3)


# ---- recipes --------------------------------------------------------------------------------------------------------


def test_runs_begun_before_there_were_newer_fields_go_on() -> None:
    assert SMALL.hash == "ac919566"  # that of run folders made before the fields of LATER were there
    assert dataclasses.replace(SMALL, unet=dataclasses.replace(SMALL.unet, head_width=32)).hash != SMALL.hash
    assert dataclasses.replace(SMALL, phases=(dataclasses.replace(VIDEO, image_share=0.4),)).hash != SMALL.hash
    assert dataclasses.replace(SMALL, seed=1).hash != SMALL.hash


def test_svd_is_the_papers_table() -> None:
    low, middle, high, square = (384, 256), (576, 320), (1024, 576), (576, 576)
    rows = {
        # name: (task, from, size, frames, steps, batch, lr, P_mean, P_std); None where the paper does not say
        "I-a": ("text-to-image", None, (512, 512), 1, 1000, None, None, -1.2, 1.0),
        "I-b": ("text-to-image", "I-a", low, 1, 30_000, None, None, -1.2, 1.0),
        "II-a": ("text-to-video", "I-b", low, 14, 150_000, 1536, 1e-4, -1.2, 1.0),
        "II-b": ("text-to-video", "II-a", middle, 14, 100_000, 768, 1e-4, 0.0, None),
        "III": ("text-to-video", "II-b", high, 14, 50_000, 768, 3e-5, 0.5, 1.4),
        "i2v-base": ("image-to-video", "II-b", middle, 14, 50_000, 768, 3e-5, 0.7, 1.6),
        "i2v-hq-14": ("image-to-video", "i2v-base", high, 14, 50_000, 768, 3e-5, 1.0, 1.6),
        "i2v-hq-25": ("image-to-video", "i2v-base", high, 25, 50_000, 768, 3e-5, 1.0, 1.6),
        "interpolation": ("interpolation", "i2v-base", middle, 5, 10_000, 256, 1e-4, 1.0, 1.2),
        "multi-view": ("multi-view", "i2v-base", square, 21, 12_000, 16, 1e-5, None, None),
        "camera": ("image-to-video", "i2v-base", middle, 14, 5000, None, None, None, None),
    }
    recipe = load_recipe("svd")
    assert [phase.name for phase in recipe.phases] == list(rows)
    for phase in recipe.phases:
        before = recipe.before(phase)
        said = (phase.task, before and before.name, phase.size, phase.frames, phase.steps, phase.batch, phase.lr)
        said += (phase.p_mean, phase.p_std)
        assert all(wanted is None or wanted == value for wanted, value in zip(rows[phase.name], said, strict=True))
        assert (phase.ema, phase.drop_text) == (0.9999, 0.15)
        assert phase.noise_aug == (None if phase.task == "interpolation" else (-3.0, 0.5))
    assert recipe.phase("I-a").trains == "time-embedding"
    assert recipe.phase("camera").lora == ("camera",)
    assert [share for _, share in recipe.captions] == [0.5, 0.25, 0.25]
    net = recipe.unet
    assert (net.channels, net.attention, net.layers) == (SVD.channels, SVD.attention, SVD.layers)
    assert (net.level_heads, net.time_id_width) == (SVD.heads, SVD.time_id_width)
    assert recipe.encoder_dims.text_width == recipe.encoder_dims.image_width == SVD.cross_attention_dim


def test_what_is_known_of_the_frozen_models_is_so() -> None:
    clip = json.loads((BUILTIN / "clip-world" / "config.json").read_text())
    vae = json.loads((BUILTIN / "vae-world" / "config.json").read_text())
    world = ENCODER_DIMS["world"]
    assert (world.text_width, world.image_width) == (clip["text_config"]["hidden_size"], clip["projection_dim"])
    assert world.factor == 2 ** (len(vae["block_out_channels"]) - 1)


def test_a_size_that_the_model_cannot_halve_is_refused() -> None:
    deep = UNetSpec(channels=(32, 32, 32), attention=(False,) * 3, heads=1)
    with pytest.raises(UsageError, match=r"phase video: size=\(32, 24\): each side must be a multiple of 16 px"):
        dataclasses.replace(SMALL, unet=deep)
    svd = load_recipe("svd")
    with pytest.raises(UsageError, match=r"phase I-a: size=\(384, 224\): each side must be a multiple of 64 px"):
        dataclasses.replace(svd, phases=(dataclasses.replace(svd.phases[0], size=(384, 224)),))
    with pytest.raises(UsageError, match=r"^unet\.head_width=48: does not divide each of channels=\(64, 128\)$"):
        UNetSpec(channels=(64, 128), head_width=48)


# ---- what is counted ------------------------------------------------------------------------------------------------


def test_flop_are_those_of_the_layers() -> None:
    """By hand, of all convolutions, products and attentions of a network whose one transformer is in the middle."""
    c, time, frames, pixels, tokens, wide = 32, 128, 3, 8 * 6, 5, 96
    every = frames * pixels

    def conv(before: int, after: int, taps: int) -> int:
        return 2 * every * taps * before * after

    def resblock(before: int) -> int:
        narrowed = conv(before, c, 1) if before != c else 0
        spatial = conv(before, c, 9) + conv(c, c, 9) + narrowed
        return spatial + 2 * conv(c, c, 3) + 2 * (2 * time * c)  # over time, and the time embedding for both

    feed = conv(c, 8 * c, 1) + conv(4 * c, c, 1)
    self_attention = 4 * conv(c, c, 1)
    over_space, over_time = 2 * every * pixels * 2 * c, 2 * every * frames * 2 * c
    across = 2 * conv(c, c, 1) + 2 * tokens * wide * 2 * c + 2 * every * tokens * 2 * c
    places = 2 * frames * (c * 4 * c + 4 * c * c)
    middle = 2 * conv(c, c, 1) + 3 * feed + 2 * self_attention + over_space + over_time + 2 * across + places
    embeddings = 2 * (c * time + time * time) + 2 * (3 * 32 * time + time * time)  # noise level, added ids
    ends = conv(4, c, 9) + conv(c, 4, 9)
    assert cost(SMALL, VIDEO).forward == ends + embeddings + 3 * resblock(c) + 2 * resblock(2 * c) + middle


def test_training_takes_three_times_the_forward_pass_and_more_where_it_computes_twice() -> None:
    spent = cost(SMALL, VIDEO)
    assert spent.both / spent.forward == pytest.approx(3, rel=0.03)  # no gradient for the latents themselves
    twice = cost(SMALL, dataclasses.replace(VIDEO, checkpoint_levels=(0,)))
    assert twice.forward == spent.forward
    assert twice.both > spent.both + 0.8 * spent.forward


@pytest.fixture(scope="module")
def svd_image() -> Plan:
    """SVD's plan, of its first phase alone."""
    return plan(load_recipe("svd"), phase="I-b")


def test_svd_in_its_cheapest_shape(svd_image: Plan) -> None:
    """The figures of the paper and of a count of diffusers' model: 1521 M weights, 656 M of them temporal."""
    row = svd_image.phases[0]
    with torch.device("meta"):
        published = count_parameters(VideoUNet(SVD_TEXT))
    ids = 3 * 256 * 1280 + 1280 + 1280 * 1280 + 1280
    assert row.parameters == published + ids
    assert (published / 1e6, row.temporal / 1e6) == (pytest.approx(1521, abs=1), pytest.approx(656, abs=1))
    assert row.trained == published - row.temporal  # images train neither temporal layers nor added ids
    assert row.forward_tflop == pytest.approx(0.80 * (48 * 32) / 64**2, rel=0.1)  # SD 2.1 at 512²: 0.80 TFLOP
    assert row.gigabytes == (8 * row.parameters + 12 * row.trained) / 1e9


# ---- what is needed and lacking -------------------------------------------------------------------------------------


def look(export: Path, **change: object) -> tuple[int | None, tuple[str, ...]]:
    """(clips, lacks) of the video phase, changed."""
    phase = dataclasses.replace(VIDEO, **change)  # type: ignore[arg-type]
    there = available(dataclasses.replace(SMALL, phases=(phase,)), phase, {MAIN: Export(export)})
    return there.clips, there.lacks


def test_the_clips_of_an_export_are_counted(export: Path) -> None:
    assert look(export) == (4, ())
    assert look(export, batch=6) == (4, ("2 more clips for one batch without repeats",))
    assert look(export, size=(128, 96)) == (4, ("pixels: 4 of 4 clips would be enlarged",))
    assert look(export, frames=30) == (0, ("clips of 30 frames at 8 fps: the longest has 10",))
    none = ("frames=3: no training clip of 3 frames at 8 fps passes select",)
    assert look(export, select=(("motion", 1e9, None),)) == (0, none)


def test_each_missing_column_is_named_by_phase(tmp_path: Path) -> None:
    plain = build_export(
        tmp_path / "export", clips=3, size=(64, 48), frames=(24, 24), validation=3, columns=COLUMNS[:1]
    )
    assert look(plain, select=(("sharp", 1, None),)) == (None, ("column caption_fuse", "column sharp"))


def test_a_plan_adds_up(export: Path) -> None:
    made = plan(SMALL, {MAIN: Export(export)}, MODELS, tflops=2.0)
    row = made.phases[0]
    assert (row.samples, row.clips, row.epochs) == (30, 4, 30 / 4)
    assert row.eflop == pytest.approx(30 * row.tflop / 1e6)
    assert row.gpu_hours == pytest.approx(row.eflop * 1e6 / 2 / 3600)
    assert row.seconds == 2 / 8
    assert row.columns == ("caption_fuse", "motion")
    assert (made.lacks, made.differs) == ((), ())
    bare = plan(SMALL, models=MODELS)
    assert (bare.lacks, bare.phases[0].clips, bare.phases[0].epochs) == (
        ("an export of clips to train on",),
        None,
        None,
    )


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_plan_says_what_is_lacking(
    svd_image: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_plan(svd_image, as_json=False)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for words in ("a VAE", "a text encoder", "46,080,000", "1,524.6", "865.9", "37.9", "26.3", "1e-4"):
        assert words in text
    print_plan(svd_image, as_json=True)
    assert json.loads(capsys.readouterr().out)["phases"][0]["trained"] == svd_image.phases[0].trained


def test_a_dry_run_of_tiny_needs_no_data() -> None:
    done = CliRunner().invoke(app, ["train", "tiny", "--dry-run", "--json", "--phase", "hq"])
    assert done.exit_code == 0
    assert [row["name"] for row in json.loads(done.stdout)["phases"]] == ["hq"]


def test_svd_without_weights_is_refused_before_any_work(tmp_path: Path, export: Path) -> None:
    with pytest.raises(
        UsageError, match=r"svd lacks weights to start from \(--from\), a VAE \(--vae\), a text encoder"
    ) as caught:
        train_run(
            Request(recipe="svd", data=[str(indexed(export))], sets=["caption=caption_fuse"]),
            str(tmp_path / "run"),
            say=print,
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def indexed(export: Path) -> Path:
    (export / "index.parquet").touch()
    return export


def test_what_is_missing_of_the_request_is_said(tmp_path: Path) -> None:
    tiny = Request(recipe="tiny")
    with pytest.raises(UsageError, match="--data EXPORT"):
        train_run(tiny, "run", say=print)
    with pytest.raises(UsageError, match="--out RUN"):
        train_run(dataclasses.replace(tiny, data=["data"]), None, say=print)
    with pytest.raises(UsageError, match=r"recipe 'huge': no such training recipe; allowed: tiny, svd, .*, FILE\.py$"):
        plan_run(Request(recipe="huge"), say=print)
    with pytest.raises(UsageError, match="phase 'last': recipe tiny has no such phase; allowed: image, video, hq"):
        plan_run(dataclasses.replace(tiny, phase="last"), say=print)
    with pytest.raises(UsageError, match=r"--data=.*: holds no index\.parquet"):
        plan_run(dataclasses.replace(tiny, data=[str(tmp_path)]), say=print)
    with pytest.raises(
        UsageError, match="finetune takes its network's shape from its models, and lacks weights to start"
    ):
        plan_run(Request(recipe="finetune"), say=print)
    with pytest.raises(UsageError, match=r"model=no-such-thing: no such folder; give one"):
        plan_run(dataclasses.replace(tiny, start="no-such-thing"), say=print)
