"""The zoo: a run becomes a model that diffusers and ``dailies zoo run`` load, with a card that leads back to its clips."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dailies import zoo
from dailies.curation import video
from dailies.curation.errors import Damaged, NameTaken, NoSuchModel, NotFinite, UsageError
from dailies.curation.model_folders import refuse_code
from dailies.zoo.catalog import built_ins, resolve
from dailies.zoo.entry import SamplingDefaults, Sources, ZooEntry
from dailies.zoo.formats import lock, safetensors_info
from dailies.zoo.load import load_pipeline, pipeline_spec
from dailies.zoo.pipelines import BY_TASK
from dailies.zoo.provenance import SourceExport
from dailies.zoo.run_record import RunRecord
from dailies.zoo.store import ENTRY, Store
from tests.conftest import Dailies

ROOT = Path(__file__).resolve().parents[1]
BEFORE = Path(__file__).with_name("before")


def entry(name: str = "one", **changes: Any) -> ZooEntry:
    return ZooEntry(**{"name": name, "task": "component", "sources": Sources(clips=3)} | changes)


def fill(folder: Path, name: str = "one") -> None:
    (folder / ENTRY).write_text(entry(name).to_json())
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.bin").write_bytes(bytes(range(200)))


# ---- entries, locks, the store: no torch ----------------------------------------------------------------------------


def test_an_entry_survives_json() -> None:
    made = entry(size=(64, 32), sampling=SamplingDefaults(guidance=(2.0, 3.0)), licence="MIT")
    assert ZooEntry.from_json(made.to_json()) == made


def test_an_entry_of_a_later_version_is_read_and_nonsense_is_not() -> None:
    row = json.loads(entry().to_json())
    assert ZooEntry.from_json(json.dumps(row | {"colour": "red"})).name == "one"
    for text in ("", "[]", "{}", json.dumps(row | {"task": "cooking"}), json.dumps(row | {"format": 99})):
        with pytest.raises((Damaged, UsageError)):
            ZooEntry.from_json(text)


@pytest.mark.parametrize(
    ("fps", "fps_range", "at", "not_at"),
    [(None, None, (5, 30), ()), (8, None, (8,), (7, 9)), (8, (6, 12), (6, 7, 12), (5, 13))],
)
def test_an_entry_knows_which_rates_its_model_was_trained_at(fps: Any, fps_range: Any, at: Any, not_at: Any) -> None:
    one = entry(fps=fps, fps_range=fps_range)
    assert all(one.trained_at(rate) for rate in at)
    assert not any(one.trained_at(rate) for rate in not_at)


@pytest.mark.parametrize("name", ["", "../up", "UP", ".hidden", "a b", "x" * 64, "a/b"])
def test_names_are_folder_names(name: str) -> None:
    with pytest.raises(UsageError, match="not a model's name"):
        Store("anywhere").check_free(name)


def test_a_flipped_byte_a_missing_and_an_extra_file_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.adding("one") as folder:
        fill(folder)
    assert lock.verify(store.open("one", deep=True)) == []
    file = tmp_path / "one" / "unet" / "weights.bin"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with pytest.raises(Damaged, match=r"unet/weights\.bin changed"):
        store.open("one")  # the sizes are right
    assert [problem.path for problem in lock.verify(tmp_path / "one")] == ["unet/weights.bin"]
    with pytest.raises(Damaged, match=r"unet/weights\.bin changed"):
        store.open("one", deep=True)
    file.unlink()
    (tmp_path / "one" / "unet" / "extra.py").write_text("")
    problems = {problem.path: problem.what for problem in lock.verify(tmp_path / "one", deep=False)}
    assert problems == {"unet/extra.py": "is not in the lock", "unet/weights.bin": "is missing"}


def test_a_file_that_was_swapped_is_read_again_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and time of the old file are easily given to the new one; its inode and time of change are not."""
    from dailies.zoo.formats import hashes

    store = Store(tmp_path / "zoo")
    with store.adding("one") as folder:
        fill(folder)
    store.open("one")
    read: list[Path] = []
    keep = hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda path, bar: [read.append(path), keep(path, bar)][1])
    store.open("one")
    assert read == []
    file = tmp_path / "zoo" / "one" / "unet" / "weights.bin"
    status, data = file.stat(), bytearray(file.read_bytes())
    data[100] ^= 1
    for swap in (file, tmp_path / "other"):  # written in place, and renamed over it
        swap.write_bytes(data)
        os.utime(swap, ns=(status.st_atime_ns, status.st_mtime_ns))
        swap.replace(file)
        with pytest.raises(Damaged, match=r"unet/weights\.bin changed"):
            store.open("one")
    assert set(read) == {file}


