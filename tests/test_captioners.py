"""Captioners and the CLIP scorer: their words, decoding against brute force, and the built-in model's worth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.captions import held_out, shares
from dailies.curation import openclip
from dailies.curation.captioners.coca import CocaCaptioner
from dailies.curation.captioners.fuse import FuseCaptioner, fuse
from dailies.curation.captioners.motion import MotionCaptioner
from dailies.curation.errors import UsageError
from dailies.curation.scorers.clip import ClipScorer
from dailies.curation.tables import DatasetTables, query
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.run import curate
from dailies.pipelines.stages import score_rows
from tests.rendered_video import render

BUILTIN = Path(__file__).resolve().parents[1] / "zoo" / "builtin" / "coca-world"
FIRST = 9_500_000  # held out from training and from the benchmark


def evidence(clip_id: str = "one", frames: int = 3, **columns: Any) -> Evidence:
    rng = np.random.default_rng(len(clip_id))
    picture = rng.integers(0, 255, (36, 64, 3), np.uint8)
    return Evidence(
        clip_id=clip_id,
        span=Span(start=0, end=100, time_base=Fraction(1, 100)),
        frames=tuple(EvidenceFrame(pts=30 * number, jpeg=jpeg(picture, 90)) for number in range(frames)),
        columns=columns,
    )


MOVING = {
    "motion": 3.0,
    "motion_local": 0.1,
    "motion_camera": "pan right",
    "caption_coca": "a red ring",
    "caption_motion": "slow motion",
}


@pytest.fixture(scope="module", autouse=True)
def _installed(one_thread: None) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("open_clip")


def test_a_clip_without_what_is_needed_costs_its_own_row_only() -> None:
    clips = [evidence("a", **MOVING), evidence("b", **{**MOVING, "motion": None}), evidence("c", **MOVING)]
    with MotionCaptioner().open() as caption:
        rows = score_rows("motion", caption, clips)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    sources = [evidence("a", caption_coca=scene, caption_motion="slow motion") for scene in (" ", "a red ring")]
    with FuseCaptioner().open() as caption:
        rows = score_rows("fuse", caption, sources)
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert "caption_coca is empty" in rows[0]["failure"]["message"]


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ((0.04, 0.04, "static"), "nothing moves"),
        ((1.0, 1.0, "static"), "something moves, slow motion"),
        ((3.0, 0.1, "pan right"), "the camera pans right"),
        ((9.0, 0.8, "tilt up, zoom in"), "the camera tilts up and zooms in, fast motion"),
        ((4.0, 1.5, "handheld"), "the camera shakes, something moves"),
        ((2.0, 0.3, "pan"), "the camera pans"),
        ((5.0, 4.8, "unclear"), "something moves"),
    ],
)
def test_motion_words(measures: tuple[float, float, str], words: str) -> None:
    assert MotionCaptioner().sentence(*measures) == words


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ((0.149, 0, "pan left"), "nothing moves"),
        ((0.15, 0, "pan left"), "the camera pans left, slow motion"),
        ((1.499, 0, "pan left"), "the camera pans left, slow motion"),
        ((1.5, 0, "pan left"), "the camera pans left"),
        ((5.999, 0, "pan left"), "the camera pans left"),
        ((6.0, 0, "pan left"), "the camera pans left, fast motion"),
        # Something moves from half a px on, and from a tenth of the motion on, whichever is more.
        ((2.0, 0.5, "pan left"), "the camera pans left, something moves"),
        ((2.0, 0.499, "pan left"), "the camera pans left"),
        ((5.5, 0.549, "pan left"), "the camera pans left"),
        ((8.0, 0.8, "pan left"), "the camera pans left, something moves, fast motion"),
        ((8.0, 0.799, "pan left"), "the camera pans left, fast motion"),
    ],
)
def test_motion_words_at_their_thresholds(measures: tuple[float, float, str], words: str) -> None:
    """What reaches a threshold is on its upper side."""
    assert MotionCaptioner().sentence(*measures) == words


def test_specs_refuse_what_means_nothing() -> None:
    for wrong in ({"slow": 9.0}, {"apart": 0.0}):
        with pytest.raises(ValueError, match=r"slow|apart"):
            MotionCaptioner(**wrong)
    for wrong in ({"decode": "best"}, {"beams": 0}, {"top_p": 0.0}, {"max_tokens": 2}):
        with pytest.raises(ValueError, match=r"decode|beams|top_p|max_tokens"):
            CocaCaptioner(**wrong)
    for model, said in (("zoo:coca-world", "resolved"), ("no-such-model", "no such folder")):
        with pytest.raises(UsageError, match=said), CocaCaptioner(model=model).open():
            pass


def test_fusing_is_the_same_words_always() -> None:
    assert fuse("a red ring over  sand.", "slow motion") == "a red ring over sand, slow motion"
    assert fuse("a red ring", None) == fuse("a red ring", " ") == "a red ring"
    assert fuse("a red ring, slow motion", "Slow motion.") == "a red ring, slow motion"
    assert fuse("slow motion of a ring", "slow motion") == "slow motion of a ring, slow motion"
    with FuseCaptioner().open() as caption:
        texts = {caption([evidence(**MOVING)])["text"][0].as_py() for _ in range(3)}
    assert texts == {"a red ring, slow motion"}


# ---- decoding -------------------------------------------------------------------------------------------------------

LIMIT, VOCABULARY = 5, 6


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any, Any]:
    """A random CoCa of six tokens, what its image tower puts out for four images, and its special tokens."""
    import torch
    from open_clip.coca_model import CoCa

    from dailies.curation.openclip import SpecialTokens

    torch.manual_seed(3)
    text = {"context_length": 8, "vocab_size": VOCABULARY, "layers": 1, "heads": 2, "width": 16}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "output_tokens": True}
    both = {**text, "embed_cls": True, "output_tokens": True}
    model = CoCa(embed_dim=16, multimodal_cfg=dict(text), text_cfg=both, vision_cfg=vision).eval()
    with torch.no_grad():
        model.text_decoder.text_projection.normal_(std=0.75)  # large, so that a random model has opinions
        image = model._encode_image(torch.randn(4, 3, 16, 16))
    return model, image, SpecialTokens(start=1, end=2, pad=0)


def log_probability(tiny: tuple[Any, Any, Any], row: int, ids: list[int]) -> float:
    """Of one whole sequence, by one forward over it; start and padding can't be said."""
    import torch

    model, (latent, tokens), special = tiny
    with torch.no_grad():
        out = model(
            None,
            torch.tensor([ids]),
            image_latent=latent[row : row + 1],
            image_embs=tokens[row : row + 1],
            output_labels=False,
        )
    logits = out["logits"][0]
    logits[:, [special.start, special.pad]] = -torch.inf
    return float(logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum())


