"""The zoo's numbers: how sizes read, what a file holds, what sides may be, and what a pipeline is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dailies.curation.errors import ModelError, UsageError
from dailies.zoo import assemble, generate, units
from dailies.zoo.entry import ZooEntry
from dailies.zoo.formats import safetensors_info
from dailies.zoo.formats.scheduler import scheduler_config
from dailies.zoo.pipelines import BY_TASK
from dailies.zoo.provenance import SourceExport


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (units.count(None), "–"), (units.count(0), "0"), (units.count(999), "999"), (units.count(1000), "1 k"),
        (units.count(845_300), "845 k"), (units.count(1_000_000), "1 M"), (units.count(12_345_678), "12.3 M"),
        (units.count(10**9), "1 B"), (units.count(1_521_000_000), "1.52 B"),
        (units.megabytes(None), "–"), (units.megabytes(12_400), "12 kB"), (units.megabytes(999_000), "999 kB"),
        (units.megabytes(10**6), "1.0 MB"), (units.megabytes(45_240_000), "45.2 MB"), (units.megabytes(10**9), "1.0 GB"),
        (units.duration(None), "–"), (units.duration(0), "0 s"), (units.duration(119), "119 s"),
        (units.duration(120), "2 min"), (units.duration(7199), "120 min"), (units.duration(7200), "2.0 h"),
        (units.duration(12_240), "3.4 h"),
    ],
)  # fmt: skip
def test_sizes_and_durations_read_in_the_unit_that_suits_them(said: str, text: str) -> None:
    assert said == text


def test_a_model_is_as_large_as_its_headers_say(tmp_path: Path) -> None:
    """A tensor of 3 × 4 × 5 has 60 parameters, not 12, and one without axes has one."""
    header = {
        "__metadata__": {"format": "pt"},
        "weight": {"dtype": "F16", "shape": [3, 4, 5], "data_offsets": [0, 120]},
        "scale": {"dtype": "F32", "shape": [], "data_offsets": [120, 124]},
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(124)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(data)
    assert safetensors_info.size(tmp_path) == (61, len(data))
    assert safetensors_info.parts(tmp_path) == {"unet": (61, len(data))}


@pytest.mark.parametrize(("blocks", "multiple"), [(1, 8), (3, 8), (4, 8), (5, 16), (6, 32)])
def test_sides_are_multiples_of_the_vaes_factor_and_of_diffusers_own(
    blocks: int, multiple: int, tmp_path: Path
) -> None:
    """A VAE of four levels halves three times: 8 px a latent."""
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [32] * blocks}))
    assert generate._side_multiple(tmp_path) == multiple


def request(**changes: Any) -> generate.GenerateRequest:
    asked = {
        "prompt": "red", "image": None, "out": Path("a.mp4"), "seed": 7, "steps": 3, "guidance": (1.5, 2.5),
        "size": (64, 32), "frames": 2, "fps": 8.0, "motion_bucket": 100, "noise_aug": 0.0,
    }  # fmt: skip
    return generate.GenerateRequest(**(asked | changes))


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [("frames", 1, 1024), ("steps", 1, 1000), ("fps", 1, 240), ("motion_bucket", 0, 255), ("seed", 0, 2**63 - 1)],
)
def test_limits_of_a_request_are_allowed_and_what_lies_beyond_is_not(field: str, least: int, most: int) -> None:
    for value in (least, most):
        generate.check(request(**{field: value}), 8)
    for value in (least - 1, most + 1):
        with pytest.raises(UsageError, match=field.replace("_", "-")):
            generate.check(request(**{field: value}), 8)


@pytest.mark.parametrize(("levels", "flat"), [((126.4, 128.6), True), ((120.4, 129.6), False)])
def test_a_pipeline_is_asked_for_what_the_request_says(
    levels: tuple[float, float], flat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline stands in for one that gives known pictures: they are rounded, not cut off, and clipped."""
    torch = pytest.importorskip("torch")
    asked: dict[str, Any] = {}
    written: list[Any] = []
    frames = np.full((2, 32, 64, 3), levels[0] / 255, np.float32)
    frames[:, :, 32:] = levels[1] / 255
    if not flat:
        frames[0, 0, 0], frames[1, 0, 0] = -0.5, 1.5

    class Pipeline:
        device = "cpu"

        def set_progress_bar_config(self, **how: Any) -> None:
            pass

        def __call__(self, **arguments: Any) -> Any:
            asked.update(arguments)
            return SimpleNamespace(frames=[frames])

    monkeypatch.setattr(generate, "load_pipeline", lambda folder, device: Pipeline())
    monkeypatch.setattr("dailies.curation.video.write_clip", lambda *clip: written.append(clip))
    spec, wanted = BY_TASK["text-to-video"], request(out=tmp_path / "a.mp4")
    made = generate._run(tmp_path, ZooEntry(name="one", task="text-to-video"), spec, wanted, None, "cpu")
    draws = torch.randn(3, generator=asked.pop("generator"))
    assert torch.equal(draws, torch.randn(3, generator=torch.Generator("cpu").manual_seed(7)))
    assert asked == {
        "prompt": "red", "width": 64, "height": 32, "num_frames": 2, "num_inference_steps": 3,
        "min_guidance_scale": 1.5, "max_guidance_scale": 2.5, "fps": 8.0, "motion_bucket_id": 100, "output_type": "np",
    }  # fmt: skip
    ((pixels, fps, path),) = written
    assert (fps, path, made.flat) == (8.0, tmp_path / "a.mp4", flat)
    assert (pixels[0, 1, 0, 0], pixels[0, 1, 63, 0]) == (round(levels[0]), round(levels[1]))
    if not flat:
        assert (pixels[0, 0, 0, 0], pixels[1, 0, 0, 0]) == (0, 255)


def test_an_exports_clips_are_those_of_all_its_splits() -> None:
    manifest = {
        "name": "e", "sources": 3, "recipe": "r", "recipe_hash": "h", "version": "1", "selection": "main", "rules": {},
        "limits": {}, "splits": {"train": {"clips": 5}, "validation": {"clips": 2}, "test": {"clips": 1}},
    }  # fmt: skip
    assert SourceExport.of_manifest(manifest).clips == 8


@pytest.mark.parametrize(
    ("key", "value"), [("latent_channels", 8), ("scaling_factor", 0.25), ("block_out_channels", [32, 64])]
)
def test_a_pipeline_decodes_the_latents_that_were_trained_on(key: str, value: Any) -> None:
    vae = {"latent_channels": 4, "scaling_factor": 0.5, "block_out_channels": [32, 32]}
    folders = {"vae": Path("vae"), "vae_temporal": Path("temporal")}
    assemble._check_latents(vae, dict(vae), folders)
    with pytest.raises(ModelError, match=f"{key}=.* in vae and .* in temporal: both VAEs must have the same latents"):
        assemble._check_latents(vae, vae | {key: value}, folders)


def test_a_models_own_range_of_noise_is_published_with_it() -> None:
    own, svds = scheduler_config(sigma_min=0.01, sigma_max=80.0), scheduler_config()
    assert (own["sigma_min"], own["sigma_max"]) == (0.01, 80.0)
    assert (svds["sigma_min"], svds["sigma_max"]) == (0.002, 700.0)  # arXiv 2311.15127, App. D
