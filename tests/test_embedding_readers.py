"""What reads stored embeddings: similarity, aesthetics and labels; how recipes give them a model, and what a run reads."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dailies.curation.errors import RecipeError, SourceError, UsageError
from dailies.curation.scorers import aesthetic, classify, clip, encoders
from dailies.curation.scorers.aesthetic import AestheticScorer
from dailies.curation.scorers.classify import ClassifyScorer, read_taxonomy, taxonomy_names
from dailies.curation.scorers.clip import ClipScorer
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.tables import DatasetTables
from dailies.curation.types import EvidenceFrame
from dailies.pipelines import stages
from dailies.pipelines.again import export_again, select_again
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe, parse_recipe
from dailies.pipelines.recipes.steps import ScoreStep
from dailies.pipelines.run import curate
from dailies.pipelines.selecting import joined
from tests import tiny_clips as tiny
from tests.rendered_video import render

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
POSITIONS = ("embedding_first", "embedding_middle", "embedding_last")
L14 = 768


pytestmark = pytest.mark.usefixtures("one_thread")


def towards(*degrees: float) -> np.ndarray[Any, Any]:
    """Vectors of length 1 on a circle."""
    radians = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(radians), np.sin(radians)], -1).astype(np.float32)


class Circle:
    """An encoder whose texts are angles in degrees."""

    logit_scale = 10.0

    def texts(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return towards(*(float(text.split()[-1]) for text in texts))

    def images(self, pictures: Any) -> Any:
        raise AssertionError("an image was looked at")


@pytest.fixture
def circle(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clip, classify, encoders):
        monkeypatch.setattr(module, "load_encoder", lambda *_, **__: Circle())


def at(name: str, degrees: Sequence[float], **columns: Any) -> Any:
    """A clip whose frames were embedded at these angles; it has none left to look at."""
    vectors = dict(zip(POSITIONS, towards(*degrees), strict=True))
    mean = towards(*degrees).mean(0)
    return tiny.clip(name, (), embedding=mean / np.linalg.norm(mean), **vectors, **columns)


# ---- similarity -----------------------------------------------------------------------------------------------------


def test_similarity_is_the_mean_cosine_of_the_three_stored_frames(circle: None) -> None:
    """Excludes the largest, the mean embedding's cosine, one caption for all clips, and the caption's empty neighbour."""
    clips = [at("a", (0, 60, 90), caption_fuse="at 0"), at("b", (0, 60, 90), caption_fuse="at 90")]
    with ClipScorer(embed="embed").open() as score:
        values = score(clips)["clip_similarity"].to_pylist()
        assert values == pytest.approx([(1 + 0.5 + 0) / 3, (0 + math.sqrt(3) / 2 + 1) / 3], abs=1e-6)
        with pytest.raises(SourceError, match="caption_fuse is empty"):
            score([at("c", (0, 0, 0), caption_fuse=" ")])
        with pytest.raises(SourceError, match="embedding_middle is empty: the clip was not embedded"):
            score([tiny.clip("d", (), caption_fuse="at 0", **dict.fromkeys(POSITIONS[1:]), embedding_first=[1, 0])])


def test_of_prompts_the_nearest_counts(circle: None) -> None:
    """The nearest to the three frames together. Excludes the mean over prompts, and a prompt for each frame."""
    spec = ClipScorer(embed="embed", prompts=("at 0", "at 90"))
    assert spec.needs == POSITIONS
    with spec.open() as score:
        values = score([at("a", (0, 60, 90)), at("b", (10, 10, 10))])["clip_similarity"].to_pylist()
    assert values == pytest.approx([(0 + math.sqrt(3) / 2 + 1) / 3, math.cos(math.radians(10))], abs=1e-6)


def test_stored_embeddings_give_what_frames_do(tmp_path: Path) -> None:
    """Of a checkpoint of each library, the text tower alone against both."""
    for folder in (tiny.open_clip_folder(tmp_path / "a"), tiny.transformers_folder(tmp_path / "b", "siglip")):
        clips = [tiny.clip("a", (1, 2, 3), caption_fuse="a red ring"), tiny.clip("b", (4,), caption_fuse="sand")]
        with EmbedScorer(model=str(folder)).open() as score:
            rows = score(clips).to_pylist()
        known = [
            tiny.clip(each.clip_id, (), **each.columns, **{name: row[name] for name in POSITIONS})
            for each, row in zip(clips, rows, strict=True)
        ]
        with ClipScorer(model=str(folder)).open() as score:
            wanted = score(clips)["clip_similarity"].to_pylist()
        with ClipScorer(model=str(folder), embed="embed").open() as score:
            assert score(known)["clip_similarity"].to_pylist() == pytest.approx(wanted, abs=1e-5)


# ---- aesthetics -----------------------------------------------------------------------------------------------------


def mlp(width: int = L14) -> Any:
    """The improved predictor's network, as it is published."""
    nn = torch.nn

    class Predictor(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                *(nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
                *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
            )

        def forward(self, x: Any) -> Any:
            return self.layers(x)

    return Predictor()


def linear(width: int = L14) -> Any:
    return torch.nn.Linear(width, 1)


def embedded(name: str, width: int = L14) -> Any:
    drawn = np.random.default_rng(len(name)).normal(size=(3, width)).astype(np.float32)
    return tiny.clip(
        name, (), **dict(zip(POSITIONS, drawn / np.linalg.norm(drawn, axis=1, keepdims=True), strict=True))
    )


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("network", [linear, mlp])
def test_a_head_says_what_laions_network_does(network: Any, suffix: str, tmp_path: Path) -> None:
    """Mean and least of three frames, from files as LAION has them. Excludes the largest, dropout at work, and the score of
    another order of frames and clips."""
    torch.manual_seed(0)
    model, path = network(), tmp_path / f"head.{suffix}"
    if suffix == "pth":
        torch.save(model.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    clips = [embedded("a"), embedded("bb")]
    spec = AestheticScorer(head=str(path))
    spec.check()
    with spec.open() as score:
        rows = score(clips).to_pylist()
    for row, each in zip(rows, clips, strict=True):
        with torch.inference_mode():
            points = model.eval()(torch.tensor(np.stack([each.columns[name] for name in POSITIONS])))[:, 0].tolist()
        assert len({round(value, 4) for value in points}) == 3
        assert row["aesthetic"] == pytest.approx(np.mean(points), abs=1e-5)
        assert row["aesthetic_min"] == pytest.approx(min(points), abs=1e-5)
    assert spec.weights() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_no_head_is_refused(tmp_path: Path) -> None:
    relu = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    wrong = {
        "two.pth": (torch.nn.Linear(8, 2).state_dict(), "single number"),
        "other.pth": (relu.state_dict(), "not a head that is known"),
        "object.pth": (Path("code"), "holds no weights"),
        "list.pth": ([1], "not a state dict"),
    }
    for name, (content, said) in wrong.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UsageError, match=said):
            AestheticScorer(head=str(tmp_path / name)).check()
    with pytest.raises(UsageError, match="no such file"):  # a recipe can be read where its weights are not
        AestheticScorer(head=str(tmp_path / "absent.pth")).check()
    with pytest.raises(ValueError, match="no file of weights"):
        AestheticScorer(head="absent")


def test_a_damaged_file_is_one_line_and_in_our_own_words(tmp_path: Path) -> None:
    """torch raises whatever it happens to meet, and its advice is to trust the file."""
    path = tmp_path / "head.pth"
    torch.save(linear(8).state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"no weights\n", b"e", b"\x80\x02}", whole[:-5], whole[: len(whole) // 2], b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(
            UsageError, match=r"^head=.*holds no weights that can be read \(\w+\): it is not whole"
        ) as caught:
            AestheticScorer(head=str(path)).check()
        assert not re.search("weights_only|\n", str(caught.value))
    torch.save({"weight": Path("code"), "bias": 1}, path)
    with pytest.raises(UsageError, match="holds no weights") as caught:
        AestheticScorer(head=str(path)).check()
    assert not re.search("trust|\x1b", str(caught.value))


def test_a_head_is_no_larger_than_its_file_and_of_laions_widths(tmp_path: Path) -> None:
    vast = {"weight": torch.zeros(1, dtype=torch.float64).expand(1, 1 << 40), "bias": torch.zeros(1)}
    narrow = {name: each[:512] if name == "layers.0.bias" else each for name, each in mlp(8).state_dict().items()}
    turned = {"weight": torch.zeros(16, 2)[:, :1].T, "bias": torch.zeros(1)}
    whole_numbers = {"weight": torch.zeros(1, 8, dtype=torch.int64), "bias": torch.zeros(1)}
    number = {"weight": torch.zeros(()), "bias": torch.zeros(1)}
    sparse = {"weight": torch.zeros(1, 8).to_sparse(), "bias": torch.zeros(1)}
    for content, said in (
        (vast, "weight is larger than what the file holds"),
        (narrow, "LAION's go from the embedding to a single number, at once or by 1024, 128, 64, 16"),
        (turned, "not plain ones"),
        (whole_numbers, "not plain ones"),
        (number, "single number"),
        (sparse, "larger than what the file holds"),
    ):
        torch.save(content, tmp_path / "head.pth")
        with pytest.raises(UsageError, match=said):
            AestheticScorer(head=str(tmp_path / "head.pth")).check()


def test_an_embedding_of_another_width_is_refused(tmp_path: Path) -> None:
    torch.save(linear(512).state_dict(), tmp_path / "head.pth")
    spec, said = AestheticScorer(head=str(tmp_path / "head.pth")), "width 512; step embed made them of 768"
    with spec.open() as score, pytest.raises(UsageError, match=said):
        score([embedded("a")])


# ---- labels ---------------------------------------------------------------------------------------------------------

TAXONOMY = """
templates: [from 0, "{}"]
labels:
  east: ["0"]
  north: ["80", "100"]
  west: ["180"]
"""


def test_a_label_is_the_nearest_with_its_probability_among_all(circle: None, tmp_path: Path) -> None:
    """By the softmax of the model's scale times cosine with the mean embedding. Excludes plain cosines, and a label of the
    sum of its prompts."""
    path = tmp_path / "taxonomy.yaml"
    path.write_text(TAXONOMY.replace("from 0, ", ""))
    with ClassifyScorer(taxonomy=str(path)).open() as score:
        east, north = score([at("a", (20, 30, 40)), at("b", (70, 90, 95))]).to_pylist()
    powers = {
        name: math.exp(10 * math.cos(math.radians(30 - angle))) for name, angle in zip("enw", (0, 90, 180), strict=True)
    }
    shares = {name: power / sum(powers.values()) for name, power in powers.items()}
    assert east["category"] == "east"
    assert east["category_score"] == pytest.approx(shares["e"], abs=1e-5)
    assert east["category_margin"] == pytest.approx(shares["e"] - shares["n"], abs=1e-5)
    assert north["category"] == "north"


def test_a_taxonomy_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.yaml"
    wrong = {
        TAXONOMY: "templates",
        "labels: {one: [a]}": "labels",
        "labels: {a: [x], b: []}": "labels",
        "labels: {a: [x], b: [y]}\nother: 1": "other",
        "- a": "must be keys with values",
    }
    for text, said in wrong.items():
        path.write_text(text)
        with pytest.raises(RecipeError, match=said):
            read_taxonomy(str(path))
    with pytest.raises(RecipeError, match=r"hd-vg-130m"):
        parse_recipe(recipe(tmp_path, {"classify": {"taxonomy": "hd-vg-130"}}))


def test_prompts_count_in_the_fingerprint_and_the_files_name_does_not(tmp_path: Path) -> None:
    text = "labels: {a: [x], b: [y]}"
    for name, content in {"one": text, "two": text, "three": text.replace("y", "z")}.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    one, two, three = (
        parse_recipe(recipe(tmp_path, {"classify": {"taxonomy": str(tmp_path / f"{name}.yaml")}})).tables()["classify"]
        for name in ("one", "two", "three")
    )
    assert one == two != three


@pytest.mark.parametrize("name", taxonomy_names())
def test_the_taxonomies_that_ship_are_sound(name: str) -> None:
    taxonomy = read_taxonomy(name)
    assert len(taxonomy.labels) == 15
    assert all(taxonomy.sentences(label) for label in taxonomy.labels)
    sentences = [sentence for label in taxonomy.labels for sentence in taxonomy.sentences(label)]
    assert len(set(sentences)) == len(sentences)


# ---- recipes --------------------------------------------------------------------------------------------------------

OBSERVE = {"observe": {"observers": ["change"], "evidence": {"fps": 5, "short_side": 90}}}
CUT = {"cut": {"detector": "content", "min_seconds": 0.2, "max_seconds": 0.4}}


def recipe(folder: Path, *scorers: Any, model: str = "zoo:coca-world", **embed: Any) -> dict[str, Any]:
    """A recipe with an embed step before ``scorers``."""
    steps: list[Any] = [OBSERVE, CUT, {"score": {"scorer": {"embed": {"model": model}}, **embed}}]
    return {"name": "embedded", "steps": [*steps, *({"score": {"scorer": each}} for each in scorers)]}


def test_the_model_is_that_of_the_step_that_is_read(tmp_path: Path) -> None:
    folder = str(tiny.open_clip_folder(tmp_path / "model"))
    prompts = {"prompts": ["a ring"]}
    made = parse_recipe(recipe(tmp_path, {"clip": prompts}, "classify", model=folder))
    _, _, embed, similarity, labels = made.steps
    assert similarity.spec.model == labels.spec.model == embed.spec.model == folder
    assert similarity.spec.needs == POSITIONS
    assert not similarity.spec.needs_frames
    assert made.tables() == parse_recipe(made.source).tables(), "a record is read as the recipe was"
    other = parse_recipe(recipe(tmp_path, {"clip": prompts}, "classify"))
    for name in ("embed", "clip", "classify"):
        assert other.tables()[name] != made.tables()[name]

    named = parse_recipe(recipe(tmp_path, {"clip": {**prompts, "embed": "large"}}, model=folder, name="large")).steps[
        -1
    ]
    assert named.spec.needs == tuple(f"large_{name}" for name in POSITIONS)
    objects = CurationRecipe.of("o", [*made.steps[:3], ScoreStep(scorer=ClipScorer(prompts=("a ring",)))])
    assert objects.tables()["clip"] == made.tables()["clip"]


def test_steps_that_do_not_fit_are_refused_before_any_work(tmp_path: Path) -> None:
    torch.save(linear().state_dict(), tmp_path / "head.pth")
    head = {"head": str(tmp_path / "head.pth")}
    refused = {
        "step clip: model=.*set embed.model, and leave this one out": recipe(
            tmp_path, {"clip": {"model": "ViT-L-14:openai", "prompts": ["x"]}}
        ),
        "step aesthetic: trained_on='ViT-L-14:openai': step embed embeds by 'zoo:coca-world'.*set embed.model": recipe(
            tmp_path, {"aesthetic": head}
        ),
        r"step classify: embed='large': no earlier step embeds.*there are embed": recipe(
            tmp_path, {"classify": {"embed": "large"}}
        ),
        r"step clip: embed='large': no earlier step embeds": recipe(tmp_path, {"clip": {"embed": "large"}}),
        r"step aesthetic: embed='embed': no earlier step embeds": {
            "name": "n",
            "steps": [OBSERVE, CUT, {"score": {"scorer": {"aesthetic": head}}}],
        },
        r"embedding_first.*holds lists": {
            "name": "n",
            "steps": [*recipe(tmp_path)["steps"], {"select": {"rules": {"embedding_first": {"min": 0}}}}],
        },
    }
    for said, row in refused.items():
        with pytest.raises(RecipeError, match=said):
            parse_recipe(row)
    with pytest.raises(RecipeError, match=r"set embed\.model"):
        load_recipe("captioned", ["clip.model=ViT-L-14:openai"])


@pytest.mark.parametrize(
    "model",
    ["ViT-L-14:openai", "ViT-L-14-quickgelu:openai", "openai/clip-vit-large-patch14"],
)
def test_a_head_is_for_its_model_by_any_of_its_names(model: str, tmp_path: Path) -> None:
    assert aesthetic.same_model(model, "ViT-L-14:openai")
    assert not aesthetic.same_model(model, "ViT-L-14:laion2b_s32b_b82k")
    assert not aesthetic.same_model(model, "openai/clip-vit-large-patch14-336")


# ---- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CurationRecipe, dict[str, int]]:
    """A dataset of two sources with all of it, and how many pictures and evidence rows were read for it."""
    root = tmp_path_factory.mktemp("run")
    folder = str(tiny.transformers_folder(root / "model"))
    torch.manual_seed(3)
    torch.save(linear(tiny.WIDTH).state_dict(), root / "head.pth")
    for number in range(2):
        render(root / f"film{number}.mp4", count=50 + 5 * number)
    steps = recipe(
        root,
        {"clip": {"prompts": ["a ring", "sand"]}},
        {"aesthetic": {"head": str(root / "head.pth"), "trained_on": folder}},
        "classify",
        model=folder,
    )
    steps["steps"] += [
        {"select": {"rules": {"aesthetic": {"min": -100}, "clip_similarity": {"min": -1}}}},
        {"export": {"max_short_side": 64}},
    ]
    made = parse_recipe(steps)
    counted = {"images": 0, "evidence": 0}
    images, frames = encoders.Encoder.images, stages._frames
    with pytest.MonkeyPatch.context() as patch:

        def looking(self: Any, pictures: Any) -> Any:
            counted["images"] += len(pictures)
            return images(self, pictures)

        def reading(bundle: Any, clips: Any) -> Any:
            counted["evidence"] += len(clips)
            return frames(bundle, clips)

        patch.setattr(encoders.Encoder, "images", looking)
        patch.setattr(stages, "_frames", reading)
        curate([str(root / f"film{number}.mp4") for number in range(2)], str(root / "out"), made, engine="local")
    return root, made, counted


def stored_rows(dataset: DatasetTables, made: CurationRecipe, name: str) -> list[dict[str, Any]]:
    """The rows of a step's table in the order of clips."""
    rows: list[dict[str, Any]] = dataset.table(made.tables()[name]).read().sort_by("clip_id").to_pylist()
    return rows


def test_workers_read_embeddings_from_parts_and_no_picture_twice(
    ran: tuple[Path, CurationRecipe, dict[str, int]],
) -> None:
    root, made, counted = ran
    dataset = DatasetTables.open(str(root / "out"))
    rows = {name: stored_rows(dataset, made, name) for name in ("embed", "clip", "aesthetic", "classify")}
    assert {row["status"] for each in rows.values() for row in each} == {"ok"}
    count = len(rows["embed"])
    assert count >= 4
    assert len({row["source_id"] for row in rows["embed"]}) == 2
    assert counted["evidence"] == count, "only embed reads evidence"
    assert count < counted["images"] <= 3 * count, "the image tower sees each frame once"
    encoder = encoders.load_encoder(made.steps[2].spec.model)
    prompts = encoder.texts(["a ring", "sand"])
    state = torch.load(root / "head.pth", weights_only=True)
    for embed, similarity, head in zip(rows["embed"], rows["clip"], rows["aesthetic"], strict=True):
        vectors = np.array([embed[name] for name in POSITIONS])
        assert similarity["clip_id"] == head["clip_id"] == embed["clip_id"]
        assert similarity["clip_similarity"] == pytest.approx((vectors @ prompts.T).mean(0).max(), abs=1e-5)
        points = vectors @ state["weight"].numpy()[0] + float(state["bias"])
        assert head["aesthetic"] == pytest.approx(points.mean(), abs=1e-5)
        assert head["aesthetic_min"] == pytest.approx(points.min(), abs=1e-5)
    assert len({row["category"] for row in rows["classify"]} - set(read_taxonomy("hd-vg-130m").labels)) == 0


def test_lists_are_neither_joined_nor_exported(ran: tuple[Path, CurationRecipe, dict[str, int]]) -> None:
    root, made, _ = ran
    dataset = DatasetTables.open(str(root / "out"))
    names = joined(dataset, made).column_names
    assert {"frame_consistency", "clip_similarity", "aesthetic_min", "category"} <= set(names)
    assert not [name for name in names if name.startswith("embedding")]
    (export,) = (root / "out" / "exports").glob("export@*")
    index = pq.read_schema(export / "index.parquet").names
    assert "frame_consistency" in index
    assert not [name for name in index if name.startswith("embedding")]


def test_a_threshold_costs_no_model_call(
    ran: tuple[Path, CurationRecipe, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a picture nor a text is looked at, and no model is even loaded, for other rules and their export."""
    root, made, _ = ran
    called: list[str] = []
    for module in (clip, classify, encoders):
        monkeypatch.setattr(module, "load_encoder", lambda *_, **__: called.append("loaded"))
    monkeypatch.setattr(encoders.Encoder, "images", lambda *_: called.append("images"))
    monkeypatch.setattr(encoders.Encoder, "texts", lambda *_: called.append("texts"))
    out = str(root / "out")
    values = sorted(joined(DatasetTables.open(out), made)["aesthetic"].drop_null().to_pylist())
    limit = values[len(values) // 2]
    kept = sum(value >= limit for value in values)
    assert select_again(out, "main", [f"main.rules.aesthetic.min={limit}"]).kept == kept < len(values)
    export_again(out, "export", ["export.max_short_side=48"], engine="local")
    films = [str(root / f"film{number}.mp4") for number in range(2)]
    again = parse_recipe(made.source, [f"main.rules.aesthetic.min={limit}"])
    assert [each.kept for each in curate(films, out, again, engine="local").selections] == [kept]
    assert called == []


def test_other_prompts_and_heads_cost_no_pass_of_the_image_tower(
    ran: tuple[Path, CurationRecipe, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, made, _ = ran

    def looked(*_: Any) -> None:
        raise AssertionError("a picture was looked at")

    monkeypatch.setattr(encoders.Encoder, "images", looked)
    monkeypatch.setattr(stages, "_frames", looked)
    films = [str(root / f"film{number}.mp4") for number in range(2)]
    changed = parse_recipe(made.source, ["clip.prompts=[a blue square]"])
    assert changed.tables()["clip"] != made.tables()["clip"]
    summary = curate(films, str(root / "out"), changed, engine="local")
    assert {step.name: step.failed for step in summary.annotations} == {
        "embed": 0,
        "clip": 0,
        "aesthetic": 0,
        "classify": 0,
    }


def test_what_followed_from_a_defect_is_tried_again_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding failed by no fault of the clip, so the next run makes it, and the similarity that was empty for it."""
    render(tmp_path / "a.mp4", count=50)
    made, film, out = parse_recipe(recipe(tmp_path, {"clip": {"prompts": ["a ring"]}})), "a.mp4", str(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(encoders.Encoder, "images", lambda *_: [][0])
        first = curate([str(tmp_path / film)], out, made, engine="local")
    count = len(stored_rows(DatasetTables.open(out), made, "clip"))
    assert count >= 2
    assert {each.name: each.failed for each in first.annotations} == {"embed": count, "clip": count}
    second = curate([str(tmp_path / film)], out, made, engine="local")
    assert {each.name: each.failed for each in second.annotations} == {"embed": 0, "clip": 0}
    assert len(stored_rows(DatasetTables.open(out), made, "clip")) == count


def test_a_dataset_without_a_clip_is_no_error(tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", count=50)
    made = parse_recipe(
        recipe(tmp_path, {"clip": {"prompts": ["a ring"]}}), ["cut.min_seconds=20", "cut.max_seconds=30"]
    )
    summary = curate([str(tmp_path / "a.mp4")], str(tmp_path / "out"), made, engine="local")
    assert [each.failed for each in summary.annotations] == [0, 0]


def test_a_clip_that_was_not_embedded_is_a_row_with_the_reason(tmp_path: Path) -> None:
    """The frames of one source are no JPEGs: its clips have no embedding, and what follows says so."""
    render(tmp_path / "a.mp4", count=50)
    render(tmp_path / "b.mp4", count=50)
    made = parse_recipe(recipe(tmp_path, {"clip": {"prompts": ["a ring"]}}))
    frames = stages._frames
    spoilt: list[str] = []

    def spoiling(bundle: Any, clips: Any) -> Any:
        out = frames(bundle, clips)
        spoilt.extend({clip["source_id"] for clip in clips} if not spoilt else ())
        return [
            tuple(EvidenceFrame(pts=each.pts, jpeg=b"no") for each in some)
            if clip["source_id"] == min(spoilt)
            else some
            for clip, some in zip(clips, out, strict=True)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_frames", spoiling)
        curate([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], str(tmp_path / "out"), made, engine="local")
    rows = stored_rows(DatasetTables.open(str(tmp_path / "out")), made, "clip")
    failed = [row for row in rows if row["status"] == "failed"]
    assert failed
    assert {row["status"] for row in rows} == {"ok", "failed"}
    assert {row["source_id"] for row in failed} == {min(spoilt)}
    assert all("embedding_first is empty: the clip was not embedded" in row["failure"]["message"] for row in failed)