def every_sequence(special: Any) -> Iterator[list[int]]:
    said = [token for token in range(VOCABULARY) if token not in (special.start, special.end, special.pad)]
    for length in range(LIMIT - 1):
        for words in itertools.product(said, repeat=length):
            yield [special.start, *words, special.end]
    for words in itertools.product(said, repeat=LIMIT - 1):
        yield [special.start, *words]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_wide_enough_finds_the_best_there_is(tiny: tuple[Any, Any, Any], penalty: float) -> None:
    import torch

    from dailies.curation.openclip.decoding import beam

    model, image, special = tiny
    with torch.no_grad():
        found = beam(model, image, special, LIMIT, beams=VOCABULARY**3, length_penalty=penalty)
    for row, ids in enumerate(found.ids_BL.tolist()):
        scores = [log_probability(tiny, row, every) / (len(every) - 1) ** penalty for every in every_sequence(special)]
        kept = [token for token in ids if token != special.pad]
        assert log_probability(tiny, row, kept) / (len(kept) - 1) ** penalty == pytest.approx(max(scores), abs=1e-4)
        assert float(found.log_prob_B[row]) == pytest.approx(log_probability(tiny, row, kept), abs=1e-4)


def test_one_beam_and_the_smallest_nucleus_are_greedy_and_more_beams_are_no_worse(tiny: tuple[Any, Any, Any]) -> None:
    import torch

    from dailies.curation.openclip.decoding import beam, greedy, top_p

    model, image, special = tiny
    generators = [torch.Generator().manual_seed(row) for row in range(4)]
    with torch.no_grad():
        plain = greedy(model, image, special, LIMIT)
        one = beam(model, image, special, LIMIT, beams=1)
        more = beam(model, image, special, LIMIT, beams=4, length_penalty=0)
        least = top_p(model, image, special, LIMIT, share=1e-6, generators=generators)
    assert plain.without(special) == one.without(special) == least.without(special)
    torch.testing.assert_close(plain.log_prob_B, one.log_prob_B)
    assert (more.log_prob_B >= plain.log_prob_B - 1e-5).all()


