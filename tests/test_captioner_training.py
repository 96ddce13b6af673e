"""A captioner of one's own: what its loss is, what it never sees, resuming, and its way into a zoo and a recipe."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("sacrebleu")

from dailies.curation.errors import ExportError, NotFinite, UsageError  # noqa: E402
from dailies.training import loop  # noqa: E402
from dailies.training.captioner.models import CaptionNetwork  # noqa: E402
from dailies.training.captioner.pairs import ClipPairs, Pair, split_pairs, spread_times  # noqa: E402
from dailies.training.captioner.plan import plan_captioner  # noqa: E402
from dailies.training.captioner.recipe import CaptionerRecipe  # noqa: E402
from dailies.training.captioner.starts import Start  # noqa: E402
from dailies.training.captioner.task import CaptionerTask, train_captioner  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from tests.conftest import Dailies  # noqa: E402
from tests.tiny_chat_models import VIDEO, Kind, save_tiny  # noqa: E402
from tests.tiny_coca import write_coca  # noqa: E402
from tests.training_export import build_export  # noqa: E402

RECIPE = CaptionerRecipe(
    steps=5, batch=4, frames=2, lr=1e-2, warmup=1, max_tokens=24, validation_clips=2, validate_every=5, save_every=2
)
WAYS: dict[str, dict[str, Any]] = {
    "coca": {"ema": 0.5, "accumulate": 2},
    "video": {"accumulate": 2},
    "lora": {"trains": "lora", "rank": 4},
}
FILES = {"coca": "open_clip_model.safetensors", "video": "model.safetensors", "lora": "model.safetensors"}


@pytest.fixture(scope="module", autouse=True)
def _installed(one_thread: None) -> None: ...


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips, three of them held out."""
    folder = tmp_path_factory.mktemp("captions") / "export"
    return build_export(folder, clips=9, size=(64, 48), frames=(6, 9), validation=3)


@pytest.fixture(scope="module")
def starts(export: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Start]:
    folder = tmp_path_factory.mktemp("starts")
    texts = [row.columns["caption_fuse"] for row in Export(export).rows]
    coca, qwen = (
        Start.of(str(write_coca(folder / "coca"))),
        Start.of(str(save_tiny("qwen2.5-vl", folder / "qwen", texts=texts, side=56))),
    )
    return {"coca": coca, "video": qwen, "lora": qwen}


def train(
    starts: dict[str, Start], way: str, export: Path, out: Path, say: Any = lambda line: None, **values: Any
) -> Any:
    recipe = dataclasses.replace(RECIPE, **{**WAYS[way], **values})
    return train_captioner(starts[way], Export(export), out, recipe=recipe, device="cpu", say=say)


def pairs_of(export: Path, frames: int, count: int) -> list[Pair]:
    opened = Export(export)
    return ClipPairs(opened, split_pairs(opened, RECIPE).train, RECIPE, frames).spread(count)


# ---- pairs ----------------------------------------------------------------------------------------------------------


def test_frames_are_spread_over_a_clip() -> None:
    assert spread_times(2.0, 8.0, 1) == (1.0,)
    assert spread_times(2.0, 8.0, 4) == pytest.approx((0, 0.625, 1.25, 1.875))  # the last frame of sixteen
    assert spread_times(0.125, 8.0, 3) == (0.0, 0.0, 0.0)


def test_pairs_are_a_clips_frames_and_its_caption(export: Path) -> None:
    opened = Export(export)
    rows = split_pairs(opened, RECIPE).train
    pairs = ClipPairs(opened, rows, RECIPE, 3)
    pair = pairs.spread(99)[0]
    assert (pair.clip_id, pair.caption) == (rows[0].columns["clip_id"], rows[0].columns["caption_fuse"])
    assert pair.frames.shape == (3, 48, 64, 3)
    from dailies.curation import video

    every = video.clip_frames(opened.with_video(rows[0])).pixels
    assert np.array_equal(pair.frames[0], every[0])
    assert np.array_equal(pair.frames[-1], every[-1])
    epoch = [pairs.draw(position).clip_id for position in range(len(rows))]
    assert sorted(epoch) == sorted(pairs.clip_ids)
    assert [pairs.draw(position).clip_id for position in range(len(rows), 2 * len(rows))] != epoch


def relabelled(export: Path, splits: dict[str, str]) -> Export:
    """The export with splits under other names."""
    opened = Export(export)
    for row in opened.rows:
        row.columns["split"] = splits.get(row.columns["split"], row.columns["split"])
    return opened