def test_what_a_file_manager_leaves_in_a_folder_is_no_part_of_the_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.adding("one") as folder:
        fill(folder)
        (folder / ".DS_Store").write_bytes(b"x")
    for name in (".DS_Store", "unet/.DS_Store", "unet/._weights.bin", "Thumbs.db", "desktop.ini"):
        (tmp_path / "one" / name).write_bytes(b"more")
    assert ".DS_Store" not in (tmp_path / "one" / lock.LOCK).read_text()
    assert store.open("one", deep=True) == tmp_path / "one"


def test_a_lock_cannot_point_outside(tmp_path: Path) -> None:
    (tmp_path / lock.LOCK).write_text(json.dumps({"format": 1, "files": {"../x": {"sha256": "", "bytes": 1}}}))
    with pytest.raises(Damaged, match="outside"):
        lock.verify(tmp_path)


def test_what_fails_on_its_way_in_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def interrupted() -> None:
        with store.adding("one") as folder:
            fill(folder)
            assert store.names() == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.names() == []
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_publisher_leaves_nothing_visible_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dailies.zoo.store import Store\n"
        "with Store(sys.argv[1]).adding('one') as folder:\n"
        "    (folder / 'model.json').write_text('{}'); (folder / 'dailies.lock.json').write_text('{}')\n"
        "    print('half', flush=True); time.sleep(60)"
    )
    running = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
    assert running.stdout is not None
    running.stdout.readline()
    store = Store(tmp_path)
    with store.adding("two") as folder:  # does not take the living one's folder away
        fill(folder, "two")
    assert len(list(tmp_path.glob(".adding-one-*"))) == 1
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert store.names() == ["two"]
    with store.adding("one") as folder:
        fill(folder)
    assert store.names() == ["one", "two"]
    assert not list(tmp_path.glob(".adding-*"))


def test_of_two_publishers_of_one_name_one_wins(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def both() -> None:
        with store.adding("one") as slow:
            fill(slow)
            with Store(tmp_path).adding("one") as fast:
                fill(fast)

    with pytest.raises(NameTaken):
        both()
    assert store.names() == ["one"]
    assert not list(tmp_path.glob(".adding-*"))


def test_a_damaged_entry_does_not_hide_the_others(tmp_path: Path, dailies: Dailies) -> None:
    store = Store(tmp_path)
    for name in ("one", "two"):
        with store.adding(name) as folder:
            fill(folder, name)
    (tmp_path / "one" / ENTRY).write_text("{")
    done = dailies("zoo", "list", "--zoo", tmp_path, "--json")
    said = json.loads(done.stdout)
    assert [row["name"] for row in said["models"] if not row["built_in"]] == ["two"]
    assert list(said["damaged"]) == ["one"]
    assert dailies("zoo", "verify", "--zoo", tmp_path).returncode == 1
    assert dailies("zoo", "verify", "two", "--zoo", tmp_path).returncode == 0


def test_built_ins_are_found_by_their_entries(tmp_path: Path) -> None:
    (tmp_path / "coca").mkdir()
    (tmp_path / "coca" / ENTRY).write_text(entry("coca", about="Captions a world.", licence="MIT").to_json())
    (tmp_path / "no-entry").mkdir()
    found = built_ins(tmp_path)
    assert list(found) == ["coca"]
    assert (found["coca"].about, found["coca"].licence, found["coca"].kind) == ("Captions a world.", "MIT", "component")


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="zoo:NAME"):
        resolve("openai/clip")
    with pytest.raises(NoSuchModel, match="nowhere"):
        resolve("zoo:nowhere", tmp_path)


def test_a_card_that_says_nothing_gives_nothing() -> None:
    assert SourceExport.of_card_without_manifest("") == SourceExport()


# ---- what was made before today's format of exports, runs and zoos ---------------------------------------------------


