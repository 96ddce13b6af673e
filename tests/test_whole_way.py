"""Training and the published pipeline are one model: same weights, image and noise give the same latents, for any guidance.

What training shows the network is taken from a real batch; what the pipeline shows it is computed by diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers  # noqa: E402
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as theirs  # noqa: E402
from PIL import Image  # noqa: E402

from dailies.training.data.batches import Batch, Batches  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.data.split import MAIN, load  # noqa: E402
from dailies.training.diffusion import objective  # noqa: E402
from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.encoders import Encoders, Models  # noqa: E402
from dailies.training.diffusion.sample import sample  # noqa: E402
from dailies.training.models import load_pretrained  # noqa: E402
from dailies.training.models.pixels import Pixels  # noqa: E402
from dailies.training.recipes.recipe import Phase, TrainingRecipe  # noqa: E402
from dailies.zoo.formats.scheduler import SIGMA_MAX  # noqa: E402
from dailies.zoo.image_to_video import StableVideoDiffusionPipeline  # noqa: E402
from dailies.zoo.text_to_video import TextToVideoPipeline  # noqa: E402
from tests import svd_format, tiny_run  # noqa: E402
from tests.training_export import build_export  # noqa: E402

WIDTH, HEIGHT, FRAMES, FPS, STEPS = 32, 24, 3, 12, 3
PAIRS = [(1.0, 1.0), (1.0, 3.0), (3.0, 1.0), (8.0, 1.0), (2.5, 2.5), (3.0, 0.0), (0.0, 3.0), (0.5, 0.5), (4.0, 2.0)]
PHASE = Phase(
    name="i2v", task="image-to-video", steps=1, batch=2, size=(WIDTH, HEIGHT), frames=FRAMES, fps=FPS,
    sigma_max=SIGMA_MAX, drop_text=0.0, drop_image=0.0, validation_clips=1, noise_aug=(-1.0, 0.5),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Way:
    """A batch of one sample; ``first``: its first frame; ``image_noise``: unit noise that was drawn for it."""

    folder: Path
    unet: Any
    encoders: Encoders
    batch: Batch
    first: Pixels
    frames: Pixels
    image_noise: Any


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("way")
    svd = svd_format.svd(folder / "svd")
    export = build_export(folder / "export", clips=4, size=(64, 48), frames=(24, 30), validation=2)
    recipe = TrainingRecipe(name="way", unet=None, text_tokens=8, phases=(PHASE,), models="given", init_from="given")
    encoders = Encoders(Models(vae=str(svd / "vae"), image=str(svd / "image_encoder")), text_tokens=8)
    source = Batches(recipe, PHASE, load(recipe, PHASE, {MAIN: Export(export)}), encoders, 5.0)
    drawn: list[Any] = []
    modes = source._modes

    def recorded(pictures: Pixels, noise: Any, sigma: Any) -> Any:
        drawn.append(noise)
        return modes(pictures, noise, sigma)

    source._modes = recorded  # type: ignore[method-assign]
    subset, (spec, *_) = source.held_out()[0]
    batch = source.make(subset, [spec], drop=False)
    frames = source.pixels(subset, spec)
    unet = load_pretrained(svd / "unet").eval()
    yield Way(
        folder=svd, unet=unet, encoders=encoders, batch=batch, first=frames[0], frames=frames, image_noise=drawn[0][0]
    )
    source.close()


def pipeline_latents(way: Way, cls: Any, guidance: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What ``cls`` samples from the batch's first frame, its noises and its time ids."""
    fps_less_one, bucket, aug = way.batch.condition.added_time_ids_BK[0].tolist()
    monkeypatch.setattr(theirs, "randn_tensor", lambda *args, **more: way.image_noise)
    pipe = cls.from_pretrained(way.folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        Image.fromarray(way.first), height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=STEPS,
        min_guidance_scale=guidance[0], max_guidance_scale=guidance[1], fps=round(fps_less_one + 1),
        motion_bucket_id=round(bucket), noise_aug_strength=aug, latents=way.batch.noise.clone(), output_type="latent",
    ).frames  # fmt: skip


def training_latents(way: Way, guidance: tuple[float, float]) -> Any:
    how = objective.of_phase(PHASE)
    return sample(way.unet, way.batch.condition, way.batch.noise, how, steps=STEPS, guidance=guidance)


def apart(one: Any, two: Any) -> float:
    return float((one - two).abs().max() / two.abs().max())