def test_the_validation_split_is_held_out_or_else_the_test_split(export: Path) -> None:
    split = split_pairs(Export(export), RECIPE)
    assert (len(split.train), len(split.held_out), split.name) == (6, 3, "validation")
    of_test = split_pairs(relabelled(export, {"validation": "test"}), RECIPE)
    assert (len(of_test.train), len(of_test.held_out), of_test.name) == (6, 3, "test")
    with pytest.raises(ExportError, match=r"fewer than two clips .* are held out"):
        split_pairs(relabelled(export, {"validation": "train"}), RECIPE)
    with pytest.raises(ExportError, match="no clip of the train split"):
        split_pairs(relabelled(export, {"train": "other"}), RECIPE)
    with pytest.raises(ExportError, match=r"caption=caption_coca: .* take one of caption_fuse"):
        split_pairs(Export(export), dataclasses.replace(RECIPE, caption="caption_coca"))
    opened = Export(export)
    next(row for row in opened.rows if row.columns["split"] == "train").columns["caption_fuse"] = " "
    silent = split_pairs(opened, RECIPE)
    assert len(silent.train) == 5
    assert silent.notes == ("1 of 9 clips without a text in caption_fuse, left out",)


# ---- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VIDEO)
def test_only_the_answers_tokens_are_learnt(kind: Kind, export: Path, tmp_path: Path) -> None:
    texts = [row.columns["caption_fuse"] for row in Export(export).rows]
    start = Start.of(str(save_tiny(kind, tmp_path, texts=texts, side=56)))
    network: Any = start.load(RECIPE).eval()
    pairs = pairs_of(export, 2, 3)
    inputs = network.inputs(pairs)
    ids, labels = inputs["input_ids"], inputs["labels"]
    tokenizer = network._loaded.tokenizer
    for pair, row, answer in zip(pairs, ids, labels, strict=True):
        learnt = answer != -100
        assert torch.equal(row[learnt], answer[learnt])
        text = tokenizer.decode(answer[learnt])
        # Long captions are cut, and then their end is not learnt.
        assert text.strip() in (f"{pair.caption}<|im_end|>", pair.caption[: len(text.strip())])
        # What comes before is the question, the answer's beginning last; what comes behind pads the batch.
        first, last = (int(at) for at in learnt.nonzero()[[0, -1], 0])
        assert learnt[first : last + 1].all()
        asked = tokenizer.decode(row[:first])
        assert asked.endswith(
            'how the camera moves. Say only what can be seen. Do not begin with "The video" or "This is".'
            if kind == "instructblip-video"
            else "<|im_start|>assistant\n"
        )
        assert inputs["attention_mask"][labels.tolist().index(answer.tolist())][last + 1 :].sum() == 0
    whole = [tokenizer.decode(row[row != -100]).strip() for row in labels]
    assert any(f"{pair.caption}<|im_end|>" == text for pair, text in zip(pairs, whole, strict=True))
    with torch.no_grad():
        loss = network(**inputs)["loss"]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        logits = network.model(**rest).logits.log_softmax(-1)
    for number in range(len(pairs)):
        places = (labels[number] != -100).nonzero()[:, 0].tolist()
        # The token at a place is guessed from the one before it.
        by_hand = -sum(logits[number, at - 1, labels[number, at]] for at in places) / len(places)
        assert float(loss[number]) == pytest.approx(float(by_hand), rel=1e-3)


def test_a_batch_is_as_each_clip_alone(export: Path, starts: dict[str, Start]) -> None:
    network: Any = starts["video"].load(RECIPE).eval()
    pairs = pairs_of(export, 2, 3)
    assert len({len(pair.caption.split()) for pair in pairs}) > 1
    with torch.no_grad():
        together = network(**network.inputs(pairs))["loss"]
        alone = [network(**network.inputs([pair]))["loss"] for pair in pairs]
    assert together.tolist() == pytest.approx([float(loss) for loss in alone], rel=1e-4)