def test_kept_layers_say_what_a_forward_over_the_whole_says() -> None:
    """Two sequences of each image, some of which take the place of others on the way."""
    import torch
    from open_clip.coca_model import CoCa

    from dailies.curation.openclip.coca_steps import Kept, Recomputed, steps

    torch.manual_seed(5)
    text = {"context_length": 8, "vocab_size": 12, "layers": 3, "heads": 2, "width": 16, "ls_init_value": 0.7}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "output_tokens": True}
    both = {**text, "embed_cls": True, "output_tokens": True}
    model = CoCa(embed_dim=12, multimodal_cfg=dict(text), text_cfg=both, vision_cfg=vision).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.normal_(std=0.4)
        image = model._encode_image(torch.randn(3, 3, 16, 16))
        kept, whole = steps(model, image, 2), Recomputed(model, image, 2)
        assert isinstance(kept, Kept)
        for step in range(5):
            ids = torch.randint(1, 12, (6,))  # 0 pads
            torch.testing.assert_close(kept.next(ids), whole.next(ids), rtol=1e-4, atol=1e-4)
            parents = torch.tensor([1, 0, 2, 2, 5, 5] if step % 2 else [0, 0, 3, 2, 4, 5])
            kept.keep(parents)
            whole.keep(parents)


def test_a_nucleus_draws_by_its_seeds_and_by_probability(tiny: tuple[Any, Any, Any]) -> None:
    import torch

    from dailies.curation.openclip.decoding import top_p

    model, image, special = tiny

    def drawn(seed: int, share: float = 1.0, limit: int = LIMIT) -> list[list[int]]:
        generators = [torch.Generator().manual_seed(seed + row) for row in range(len(image[0]))]
        with torch.no_grad():
            return top_p(model, image, special, limit, share=share, generators=generators).without(special)

    assert drawn(5) == drawn(5)
    assert len({str(drawn(seed)) for seed in range(20)}) > 1
    first = [drawn(seed * 10, limit=2)[0] for seed in range(400)]
    for token in range(3, VOCABULARY):
        wanted = np.exp(log_probability(tiny, 0, [special.start, token]))
        assert first.count([token]) / 400 == pytest.approx(wanted, abs=0.08)
    with pytest.raises(ValueError, match="share"):
        drawn(0, share=0.0)