@pytest.mark.parametrize("guidance", PAIRS)
def test_image_to_video_is_sampled_as_the_pipeline_samples_it(
    way: Way, guidance: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = training_latents(way, guidance)
    assert apart(made, pipeline_latents(way, StableVideoDiffusionPipeline, guidance, monkeypatch)) < 1e-4
    assert way.batch.condition.added_time_ids_BK[0, 0] == FPS - 1
    assert way.batch.condition.added_time_ids_BK[0, 2] > 0.1  # so the noise on the image counts
    if max(guidance) > 1:
        assert apart(made, training_latents(way, (1.0, 1.0))) > 1e-2


def test_plain_diffusers_gives_the_same_where_guidance_rises(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pipeline_latents(way, diffusers.StableVideoDiffusionPipeline, (1.0, 3.0), monkeypatch)
    assert apart(training_latents(way, (1.0, 3.0)), plain) < 1e-4


@pytest.mark.parametrize("guidance", PAIRS)
def test_text_to_video_is_sampled_as_the_pipeline_samples_it(way: Way, guidance: tuple[float, float]) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    words = {"vocab_size": 16, "max_position_embeddings": 12, "eos_token_id": 1, "bos_token_id": 0}
    net = tiny_run.unet(4)
    net.save_pretrained(way.folder.parent / "text_unet")
    pipe = TextToVideoPipeline(
        vae=diffusers.AutoencoderKLTemporalDecoder.from_pretrained(way.folder / "vae"),
        text_encoder=CLIPTextModel(CLIPTextConfig(**svd_format.TOWER, **words)).eval(),
        tokenizer=tiny_run.tokenizer(),
        unet=net,
        scheduler=diffusers.EulerDiscreteScheduler.from_pretrained(way.folder / "scheduler"),
    )
    pipe.set_progress_bar_config(disable=True)
    wanted = pipe(
        "a red circle", height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=STEPS, fps=FPS,
        motion_bucket_id=40, min_guidance_scale=guidance[0], max_guidance_scale=guidance[1],
        latents=way.batch.noise.clone(), output_type="latent",
    ).frames  # fmt: skip
    condition = Condition(
        tokens_BLD=pipe.encode_prompt(["a red circle"], "cpu").detach(),
        added_time_ids_BK=torch.tensor([[FPS - 1.0, 40.0, 0.0]]),
    )
    ours = load_pretrained(way.folder.parent / "text_unet").eval()
    made = sample(ours, condition, way.batch.noise, objective.of_phase(PHASE), steps=STEPS, guidance=guidance)
    assert apart(made, wanted) < 1e-4


# ---- each part by itself, so that a fault is named -------------------------------------------------------------------


def test_the_image_embedding_is_that_of_the_pipeline(way: Way) -> None:
    pipe = diffusers.StableVideoDiffusionPipeline.from_pretrained(way.folder)
    with torch.no_grad():
        wanted = pipe._encode_image(Image.fromarray(way.first), "cpu", 1, False)
    tokens = way.batch.condition.tokens_BLD
    assert apart(tokens, wanted) < 1e-5
    raw = way.encoders.image
    mean, std = raw.mean, raw.std
    try:  # the comparison feels the normalisation
        raw.mean, raw.std = torch.zeros_like(mean), torch.ones_like(std)
        assert apart(raw(way.first[None]), wanted) > 1e-2
    finally:
        raw.mean, raw.std = mean, std


def test_the_conditioning_latent_is_the_mode_of_the_noised_image_not_scaled(way: Way) -> None:
    vae = diffusers.AutoencoderKLTemporalDecoder.from_pretrained(way.folder / "vae").eval()
    picture = torch.from_numpy(way.first.copy()).permute(2, 0, 1).float()[None] / 127.5 - 1
    aug = way.batch.condition.added_time_ids_BK[0, 2]
    with torch.no_grad():
        wanted = vae.encode(picture + aug * way.image_noise).latent_dist.mode()
    assert vae.config.scaling_factor == 0.5
    assert apart(way.batch.condition.image_latents_BSCHW[0], wanted) < 1e-5


def test_sampling_noise_is_none_of_the_noise_that_clean_latents_are_drawn_with(way: Way) -> None:
    """Clean latents are a draw of the posterior, scaled; the noise added to them is another draw, of unit variance."""
    mean, logvar = way.encoders.vae.moments(way.frames).chunk(2, dim=1)
    scale = way.encoders.vae.scale
    posterior = ((way.batch.clean[0] / scale - mean) / (0.5 * logvar).exp()).flatten()
    noise = way.batch.noise[0].flatten()
    assert len(noise) > 2000
    for drawn in (posterior, noise):
        assert drawn.std().item() == pytest.approx(1.0, abs=0.06)
        assert drawn.mean().item() == pytest.approx(0.0, abs=0.08)
    assert abs(np.corrcoef(posterior.numpy(), noise.numpy())[0, 1]) < 0.08