def test_coca_learns_by_contrast_and_by_words(export: Path, starts: dict[str, Start]) -> None:
    recipe = dataclasses.replace(RECIPE, contrast_weight=0.7, caption_weight=1.5, max_tokens=12)
    network: Any = starts["coca"].load(recipe).eval()
    inputs = network.inputs(pairs_of(export, 1, 4))
    ids = inputs["ids"]
    assert (ids[:, 12:] == 0).all()
    assert (ids[:, :12] != 0).any(0).all()
    with torch.no_grad():
        figures = network(**inputs)
        image = network.model.encode_image(inputs["pixels"])
        text = network.model.encode_text(ids)
        logits = network.model(inputs["pixels"], ids, output_labels=False)["logits"]
        cosines = network.model.logit_scale.exp() * image @ text.T
    own = torch.arange(4)
    contrast = -(cosines.log_softmax(1)[own, own].mean() + cosines.log_softmax(0)[own, own].mean()) / 2
    guessed = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    caption = -guessed[ids[:, 1:] != 0].mean()
    assert float(figures["contrast"]) / 4 == pytest.approx(0.7 * float(contrast), rel=1e-4)
    assert float(figures["caption"]) / 4 == pytest.approx(1.5 * float(caption), rel=1e-4)
    assert float(figures["loss"]) / 4 == pytest.approx(0.7 * float(contrast) + 1.5 * float(caption), rel=1e-4)


@pytest.mark.parametrize("way", list(WAYS))
def test_what_learns_is_what_the_recipe_names(way: str, starts: dict[str, Start]) -> None:
    network = starts[way].load(dataclasses.replace(RECIPE, **WAYS[way]))
    vision = [name for name in network.trained if "visual" in name]
    assert bool(vision) == (way != "lora")
    assert all(".lora_" in name for name in network.trained) == (way == "lora")
    if way == "lora":
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in network.trained} == {
            *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        }
        return
    rest = starts[way].load(dataclasses.replace(RECIPE, **WAYS[way], vision=False))
    assert [name for name in network.trained if "visual" not in name] == list(rest.trained)


def test_adapters_learn_in_full_precision_beside_weights_in_half(export: Path, starts: dict[str, Start]) -> None:
    pairs = pairs_of(export, 2, 2)
    losses = {}
    for frozen in ("fp32", "bf16"):
        recipe = dataclasses.replace(RECIPE, trains="lora", frozen=frozen)
        network = starts["lora"].load(recipe).eval()
        assert {weight.dtype for weight in network.trained.values()} == {torch.float32}
        figures = network(**network.inputs(pairs))
        figures["loss"].sum().backward()
        assert all(weight.grad is not None for weight in network.trained.values())
        losses[frozen] = figures["loss"].tolist()
        rest = {weight.dtype for weight in network.parameters() if not weight.requires_grad}
        assert rest == {torch.float32 if frozen == "fp32" else torch.bfloat16}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", list(WAYS))