@pytest.mark.parametrize(("share", "words"), [(0.45, "a"), (0.55, "ab"), (0.75, "ab"), (0.85, "abc"), (1.0, "abc")])
def test_a_nucleus_holds_the_likeliest_until_they_have_its_share(share: float, words: str) -> None:
    """Of words said with 0.5, 0.3 and 0.2 in any order. Excludes a nucleus without the word that fills it."""
    import torch

    from dailies.curation.openclip import SpecialTokens
    from dailies.curation.openclip.decoding import top_p

    def model(images: None, ids: Any, **image: Any) -> dict[str, Any]:  # start, end, padding, and b, c, a
        return {"logits": torch.tensor([0.0, 0.0, 0.0, 0.3, 0.2, 0.5]).log().expand(len(ids), 1, 6).clone()}

    count = 400
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    image = (torch.zeros(count, 1), torch.zeros(count, 1, 1))
    drawn = top_p(model, image, SpecialTokens(start=0, end=1, pad=2), 2, share=share, generators=generators)
    said = ["...bca"[token] for token in drawn.ids_BL[:, 1].tolist()]
    wanted = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert set(said) == set(words)
    for word in words:
        share_of_word = wanted[word] / sum(wanted[each] for each in words)
        assert said.count(word) / count == pytest.approx(share_of_word, abs=0.08)


# ---- models ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_in_open_clips_format_is_captioned_with_by_its_path(tmp_path: Path) -> None:
    """A random CoCa, saved as open_clip has it, with its own tokenizer."""
    import torch

    from scripts.builtin.train_coca import new_model, save_settings, save_weights

    torch.manual_seed(0)
    save_settings(tmp_path)
    save_weights(new_model(), tmp_path)
    spec = CocaCaptioner(model=str(tmp_path), decode="top_p", max_tokens=8)
    with spec.open() as caption:
        clips = [evidence("a", content_id=content, stream=0) for content in ("one", "two")]
        rows = caption(clips)
        assert rows == caption(clips)
        assert rows["text"][1] == caption(clips[1:])["text"][0]
    assert max(rows["tokens"].to_pylist()) <= 7
    assert spec.weights() != CocaCaptioner(model=str(BUILTIN)).weights()


def test_what_is_drawn_follows_from_content_and_not_from_where_it_lies() -> None:
    """A clip's id takes in that of its source, which is made of the path where it was first seen."""

    def drawn(seed: int = 0, clip_id: str = "a", start: int = 0, **columns: Any) -> str:
        told = {"content_id": "one", "stream": 0, **columns}
        clip = Evidence(
            clip_id=clip_id,
            span=Span(start=start, end=100, time_base=Fraction(1, 100)),
            frames=evidence().frames,
            columns=told,
        )
        with CocaCaptioner(model=str(BUILTIN), decode="top_p", top_p=1.0, seed=seed).open() as caption:
            return str(caption([clip])["text"][0])

    first = drawn()
    assert drawn(clip_id="b") == first
    others = [drawn(content_id="two"), drawn(stream=1), drawn(start=1), drawn(seed=1)]
    assert sum(other != first for other in others) >= 3  # two draws may fall on the same words


DRAWN = """
name: drawn
steps:
  - observe: {observers: [change], evidence: {fps: 5, short_side: 90}}
  - cut: {detector: content, min_seconds: 0.2, max_seconds: 0.4}
  - caption: {captioner: {coca: {decode: top_p, top_p: 1.0}}}
"""


def test_the_same_footage_elsewhere_has_the_same_drawn_captions(tmp_path: Path) -> None:
    (tmp_path / "drawn.yaml").write_text(DRAWN)
    recipe = load_recipe(str(tmp_path / "drawn.yaml"), ())
    texts = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        render(tmp_path / place / "film.mp4", count=50)
        out = str(tmp_path / f"{place} out")
        curate([str(tmp_path / place / "film.mp4")], out, recipe, engine="local")
        rows = query(
            DatasetTables.open(out), "select start, caption_coca as text from clips join captions_coca using (clip_id)"
        )
        texts.append(sorted((row["start"], row["text"]) for row in rows.to_pylist()))
    assert texts[0] == texts[1]
    assert len({text for _, text in texts[0]}) > 1


