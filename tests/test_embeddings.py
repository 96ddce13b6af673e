"""Embeddings against direct calls of the libraries, on checkpoints that the tests make; and which activation a model gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dailies.curation import openclip, video
from dailies.curation.errors import Damaged, SourceError, UsageError
from dailies.curation.openclip import openclip_activation
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.scorers.encoders import AHEAD, batches_ahead, load_encoder
from dailies.curation.types import EvidenceFrame
from dailies.pipelines.engine import placeable
from tests import tiny_clips as tiny

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
FORMATS = ("open_clip", *tiny.KINDS)
TEXTS = (["a red ring", "sand"], ["a large blue square over sand, the camera pans left and something moves"])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint in each format."""
    root = tmp_path_factory.mktemp("models")
    made = {kind: tiny.transformers_folder(root / kind, kind) for kind in tiny.KINDS}
    return {"open_clip": tiny.open_clip_folder(root / "open_clip"), **made}


def unit(vectors: Any) -> np.ndarray[Any, Any]:
    rows = np.asarray(vectors.detach(), np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def directly(folder: Path) -> tuple[Callable[[Any], Any], Callable[[list[str]], Any]]:
    """What the library itself makes of one RGB picture, and of texts."""
    from PIL import Image

    if (folder / "open_clip_config.json").exists():
        model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        model.eval()
        return (
            lambda rgb: unit(model.encode_image(prepare(Image.fromarray(rgb))[None]))[0],
            lambda texts: unit(model.encode_text(tokenize(texts))),
        )
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def texts_of(texts: list[str]) -> Any:
        ids = tokenizer(texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
        return unit(model.get_text_features(input_ids=ids).pooler_output)

    return (
        lambda rgb: unit(
            model.get_image_features(**processor(Image.fromarray(rgb), return_tensors="pt")).pooler_output
        )[0],
        texts_of,
    )


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_embeddings_are_the_librarys_own(kind: str, folders: dict[str, Path]) -> None:
    """Of first, middle and last frame of two clips, in batches across both. Excludes vectors of other lengths, a sum for the
    mean, other frames, and pictures that are squashed where the weights want a crop."""
    image, texts_of = directly(folders[kind])
    clips = [tiny.clip("a", (1, 2, 3, 4, 5)), tiny.clip("b", (6, 7))]
    spec = EmbedScorer(model=str(folders[kind]), batch=3)
    with spec.open() as score:
        rows = score(clips).to_pylist()
    for row, clip, wanted in zip(rows, clips, ((0, 2, 4), (0, 1, 1)), strict=True):
        vectors = np.stack([image(video.unjpeg(clip.frames[number].jpeg)) for number in wanted])
        for position, vector in zip(("first", "middle", "last"), vectors, strict=True):
            np.testing.assert_allclose(row[f"embedding_{position}"], vector, atol=2e-5)
        mean = vectors.mean(0)
        np.testing.assert_allclose(row["embedding"], mean / np.linalg.norm(mean), atol=2e-5)
        cosines = [vectors[0] @ vectors[1], vectors[1] @ vectors[2]][: len(set(wanted)) - 1]
        assert row["frame_consistency"] == pytest.approx(np.mean(cosines), abs=2e-5)
    assert rows[0]["frame_consistency"] < 0.999, "the frames differ"
    encoder = load_encoder(str(folders[kind]))
    for texts in TEXTS:  # shorter than the model's length, and longer
        np.testing.assert_allclose(encoder.texts(texts), texts_of(texts), atol=2e-5)


@pytest.mark.parametrize("kind", ["open_clip", "clip"])
def test_the_weights_preprocessing_crops(kind: str, folders: dict[str, Path]) -> None:
    """What lies outside the middle square of a wide picture does not count, as it would squashed."""
    wide = tiny.picture(1, 36, 64)
    other = wide.copy()
    other[:, :12] = other[:, 52:] = 0
    encoder = load_encoder(str(folders[kind]))
    here, there = encoder.images([encoder.prepare(wide), encoder.prepare(other)])
    np.testing.assert_allclose(here, there, atol=1e-3)
    moved = np.roll(wide, 16, axis=1)
    assert float(here @ encoder.images([encoder.prepare(moved)])[0]) < 0.99


def test_one_frame_has_no_consistency(folders: dict[str, Path]) -> None:
    with EmbedScorer(model=str(folders["clip"])).open() as score:
        (row,) = score([tiny.clip("a", (1,))]).to_pylist()
    assert row["frame_consistency"] is None
    np.testing.assert_allclose(row["embedding"], row["embedding_first"], atol=1e-6)


def test_a_frame_that_is_two_of_the_three_is_looked_at_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    unjpeg = video.unjpeg

    def counting(data: bytes) -> Any:
        nonlocal looked
        looked += 1
        return unjpeg(data)

    with EmbedScorer(model=str(folders["clip"])).open() as score:
        monkeypatch.setattr(video, "unjpeg", counting)
        score([tiny.clip("a", (1,)), tiny.clip("b", (1, 2)), tiny.clip("c", (1, 2, 3, 4))])
    assert looked == 1 + 2 + 3


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_configurations_activation_is_followed(kind: str, tmp_path: Path) -> None:
    clips = [tiny.clip("a", (1, 2, 3))]
    vectors = []
    for activation in ("quick_gelu", "gelu"):
        folder = tiny.transformers_folder(tmp_path / activation, kind, activation)
        with EmbedScorer(model=str(folder)).open() as score:
            vectors.append(np.array(score(clips)["embedding_first"][0].as_py()))
        image, _ = directly(folder)
        np.testing.assert_allclose(vectors[-1], image(video.unjpeg(clips[0].frames[0].jpeg)), atol=2e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


# ---- open_clip's tags -----------------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of open_clip's own lists, ``tiny:openai``, built with GELU and listed with QuickGELU weights; its download is
    a file here."""
    from open_clip import factory, pretrained

    weights = tmp_path / "tiny.pt"
    torch.save(tiny.open_clip_model().state_dict(), weights)
    tags = {
        "openai": pretrained._pcfg("https://example.invalid/tiny.pt", quick_gelu=True),
        "plain": pretrained._pcfg("https://example.invalid/tiny.pt"),
    }
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", tags)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", tiny.OPEN_CLIP)
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-quickgelu", tags)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-quickgelu", {**tiny.OPEN_CLIP, "quick_gelu": True})
    monkeypatch.setattr(factory, "download_pretrained", lambda cfg, cache_dir=None: str(weights))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda cfg: str(weights))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "quick"),
    [("tiny:openai", True), ("tiny", True), ("tiny-quickgelu:openai", True), ("tiny:plain", False)],
)
def test_a_tags_weights_get_the_activation_that_they_need(name: str, quick: bool, listed: None) -> None:
    """Excludes the model as open_clip builds it, which differs by more than rounding."""
    from open_clip.transformer import QuickGELU

    loaded = openclip.load(name)
    kinds = {type(module) for module in loaded.model.modules() if "GELU" in type(module).__name__}
    assert kinds == {QuickGELU if quick else torch.nn.GELU}
    frame = tiny.clip("a", (1,)).frames[0]
    pixels = loaded.ready(frame)[None]
    with EmbedScorer(model=name).open() as score:
        vector = np.array(score([tiny.clip("a", (1,))])["embedding_first"][0].as_py())
    right = unit(tiny.open_clip_model(quick_gelu=quick).encode_image(pixels))[0]
    wrong = unit(tiny.open_clip_model(quick_gelu=not quick).encode_image(pixels))[0]
    np.testing.assert_allclose(vector, right, atol=2e-5)
    assert np.abs(vector - wrong).max() > 1e-3


def test_a_tag_that_lacks_its_models_activation_is_refused_before_it_is_fetched(listed: None) -> None:
    for use in (openclip.load, openclip.fetch):
        with pytest.raises(UsageError, match=r"tiny-quickgelu:plain.*disagree"):
            use("tiny-quickgelu:plain")


def test_every_tag_of_open_clip_is_corrected_or_refused_and_only_corrected_ones_have_other_tables() -> None:
    corrected = set()
    for model, tag in open_clip.list_pretrained():
        of_model = bool(open_clip.get_model_config(model).get("quick_gelu"))
        of_weights = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu"))
        if of_model and not of_weights:
            with pytest.raises(UsageError, match="disagree"):
                openclip_activation.activation(model, tag)
            continue
        assert openclip_activation.activation(model, tag) == ({"force_quick_gelu": True} if of_weights else {})
        if of_weights != of_model:
            corrected.add((model, tag))
            if open_clip.list_pretrained_tags_by_model(model)[0] == tag:
                corrected.add((model, ""))
    assert {(model, tag) for model, tags in openclip_activation.CORRECTED.items() for tag in tags} == corrected
    assert ("ViT-L-14", "openai") in corrected
    assert openclip.weights("ViT-L-14:openai") != "ViT-L-14:openai"
    assert openclip.weights("ViT-L-14-quickgelu:openai") == "ViT-L-14-quickgelu:openai"
    assert openclip.weights("ViT-B-32:laion2b_s34b_b79k") == "ViT-B-32:laion2b_s34b_b79k"


# ---- folders that are refused ---------------------------------------------------------------------------------------


def broken_folders() -> dict[str, tuple[Callable[[Path], Any], str]]:
    def rewrite(name: str, **changes: Any) -> Callable[[Path], Any]:
        return lambda folder: (folder / name).write_text(
            json.dumps({**json.loads((folder / name).read_text()), **changes})
        )

    def drop_tensor(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        del state["visual_projection.weight"]
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return {
        "no preprocessing": (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
        "no vocabulary": (lambda folder: (folder / "tokenizer.json").unlink(), "vocabulary"),
        "pickled weights": (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "safetensors",
        ),
        "code": (rewrite("config.json", auto_map={"AutoModel": "code.Model"}), "asks for code"),
        "another model": (rewrite("config.json", model_type="bert", architectures=["BertModel"]), "model_type"),
        "a file of code": (lambda folder: (folder / "modeling.py").write_text(""), "code"),
        "a tensor is missing": (drop_tensor, "visual_projection.weight"),
    }


@pytest.mark.parametrize("fault", broken_folders())
def test_a_folder_that_is_not_sound_is_refused(fault: str, tmp_path: Path) -> None:
    folder = tiny.transformers_folder(tmp_path)
    spoil, said = broken_folders()[fault]
    spoil(folder)
    with pytest.raises((UsageError, Damaged), match=said), EmbedScorer(model=str(folder)).open():
        pass


def test_what_changes_values_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = tiny.transformers_folder(tmp_path)
    before = EmbedScorer(model=str(folder)).weights()
    (folder / "README.md").write_text("of no account")
    assert EmbedScorer(model=str(folder), batch=2, decoders=1).weights() == before
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("true", "false", 1))
    assert EmbedScorer(model=str(folder)).weights() != before


def test_a_hub_id_is_fetched_as_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dailies.curation import downloads

    folder = tiny.transformers_folder(tmp_path / "fetched")
    asked: list[tuple[str, list[str]]] = []

    def snapshot(repository: str, *, wanted: list[str], unwanted: list[str], revision: str | None) -> Path:
        asked.append((repository, wanted))
        return folder

    monkeypatch.setattr(downloads, "download_snapshot", snapshot)
    spec = EmbedScorer(model="owner/tiny")
    assert spec.weights() == EmbedScorer(model=str(folder)).weights()
    with spec.open() as score:
        assert score([tiny.clip("a", (1,))]).num_rows == 1
    assert {repository for repository, _ in asked} == {"owner/tiny"}
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked[0][1])


# ---- a GPU's share --------------------------------------------------------------------------------------------------


def test_frames_are_made_ready_ahead_in_order_while_the_model_looks() -> None:
    frames = [EvidenceFrame(pts=number, jpeg=b"") for number in range(11)]
    made: list[int] = []
    enough = threading.Event()

    def ready(frame: EvidenceFrame) -> Any:
        made.append(frame.pts)
        if len(made) >= 4:
            enough.set()
        return {"pts": frame.pts}

    with ThreadPoolExecutor(3) as pool:
        batches = batches_ahead(frames, ready, 2, pool)
        first = next(batches)
        assert enough.wait(5), "the next batch is made ready while the model looks at this one"
        assert len(made) <= 2 + AHEAD * 2, "and not all of them"
        seen = [first, *batches]
    assert [[each["pts"] for each in batch] for batch in seen] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    inline = batches_ahead(frames, ready, 2, None)
    assert [list(batch) for batch in inline] == seen


def test_a_broken_frame_ends_the_batch_with_its_reason(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["clip"]))
    frames = [*tiny.clip("a", (1, 2)).frames, EvidenceFrame(pts=99, jpeg=b"no JPEG")]
    with ThreadPoolExecutor(2) as pool, pytest.raises(SourceError):
        list(batches_ahead(frames, encoder.ready, 1, pool))


def test_a_worker_takes_a_share_of_a_gpu_or_whole_ones() -> None:
    class Work:
        name = "embed"
        resources = EmbedScorer(gpus=0.1).resources

    assert (Work.resources.gpus, Work.resources.cpus) == (0.1, 4)
    assert EmbedScorer().resources.cpus == 1
    assert placeable(Work(), {"CPU": 64, "GPU": 1, "memory": 1e12}) == 10  # type: ignore[arg-type]
    assert EmbedScorer(gpus=2).gpus == 2
    with pytest.raises(ValueError, match="share of one GPU"):
        EmbedScorer(gpus=1.5)


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_a_folder_that_cannot_work_is_refused_before_any_work(kind: str, tmp_path: Path) -> None:
    """Its pictures are no larger than any model's, it is whole, and none of its code would run."""
    folder = tmp_path / "model"
    (tiny.open_clip_folder if kind == "open_clip" else tiny.transformers_folder)(folder)
    spec = EmbedScorer(model=str(folder))
    spec.check()
    path = folder / ("open_clip_config.json" if kind == "open_clip" else "preprocessor_config.json")
    row = json.loads(path.read_text())
    vast = {"preprocess_cfg": {"size": 200000}} if kind == "open_clip" else {"size": {"shortest_edge": 200000}}
    path.write_text(json.dumps(row | vast))
    with pytest.raises(Damaged, match="4096"):
        spec.check()
    path.write_text(json.dumps(row))
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(UsageError, match=r"safetensors|no weights"):
        spec.check()
    (folder / "evil.py").write_text("")
    with pytest.raises(Damaged, match="may hold code"):
        spec.check()