def test_the_card_of_an_export_without_export_json_is_read() -> None:
    export = SourceExport.of_run({"export_card": (BEFORE / "export" / "README.md").read_text()})
    assert export == SourceExport(
        name="export@c5f23466",
        clips=5,
        sources=3,
        recipe="quickstart",
        recipe_hash="71434a5a",
        version="0.1.0",
        selection="captioned",
        rules={
            "clip_similarity": {"min_quantile": 0.1, "nulls": "drop"},
            "motion": {"min": 0.05, "nulls": "drop"},
            "text_area": {"max": 0.07, "nulls": "drop"},
        },
        limits={"clip_similarity": {"min": 0.7283610701560974}, "motion": {"min": 0.05}, "text_area": {"max": 0.07}},
    )


@pytest.mark.parametrize("card", [None, "", "words"])
def test_a_run_whose_export_had_no_card_is_read(tmp_path: Path, card: str | None) -> None:
    phase = {"name": "video", "task": "text-to-video", "steps": 3, "done": True, "size": [32, 32]}
    run = {"recipe": {}, "recipe_hash": "0", "data": "/data", "export_card": card, "models": {}, "phases": [phase]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert RunRecord.read(tmp_path).export == SourceExport()


def test_an_older_zoo_is_listed_shown_and_checked(dailies: Dailies) -> None:
    """Only its JSON files and its card are here: ``verify`` names the weights and pictures that are not."""
    zoo = BEFORE / "zoo"
    (row,) = [
        row
        for row in json.loads(dailies("zoo", "list", "--zoo", zoo, "--json").stdout)["models"]
        if not row["built_in"]
    ]
    assert (row["name"], row["task"], row["sampling"]["guidance"]) == ("before", "text-to-video", [1.0, 2.0])
    shown = dailies("zoo", "show", "before", "--zoo", zoo).stdout
    for text in ("3 × 32×32, 8 fps", "2 steps, guidance 1 → 2", "captioned", "71434a5a", "2.06 M parameters"):
        assert text in shown
    assert pipeline_spec(zoo / "before").load_class().__module__ == "dailies.zoo.text_to_video"
    done = dailies("zoo", "verify", "--zoo", zoo, "--json")
    problems = {problem["path"]: problem["what"] for problem in json.loads(done.stdout)["before"]}
    parts = {"text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"}
    absent = {f"{part}.safetensors" for part in parts} | {"samples.png", "samples-image.png"}
    assert (done.returncode, problems) == (1, dict.fromkeys(absent, "is missing"))


# ---- what a folder may name and hold --------------------------------------------------------------------------------


def index(folder: Path, **changes: Any) -> Path:
    parts = {
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    row = {"_class_name": "TextToVideoPipeline", **parts, **changes}
    (folder / "model_index.json").write_text(json.dumps({key: value for key, value in row.items() if value}))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": ["theirs", "Pipeline"]},
        {"_class_name": "StableDiffusionPipeline"},
        {"unet": ["theirs", "UNetSpatioTemporalConditionModel"]},
        {"unet": ["diffusers", "FluxTransformer2DModel"]},
        {"safety": ["theirs", "Checker"]},
        {"text_encoder": None},
    ],
)
def test_a_folder_cannot_name_other_classes(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert pipeline_spec(index(tmp_path)).name == "TextToVideoPipeline"
    with pytest.raises(Damaged):
        pipeline_spec(index(tmp_path, **changes))


@pytest.mark.parametrize("file", ["unet/model.py", "unet/diffusion_pytorch_model.bin", "vae/x.ckpt"])
def test_a_folder_cannot_hold_code(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text("")
    with pytest.raises(Damaged, match="may hold code"):
        refuse_code(tmp_path)


def test_a_clip_is_written_as_it_is(tmp_path: Path) -> None:
    frames = np.zeros((5, 32, 64, 3), np.uint8)
    for number in range(5):
        frames[number, :, number * 12 :] = (200, 40 * number, 60)
    video.write_clip(frames, 8, tmp_path / "clip.mp4")
    back = video.decode_bytes((tmp_path / "clip.mp4").read_bytes())
    assert back.pixels.shape == frames.shape
    assert np.abs(back.pixels.astype(int) - frames).mean() < 4
    assert video.probe(str(tmp_path / "clip.mp4")).fps == 8
    with pytest.raises(ValueError, match="uint8"):
        video.write_clip(frames / 255, 8, tmp_path / "no.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


# ---- the doors ------------------------------------------------------------------------------------------------------


def test_the_door_is_light_and_leads_to_every_name() -> None:
    code = (
        "import sys, dailies.zoo as zoo, dailies.zoo.formats as formats\n"
        "[getattr(zoo, name) for name in zoo.__all__]\n"
        "assert callable(zoo.run) and callable(zoo.publish)\n"
        "from importlib import import_module\n"
        "[import_module(f'dailies.zoo.formats.{name}') for name in formats.__all__ if name != 'time_ids']\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'jinja2', 'pyarrow', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="cook"):
        _ = zoo.cook


def test_formats_know_nothing_of_the_zoo() -> None:
    for path in (ROOT / "zoo" / "formats").glob("*.py"):
        used = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in used if name and "zoo" in name and "zoo.formats" not in name}, path


# ---- publishing and running: tiny models in the real formats --------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``run``, and ``zoo`` with both tasks published out of it."""
    torch = pytest.importorskip("torch")
    for library in ("diffusers", "transformers", "tokenizers"):
        pytest.importorskip(library)
    torch.set_num_threads(1)
    from dailies.zoo.publishing import publish
    from tests.tiny_run import make_run

    folder = tmp_path_factory.mktemp("published")
    make_run(folder)
    publish(folder / "run", name="animate", to=folder / "zoo", licence="Apache-2.0")
    publish(folder / "run", name="tell", to=folder / "zoo", phase="video", which="last")
    return folder


@pytest.fixture(scope="module")
def picture(made: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (301, 200), "orange").save(made / "first.png")
    return made / "first.png"


def test_the_last_done_phase_is_published_with_its_averaged_weights(made: Path) -> None:
    found = Store(made / "zoo").entry("animate")
    assert found.sampling == SamplingDefaults(steps=3, guidance=(1.0, 2.5), noise_aug=0.02)
    assert (found.task, found.sources.phase, found.sources.weights) == ("image-to-video", "animate", "ema")
    assert Store(made / "zoo").entry("tell").sources.weights == "last"
    from safetensors.torch import load_file

    name = "diffusion_pytorch_model.safetensors"
    published = load_file(made / "zoo" / "animate" / "unet" / name)
    trained = load_file(made / "run" / "phases" / "animate" / "step-000200" / "unet_ema" / name)
    assert all(bool((published[key] == trained[key]).all()) for key in trained)
    assert found.parameters == sum(
        parameters for parameters, _ in safetensors_info.parts(made / "zoo" / "animate").values()
    )


def test_a_card_says_who_wrote_the_captions_that_it_was_trained_on(made: Path) -> None:
    card = (made / "zoo" / "tell" / "README.md").read_text()
    assert "- `caption_told` by `video`, model `zoo:seer`, prompt `12ab`, fields as text by format 1: prompt it" in card
    assert "caption_other" not in card


def test_every_file_is_as_published(made: Path, dailies: Dailies) -> None:
    done = dailies("zoo", "verify", "--zoo", made / "zoo", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"animate": [], "tell": []})
    assert lock.LOCK not in lock.read(made / "zoo" / "tell")
    assert "README.md" in lock.read(made / "zoo" / "tell")


def test_diffusers_own_pipeline_loads_and_runs_it(made: Path, picture: Path) -> None:
    import torch
    from diffusers import StableVideoDiffusionPipeline
    from PIL import Image

    pipe = StableVideoDiffusionPipeline.from_pretrained(str(made / "zoo" / "animate"), use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert (pipe.scheduler.config.sigma_max, pipe.scheduler.config.sigma_min) == (80.0, 0.002)
    pipe.scheduler.set_timesteps(3)
    assert pipe.scheduler.timesteps[0] == pytest.approx(0.25 * np.log(80), rel=1e-5)
    first = Image.open(picture).resize((64, 32))
    noise = torch.Generator().manual_seed(0)
    frames = pipe(first, 32, 64, num_inference_steps=2, num_frames=4, generator=noise, output_type="np").frames
    assert frames.shape == (1, 4, 32, 64, 3)
    assert np.isfinite(frames).all()


def test_weights_that_were_swapped_are_not_loaded(made: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "tell"
    shutil.copytree(made / "zoo" / "tell", folder)
    load_pipeline(folder, device="cpu")
    (file,) = (folder / "unet").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Damaged, match=r"safetensors changed: its SHA-256 differs"):
        load_pipeline(folder, device="cpu")


def test_the_towers_are_those_of_the_clip_model(made: Path) -> None:
    import torch
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(str(made / "models" / "clip"))
    tell, animate = (load_pipeline(made / "zoo" / name, device="cpu") for name in ("tell", "animate"))
    ids = tell.tokenizer(["a red circle"], padding="max_length", return_tensors="pt").input_ids
    assert ids.shape == (1, 10)  # the recipe's text_tokens, not the tokenizer's own 12
    assert ids[0, :6].tolist() == [0, 8, 3, 5, 1, 1]
    with torch.no_grad():
        wanted = clip.text_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(tell.encode_prompt(["a red circle"], "cpu"), wanted)
        pixels = torch.rand(1, 3, 224, 224)
        seen = clip.visual_projection(clip.vision_model(pixels).pooler_output)
        torch.testing.assert_close(animate.image_encoder(pixels).image_embeds, seen)


def test_guidance_is_against_a_context_of_zeros_and_grows_over_the_frames(made: Path) -> None:
    import torch

    pipe = load_pipeline(made / "zoo" / "tell", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    size: dict[str, Any] = {"height": 32, "width": 64, "num_inference_steps": 1, "output_type": "latent"}
    noise = torch.randn(1, 4, 4, 16, 32, generator=torch.Generator().manual_seed(0))

    def sample(prompt: str, first: float, last: float) -> Any:
        return pipe(prompt, min_guidance_scale=first, max_guidance_scale=last, latents=noise, **size).frames

    plain, strong = sample("red", 1, 1), sample("red", 5, 5)
    pipe.encode_prompt, keep = (lambda prompts, device: torch.zeros_like(keep(prompts, device))), pipe.encode_prompt
    without = sample("red", 1, 1)
    pipe.encode_prompt = keep
    assert (plain - without).abs().max() > 0.01  # or the next line would hold for any weight
    torch.testing.assert_close(strong, without + 5 * (plain - without), rtol=1e-3, atol=1e-3)
    growing = sample("red", 1, 5)
    torch.testing.assert_close(growing[:, 0], plain[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(growing[:, -1], strong[:, -1], rtol=1e-3, atol=1e-3)


def test_text_becomes_a_video_file(made: Path, dailies: Dailies) -> None:
    args = ("--prompt", "a red circle falls", "--zoo", made / "zoo", "--steps", 2, "--device", "cpu", "--json")
    done = dailies("zoo", "run", "tell", "--out", made / "deep" / "tell.mp4", *args)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 4
    assert json.loads(done.stdout)["prompt"] == "a red circle falls"
    first = (made / "deep" / "tell.mp4").read_bytes()
    assert video.decode_bytes(first).pixels.shape == (4, 32, 64, 3)
    dailies("zoo", "run", "tell", "--out", made / "again.mp4", *args)
    dailies("zoo", "run", "tell", "--out", made / "other.mp4", "--seed", 1, *args)
    assert (made / "again.mp4").read_bytes() == first
    assert (made / "other.mp4").read_bytes() != first


def test_an_image_becomes_a_video_file(made: Path, picture: Path, dailies: Dailies) -> None:
    args = ("--image", picture, "--steps", 1, "--frames", 3, "--guidance", "1:2", "--fps", 12, "--device", "cpu")
    done = dailies("zoo", "run", made / "zoo" / "animate", "--out", made / "animate.mp4", *args)
    assert done.returncode == 0, done.stderr
    assert "3 frames of 64×32 at 12 fps" in done.stdout
    assert "fps=12: animate was trained at " in done.stdout, "a rate that it never saw"
    assert video.probe(str(made / "animate.mp4")).fps == 12


def test_a_clip_leads_from_its_source_to_the_card(made: Path) -> None:
    """The export's index has the clip and its source; the card names the clip, the source, the selection, the recipes."""
    import pyarrow.parquet as pq
    from huggingface_hub import ModelCard

    from tests.tiny_run import CLIPS, SOURCE

    source = Path(SOURCE).name  # where on a disk it lies is nobody's business

    row = pq.read_table(made / "export" / "index.parquet").to_pylist()[1]
    assert (row["clip_id"], row["uri"]) == (CLIPS[1], SOURCE)
    text = (made / "zoo" / "animate" / "README.md").read_text()
    assert f"| `{CLIPS[1]}` | image, video, animate | `{source}` | 2.00 s + 2.00 s |" in text
    assert "selection `main`, by the rules below" in text
    assert "| `motion` | min_quantile 0.25 | min 1.375 |" in text
    assert "curation recipe `quickstart`, hash `0123abcd`" in text
    assert "Training recipe `tiny`, hash `feedc0de`" in text
    assert ": 2 clips from 2 sources" in text
    assert str(made) not in text
    assert "| 1.25 (0) | 0.625 (200) |" in text
    assert ModelCard(text).data.to_dict() == {
        "license": "Apache-2.0",
        "pipeline_tag": "image-to-video",
        "library_name": "diffusers",
        "tags": ["video", "dailies"],
    }
    assert "![samples of phase animate](samples.png)" in text
    assert "rendered" not in text
    found = Store(made / "zoo").entry("animate").sources
    assert (found.selection, found.curation_hash, found.recipe_hash) == ("main", "0123abcd", "feedc0de")


def test_list_and_show_say_what_is_there(made: Path, dailies: Dailies) -> None:
    listed = dailies("zoo", "list", "--zoo", made / "zoo").stdout
    assert "image-to-video" in listed
    assert "4 × 64×32, 8 fps" in listed
    shown = dailies("zoo", "show", "tell", "--zoo", made / "zoo").stdout
    for what in ("TextToVideoPipeline", "feedc0de", "main", "0123abcd", "phases/video/step-000200"):
        assert what in shown
    assert json.loads(dailies("zoo", "show", "tell", "--zoo", made / "zoo", "--json").stdout)["kind"] == "pipeline"


def test_nothing_is_written_of_values_that_are_not_finite(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dailies.zoo import generate

    def broken(folder: Path, device: str | None) -> Any:
        pipeline = load_pipeline(folder, device=device)
        pipeline.vae.decoder.conv_norm_out.bias.data.fill_(float("nan"))
        return pipeline

    monkeypatch.setattr(generate, "load_pipeline", broken)
    with pytest.raises(NotFinite, match="tell produced NaN or infinite values; nothing was written"):
        generate.run("tell", zoo=made / "zoo", prompt="red", out=made / "nan.mp4", steps=1, device="cpu")
    assert not (made / "nan.mp4").exists()


BAD_RUNS = {
    "tell --out x.mp4": "give it a --prompt",
    "tell --prompt red --image first.png --out x.mp4": "leave --image out",
    "animate --out x.mp4": "give it an --image",
    "animate --image absent.png --out x.mp4": "no such file",
    "animate --image run/run.json --out x.mp4": "cannot be read",
    "animate --image first.png --prompt red --out x.mp4": "leave --prompt out",
    "tell --prompt red --out x.gif": "must end in .mp4",
    "tell --prompt red --out x.mp4 --size 60x31": "multiples of 8",
    "tell --prompt red --out x.mp4 --size wide": "WIDTHxHEIGHT",
    "tell --prompt red --out x.mp4 --frames 0": "frames=0: must be between 1 and 1024",
    "tell --prompt red --out x.mp4 --steps 0": "steps=0",
    "tell --prompt red --out x.mp4 --guidance much": "FIRST:LAST",
    "tell --prompt red --out x.mp4 --motion-bucket 300": "motion-bucket=300",
    "other --prompt red --out x.mp4": "no model 'other'",
}


@pytest.mark.parametrize("line", BAD_RUNS)
def test_a_bad_request_is_one_line_before_any_loading(
    made: Path, picture: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(made)
    began = time.monotonic()
    done = dailies("zoo", "run", *line.split(), "--zoo", made / "zoo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert BAD_RUNS[line] in done.stderr
    assert time.monotonic() - began < 2
    assert not (made / "x.mp4").exists()


BAD_PUBLISHES = {
    "run --as animate": "published in",
    "run --as Not/Good": "not a model's name",
    "run --as new --phase image": "text-to-image, which cannot be published yet",
    "run --as new --phase absent": "it has: image (done), video (done)",
    "run --as new --phase hq": "is not done",
    "run --as new --weights best": "allowed: ema, last",
    "zoo --as new": "not a training run",
}


@pytest.mark.parametrize("line", BAD_PUBLISHES)
def test_a_bad_publish_is_one_line_and_leaves_nothing(
    made: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(made)
    done = dailies("zoo", "publish", *line.split(), "--to", "zoo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert BAD_PUBLISHES[line] in done.stderr
    assert sorted(path.name for path in (made / "zoo").iterdir()) == [".lock", "animate", "tell"]


def test_weights_that_do_not_fit_are_not_published(made: Path, dailies: Dailies) -> None:
    """diffusers fills missing weights with noise and goes on; the zoo does not."""
    from safetensors.torch import load_file, save_file

    run = made / "run"
    file = run / "phases" / "video" / "step-000200" / "unet_ema" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    save_file({key: value.clone() for key, value in whole.items() if key != "conv_out.bias"}, file)
    done = dailies("zoo", "publish", run, "--as", "holes", "--phase", "video", "--to", made / "zoo")
    save_file(whole, file)
    assert done.returncode == 2
    assert "conv_out.bias" in done.stderr
    assert sorted(path.name for path in (made / "zoo").iterdir()) == [".lock", "animate", "tell"]


def test_what_no_pipeline_samples_is_not_published(made: Path, dailies: Dailies) -> None:
    path = made / "run" / "run.json"
    whole = path.read_text()
    facts = json.loads(whole)
    phases = [row for row in facts["recipe"].get("phases", []) if row.get("name") != "video"]
    facts["recipe"]["phases"] = [*phases, {"name": "video", "objective": "flow"}]
    path.write_text(json.dumps(facts))
    done = dailies("zoo", "publish", made / "run", "--as", "flowing", "--phase", "video", "--to", made / "zoo")
    path.write_text(whole)
    assert done.returncode == 2
    assert "trained by flow matching" in done.stderr


def test_a_run_that_is_still_training_says_which_phase_to_wait_for(made: Path, dailies: Dailies) -> None:
    path = made / "run" / "run.json"
    whole = path.read_text()
    facts = json.loads(whole)
    for row in facts["phases"]:
        row["done"] = row["name"] == "image"
    path.write_text(json.dumps(facts))
    done = dailies("zoo", "publish", made / "run", "--as", "early", "--to", made / "zoo")
    path.write_text(whole)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "phase video can, and is not finished: repeat dailies train, which goes on" in done.stderr


def test_parts_that_do_not_fit_together_are_named_before_loading(made: Path, tmp_path: Path) -> None:
    from dailies.zoo.assemble import check

    run = json.loads((made / "run" / "run.json").read_text())
    models = {name: Path(path) for name, path in run["models"].items()}
    net = made / "run" / "phases" / "video" / "step-000200" / "unet"
    tell, animate = BY_TASK["text-to-video"], BY_TASK["image-to-video"]
    check(tell, net, models)
    with pytest.raises(UsageError, match=r"in_channels=4 .* needs 8"):
        check(animate, net, models)
    (tmp_path / "five").mkdir()
    config = json.loads((net / "config.json").read_text()) | {"projection_class_embeddings_input_dim": 5 * 8}
    (tmp_path / "five" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="takes 5 added time ids"):
        check(tell, tmp_path / "five", models)
    with pytest.raises(UsageError, match=r"config\.json is missing"):
        check(tell, tmp_path / "nothing", models)
    with pytest.raises(UsageError, match="names no model 'text'"):
        check(tell, net, {name: path for name, path in models.items() if name != "text"})
    clip = json.loads((models["image"] / "config.json").read_text())
    clip["vision_config"]["image_size"] = 64
    (tmp_path / "config.json").write_text(json.dumps(clip))
    i2v = made / "run" / "phases" / "animate" / "step-000200" / "unet"
    with pytest.raises(UsageError, match="always shows it 224 px"):
        check(animate, i2v, models | {"image": tmp_path})
