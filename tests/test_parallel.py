"""Several processes that share each batch: the same samples in the same order, and the same weights as one process."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from dailies.curation.errors import UsageError  # noqa: E402
from dailies.training.data.batches import Batch, Batches  # noqa: E402
from dailies.training.data.prefetch import prefetch  # noqa: E402
from dailies.training.data.world import World  # noqa: E402
from dailies.training.distributed import pick_device  # noqa: E402
from dailies.training.loop import check_batch, train  # noqa: E402
from dailies.training.recipes.phase import Phase  # noqa: E402
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec  # noqa: E402
from tests.conftest import Dailies  # noqa: E402
from tests.training_export import MODELS, build_export  # noqa: E402

SMALL = {"batch": 4, "size": (32, 24), "validate_every": 9, "validation_clips": 2, "validation_sigmas": (1.0,),
         "save_every": 2, "samples": 1, "sample_steps": 2, "steps": 3, "warmup": 0}  # fmt: skip
LISTS = ("size", "validation_sigmas")
RECIPE = TrainingRecipe(
    name="ranks",
    unet=UNetSpec(channels=(32,), attention=(True,), heads=1),
    text_tokens=8,
    autocast=False,
    phases=(
        Phase(name="image", task="text-to-image", **SMALL),
        Phase(name="video", task="text-to-video", frames=3, image_share=0.5, **SMALL),
    ),
)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel") / "export"
    return build_export(folder, clips=9, size=(64, 48), frames=(12, 15), validation=3)


def noted(out: Path, rank: int) -> Any:
    """``Batches.training``, which writes down the samples of each step."""
    real = Batches.training

    def training(self: Batches, step: int, *ranks: Any) -> list[Batch]:
        made = real(self, step, *ranks)
        with (out / f"ids-{rank}.jsonl").open("a") as file:
            row = [[batch.clean.ndim == 4, list(batch.clip_ids), batch.sigma.tolist()] for batch in made]
            file.write(json.dumps([self.phase.name, step, row]) + "\n")
        return made

    return training


def work(rank: int, count: int, port: int, export: str, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    Batches.training = noted(Path(out), rank)  # type: ignore[method-assign]
    train(RECIPE, export, Path(out) / "run", MODELS, device="cpu", say=lambda line: None)


def trained(count: int, export: Path, out: Path) -> Path:
    """``out`` after a run by ``count`` processes."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(rank, count, port, str(export), str(out))) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * count
    return out


def samples(out: Path, count: int) -> dict[tuple[str, int, bool], list[tuple[str, float]]]:
    """(phase, step, whether pictures) → ids and noise levels, those of all processes one after the other."""
    found: dict[tuple[str, int, bool], list[tuple[str, float]]] = {}
    for rank in range(count):
        for line in (out / f"ids-{rank}.jsonl").read_text().splitlines():
            phase, step, batches = json.loads(line)
            for picture, ids, sigmas in batches:
                found.setdefault((phase, step, picture), []).extend(zip(ids, sigmas, strict=True))
    return found


@pytest.mark.slow
def test_two_processes_train_as_one(export: Path, tmp_path: Path) -> None:
    one, two = trained(1, export, tmp_path / "one"), trained(2, export, tmp_path / "two")
    assert samples(one, 1) == samples(two, 2)
    for phase in ("image", "video"):
        losses = []
        for out in (one, two):
            lines = (out / "run" / "phases" / phase / "metrics.jsonl").read_text().splitlines()
            losses.append([row["loss"] for row in map(json.loads, lines) if "loss" in row])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        alone, shared = (
            load_file(out / "run/phases" / phase / "step-000003/unet_ema/diffusion_pytorch_model.safetensors")
            for out in (one, two)
        )
        # Adam moves a weight by the sign of its gradient at first, so those without one to speak of may go either way.
        apart = torch.cat([(alone[name] - shared[name]).abs().flatten() for name in alone])
        assert apart.mean() < 0.01 * SMALL["steps"] * RECIPE.phases[0].lr  # 1 % of what a weight can have moved
    facts = [json.loads((out / "run" / "run.json").read_text())["phases"] for out in (one, two)]
    for entry, other in zip(*facts, strict=True):
        assert [pair[1] for pair in entry["validation"]] == pytest.approx(
            [pair[1] for pair in other["validation"]], rel=1e-3
        )
        assert entry["done"]
        assert other["done"]


@pytest.mark.slow
def test_workers_on_ray_train_as_one_process(export: Path, tmp_path: Path, dailies: Dailies) -> None:
    (export / "index.parquet").touch()
    less = [
        word
        for name, value in SMALL.items()
        for word in ("--set", f"image.{name}={list(value) if name in LISTS else value}")
    ]
    losses = []
    for workers in (1, 2):
        out = tmp_path / f"run{workers}"
        words = (
            "train",
            "tiny",
            "--phase",
            "image",
            "--data",
            export,
            "--out",
            out,
            "--workers",
            workers,
            "--device",
            "cpu",
        )
        done = dailies(*words, *less, "--set", "autocast=false", "--json")
        assert done.returncode == 0, done.stderr
        assert "image: done in" in done.stderr
        assert not (out / "ray").exists()
        (report,) = json.loads(done.stdout)
        losses.append([report["first_loss"], report["last_loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_batch_smaller_than_the_processes_is_refused(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_batch("batch=1", 1, World())
    with pytest.raises(UsageError, match="batch=1: too few samples a step"):
        check_batch("batch=1", 1, World(size=2))
    three = dataclasses.replace(RECIPE.phases[1], image_share=0.75)  # of 4 samples are pictures
    monkeypatch.setattr("dailies.training.distributed.world", lambda: World(size=2))
    with pytest.raises(UsageError, match=r"phase video: batch=4: .* \(1 for 2 processes\)"):
        train(dataclasses.replace(RECIPE, phases=(three,)), export, tmp_path / "run", MODELS, say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_what_is_made_ahead_is_the_same_in_order() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    assert list(prefetch(make, 3, 9, 2)) == list(prefetch(make, 3, 9, 0)) == [9, 16, 25, 36, 49, 64]
    made.clear()
    begun = prefetch(make, 0, 100, 3)
    assert next(begun) == 0
    begun.close()  # type: ignore[attr-defined]
    assert len(made) <= 5


def test_what_cannot_be_made_ahead_is_raised_at_its_turn() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    coming = prefetch(make, 0, 5, 2)
    assert [next(coming), next(coming)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(coming)


def test_a_device_that_is_not_there_is_named() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match=r"device=(cuda:7|nonsense): is not available"):
        pick_device("nonsense" if torch.cuda.is_available() else "cuda:7")