def test_the_built_in_model_loads_as_open_clip_loads_any() -> None:
    import open_clip
    import torch
    from open_clip.coca_model import CoCa

    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{BUILTIN}")
    assert isinstance(model, CoCa)
    assert next(model.parameters()).dtype == torch.float32
    again = CoCa(**{k: v for k, v in open_clip.get_model_config(f"local-dir:{BUILTIN}").items() if k != "custom_text"})
    open_clip.load_checkpoint(again, str(BUILTIN / "open_clip_model.safetensors"))
    ids = open_clip.get_tokenizer(f"local-dir:{BUILTIN}")(["a large red circle", "Grüße, 世界!"])
    assert (model.encode_text(ids) == again.eval().encode_text(ids)).all()
    assert sum(path.stat().st_size for path in BUILTIN.parent.rglob("*") if path.is_file()) < 20e6


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return list(held_out(20, tmp_path_factory.mktemp("unseen"), FIRST))


def test_the_built_in_captions_are_right_on_clips_it_has_not_seen(unseen: list[Any]) -> None:
    with CocaCaptioner(model=str(BUILTIN)).open() as caption:
        texts = caption([clip for clip, _, _ in unseen])["text"].to_pylist()
    assert shares(texts, [truth for _, _, truth in unseen])["both"] >= 0.8


def test_clip_similarity_ranks_the_true_caption_above_another(unseen: list[Any]) -> None:
    texts = [shot.caption(180) for _, shot, _ in unseen]

    def scored(captions: list[str]) -> np.ndarray[Any, Any]:
        clips = [
            Evidence(clip_id=clip.clip_id, span=clip.span, frames=clip.frames, columns={"caption_fuse": text})
            for (clip, _, _), text in zip(unseen, captions, strict=True)
        ]
        with ClipScorer(model=str(BUILTIN)).open() as score:
            return score(clips)["clip_similarity"].to_numpy()

    true, false = scored(texts), scored(texts[7:] + texts[:7])
    assert (np.abs(true) <= 1.0001).all()
    assert (true > false).mean() >= 0.8


def test_similarity_is_the_mean_cosine_of_first_middle_and_last_with_the_clips_own_caption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Embeddings on a circle, frames at 0, 60 and 90 degrees, captions at 0 and 90. Excludes the largest, the middle frame
    alone, the cosine of the mean embedding (0.82), and another clip's caption."""
    import torch

    degrees = {0: 0, 60: 60, 120: 90, 240: 45}  # of frames by their luma; 45 is of frames in between

    def circle(angles: Any) -> Any:
        radians = torch.deg2rad(torch.as_tensor(angles, dtype=torch.float32))
        return torch.stack([radians.cos(), radians.sin()], dim=-1)

    class Model:
        logit_scale = torch.zeros(())

        def encode_image(self, pixels: Any) -> Any:
            levels = pixels.flatten(1).mean(1).tolist()
            return circle([degrees[min(degrees, key=lambda known: abs(known - level))] for level in levels])

        def encode_text(self, angles: Any) -> Any:
            return 3 * circle(angles)  # of any length

    loaded = openclip.Loaded(
        model=Model(),
        prepare=lambda picture: torch.from_numpy(np.array(picture, np.float32)),
        tokenize=lambda texts: torch.tensor([float(text) for text in texts]),
        special_tokens=openclip.SpecialTokens(start=0, end=1, pad=2),
        device="cpu",
    )
    monkeypatch.setattr(openclip, "load", lambda *_, **__: loaded)
    frames = tuple(
        EvidenceFrame(pts=number, jpeg=jpeg(np.full((16, 16, 3), level, np.uint8), 95))
        for number, level in enumerate((0, 240, 60, 240, 120))
    )
    whole = Span(start=0, end=100, time_base=Fraction(1, 100))
    clips = [Evidence(clip_id=text, span=whole, frames=frames, columns={"caption_fuse": text}) for text in ("0", "90")]
    with ClipScorer(batch=2).open() as score:
        values = score(clips)["clip_similarity"].to_pylist()
    assert values == pytest.approx([(1 + 0.5 + 0) / 3, (0 + 3**0.5 / 2 + 1) / 3], abs=1e-5)