def test_it_learns_from_training_clips_alone(
    way: str, export: Path, starts: dict[str, Start], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: set[str] = set()
    losses = CaptionerTask.losses

    def watched(self: CaptionerTask, model: Any, part: Any) -> Any:
        shown.update(part.clip_ids)
        return losses(self, model, part)

    monkeypatch.setattr(CaptionerTask, "losses", watched)
    steps, lr, least = {"coca": (12, 1e-2, 0.9), "video": (12, 4e-3, 0.9), "lora": (20, 3e-2, 0.995)}[way]
    result = train(starts, way, export, tmp_path / "run", steps=steps, lr=lr, accumulate=1)
    splits = {row.columns["clip_id"]: row.columns["split"] for row in Export(export).rows}
    assert shown == {clip_id for clip_id, split in splits.items() if split == "train"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    curve = [row["loss"] for row in rows if "loss" in row]
    assert sum(curve[-3:]) < least * sum(curve[:3])
    assert result.after.loss < least * result.before.loss
    assert (result.kind, result.steps, result.after.clips) == (starts[way].kind, steps, 2)
    record = json.loads((tmp_path / "run" / "captioner.json").read_text())
    assert (record["done"], record["clips"]["train"], record["clips"]["held_out"]) == (True, 6, 3)
    assert [splits[each["clip_id"]] for each in record["examples"]] == ["validation"] * 2
    assert (tmp_path / "run" / "samples.png").is_file()

    # What is in the folder is what was measured, adapters merged.
    again = Start.of(str(result.folder)).load(dataclasses.replace(RECIPE, trains="whole")).eval()
    measured = ClipPairs(Export(export), split_pairs(Export(export), RECIPE).held_out, RECIPE, again.frames).spread(2)
    with torch.no_grad():
        scores = [again.token_scores(again.inputs([pair])) for pair in measured]
    loss = sum(float(each.loss) for each in scores) / sum(int(each.tokens) for each in scores)
    assert loss == pytest.approx(result.after.loss, rel=1e-3)
    assert [again.write(pair) for pair in measured] == [each["written"] for each in record["examples"]]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file() == (way == "lora")


class Killed(BaseException):
    """Stops a run as a kill does: nothing of the loop catches it."""


@pytest.mark.parametrize("way", list(WAYS))
def test_killed_and_interrupted_runs_go_on_bit_for_bit(
    way: str, export: Path, starts: dict[str, Start], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step

    def stopping(at: int, stop: Callable[[], None]) -> Callable[..., dict[str, float]]:
        def counted(*args: Any) -> dict[str, float]:
            if args[-1] == at:
                stop()
            return step(*args)

        return counted

    def die() -> None:
        raise Killed

    whole = (train(starts, way, export, tmp_path / "whole").folder / FILES[way]).read_bytes()
    monkeypatch.setattr(loop, "train_step", stopping(3, die))  # of three steps, two are saved
    with pytest.raises(Killed):
        train(starts, way, export, tmp_path / "run")
    monkeypatch.setattr(loop, "train_step", stopping(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        train(starts, way, export, tmp_path / "run")
    monkeypatch.undo()
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == ["step-000002", "step-000003"]
    result = train(starts, way, export, tmp_path / "run")
    assert (result.folder / FILES[way]).read_bytes() == whole
    said: list[str] = []
    assert train(starts, way, export, tmp_path / "run", said.append) == result
    assert said == [f"captioner: done before: {result.folder}"]
    with pytest.raises(UsageError, match="was begun with"):
        train(starts, way, export, tmp_path / "run", lr=0.5)


def test_parts_of_a_batch_are_neutral_where_nothing_is_held_against_another(
    export: Path, starts: dict[str, Start], tmp_path: Path
) -> None:
    """A video-language model goes on with a smaller part when memory runs out; CoCa's contrast would change."""
    recipe = dataclasses.replace(RECIPE, accumulate=4)
    assert recipe.meaning(contrast=False) == RECIPE.meaning(contrast=False)
    assert recipe.meaning(contrast=True) != RECIPE.meaning(contrast=True)
    curves = []
    for accumulate in (1, 4):
        train(starts, "video", export, tmp_path / f"by {accumulate}", steps=2, accumulate=accumulate)
        rows = map(json.loads, (tmp_path / f"by {accumulate}" / "metrics.jsonl").open())
        curves.append([row["loss"] for row in rows if "loss" in row])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_a_wrong_number_stops_before_the_weights_change(
    export: Path, starts: dict[str, Start], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: CaptionNetwork, **inputs: Any) -> dict[str, Any]:
        return {"loss": sum(weight.sum() for weight in self.trained.values()) * float("nan")}  # type: ignore[dict-item]

    network = type(starts["coca"].load(RECIPE))
    monkeypatch.setattr(network, "forward", broken)
    with pytest.raises(NotFinite, match="captioner, step 0: loss"):
        train(starts, "coca", export, tmp_path / "run")


def _work(rank: int, port: int, start: str, export: str, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    recipe = dataclasses.replace(RECIPE, ema=0.5)
    train_captioner(Start.of(start), Export(export), out, recipe=recipe, device="cpu", say=lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["coca", "video"])
def test_two_processes_train_as_one(way: str, export: Path, starts: dict[str, Start], tmp_path: Path) -> None:
    """The contrast is among the clips of all processes."""
    train(starts, way, export, tmp_path / "one", accumulate=1, ema=0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    arguments = (port, starts[way].name, str(export), str(tmp_path / "two"))
    processes = [spawn.Process(target=_work, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    rows = [[json.loads(line) for line in (tmp_path / out / "metrics.jsonl").open()] for out in ("one", "two")]
    # open_clip's mean over tokens is each process's own, so that CoCa's weights are near each other and no more.
    if way == "coca":
        for name, close in (("contrast", 1e-4), ("loss", 2e-2), ("gradient_norm", 2e-2)):
            one, two = (next(row[name] for row in some if name in row) for some in rows)
            assert one == pytest.approx(two, rel=close), name
        return
    for name in ("loss", "gradient_norm", "held_out_loss"):
        one, two = ([row[name] for row in some if name in row] for some in rows)
        assert one == pytest.approx(two, rel=2e-3), name


# ---- the plan, the command, the zoo ---------------------------------------------------------------------------------


def test_the_plan_says_what_learns_and_what_lacks(export: Path, starts: dict[str, Start]) -> None:
    for way, values in WAYS.items():
        recipe = dataclasses.replace(RECIPE, **values)
        plan = plan_captioner(starts[way], Export(export), recipe)
        network = starts[way].load(recipe)
        assert plan.trained == sum(weight.numel() for weight in network.trained.values())
        assert plan.parameters == sum(
            weight.numel() for name, weight in network.named_parameters() if ".lora_" not in name
        )
        assert (plan.clips, plan.held_out, plan.lacks) == (6, 3, ())
        assert plan.samples == 20
    bare = plan_captioner(starts["video"], None, RECIPE)
    assert (bare.clips, bare.lacks) == (None, ("an export of clips to train on (--data)",))


def test_a_published_captioner_is_taken_by_its_name(
    export: Path, starts: dict[str, Start], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dailies: Dailies
) -> None:
    from dailies.curation.captioners import CocaCaptioner, VideoCaptioner
    from dailies.pipelines.recipes.specs import resolved
    from tests.test_captioners import evidence

    zoo = tmp_path / "zoo"
    monkeypatch.setenv("DAILIES_ZOO", str(zoo))
    common = ["--set", "steps=2", "--set", "batch=4", "--set", "validation_clips=2", "--set", "frames=2", "--json"]
    for way, name in (("coca", "my-coca"), ("lora", "my-video")):
        more = ["--set", "trains=lora", "--set", "max_tokens=16"] if way == "lora" else []
        run = str(tmp_path / name)
        made_by = (
            "train",
            "captioner",
            "--from",
            starts[way].name,
            "--data",
            str(export),
            "--out",
            run,
            *common,
            *more,
        )
        report = json.loads(dailies(*made_by).stdout)
        assert report["kind"] == starts[way].kind
        entry = json.loads(dailies("zoo", "publish", run, "--as", name, "--licence", "mit", "--json").stdout)
        assert (entry["task"], entry["licence"], entry["sources"]["clips"]) == ("captioner", "mit", 6)
        assert str(tmp_path) not in (zoo / name / "README.md").read_text()
    card = (zoo / "my-video" / "README.md").read_text()
    assert 'video: {model: "zoo:my-video", prompt: "describe"}' in card
    assert "CIDEr-D" in card
    assert "2 clips of the validation split, which were not trained on" in card

    named = (CocaCaptioner(model="zoo:my-coca"), VideoCaptioner(model="zoo:my-video", frames=2, max_tokens=4))
    for captioner in map(resolved, named):
        captioner.check()
        with captioner.open() as caption:
            assert caption([evidence(content_id="a", stream=0)]).num_rows == 1
    # A captioner of one's own is a start again.
    assert dailies("train", "captioner", "--from", "zoo:my-video", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "EXPORT", "--out", "run"], "needs --from MODEL"),
        (["--from", "COCA", "--data", "EXPORT", "--out", "run", "--set", "trains=lora"], "a CoCa learns whole"),
        (
            ["--from", "COCA", "--data", "EXPORT", "--out", "run", "--set", "batch=3", "--set", "accumulate=2"],
            "batch=3",
        ),
        (["--from", "COCA", "--data", "EXPORT", "--out", "run", "--set", "caption=nope"], "caption=nope: not a column"),
        (
            ["--from", "EXPORT", "--data", "EXPORT", "--out", "run"],
            "holds neither open_clip_config.json nor config.json",
        ),
        (["--from", "no-such-model", "--data", "EXPORT", "--out", "run"], "no such folder"),
        (["--from", "QWEN", "--dry-run", "--phase", "image"], "train captioner has no phases"),
        (["--from", "QWEN", "--dry-run", "--vae", "x"], "--vae=x: a captioner has none"),
        (["--from", "QWEN", "--dry-run", "--set", "prompt=no.txt"], "the file cannot be read"),
        (["--from", "QWEN", "--dry-run", "--set", "frozen=bf16"], "frozen='bf16'"),
    ],
)
def test_the_command_says_what_does_not_fit(
    arguments: list[str],
    told: str,
    export: Path,
    starts: dict[str, Start],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dailies: Dailies,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"EXPORT": str(export), "COCA": starts["coca"].name, "QWEN": starts["video"].name}
    answer = dailies("train", "captioner", *(places.get(word, word) for word in arguments))
    assert answer.returncode == 2
    assert told in " ".join(answer.stderr.split())
    assert not (tmp_path / "run" / "model").exists()


def test_open_clips_own_are_saved_as_folders_are_read() -> None:
    """A model that open_clip lists has no folder; what is written beside its weights is what its folders hold."""
    from dailies.curation.openclip.openclip_folder import CONFIGURATION
    from dailies.training.captioner.coca import own_config

    pictures = {"size": (224, 224), "mode": "RGB", "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "shortest"}
    row = own_config("coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k", SimpleNamespace(preprocess_cfg=pictures))
    checked = CONFIGURATION.validate_python(row, strict=True)
    assert checked.model_cfg.multimodal_cfg is not None
    assert row["preprocess_cfg"]["size"] == [224, 224]
