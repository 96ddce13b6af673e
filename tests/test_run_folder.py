"""A run's folder: damaged checkpoints and files, a full disk, two runs at once, a run made longer, an export that moved."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import resource
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from dailies.curation.errors import Damaged, Outage, RunError  # noqa: E402
from dailies.training import checkpoint  # noqa: E402
from dailies.training.data.content import WHOLE, shards_content  # noqa: E402
from dailies.training.data.export import Export  # noqa: E402
from dailies.training.loop import sole_run, train  # noqa: E402
from dailies.training.recipes.phase import Phase  # noqa: E402
from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec  # noqa: E402
from dailies.training.run_log import Metrics, Run  # noqa: E402
from tests.training_export import MODELS, build_export  # noqa: E402

PHASE = Phase(
    name="image", task="text-to-image", batch=1, size=(16, 16), validate_every=2, validation_clips=1,
    validation_sigmas=(1.0,), save_every=1, samples=1, sample_steps=2, steps=2, warmup=0, lr=1e-2, decay=1.0,
)  # fmt: skip
RECIPE = TrainingRecipe(
    name="folder",
    unet=UNetSpec(channels=(32,), attention=(False,), heads=1, time_id_width=8),
    text_tokens=8,
    autocast=False,
    phases=(PHASE, dataclasses.replace(PHASE, name="next")),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_export(
        tmp_path_factory.mktemp("folder") / "export", clips=3, size=(32, 32), frames=(24, 26), validation=3
    )


@pytest.fixture(scope="module")
def whole(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(RECIPE, export, tmp_path_factory.mktemp("folder") / "run", MODELS, phase="image", say=quiet).folder


def quiet(line: str) -> None:
    pass


def with_steps(steps: int, **more: Any) -> TrainingRecipe:
    return dataclasses.replace(RECIPE, phases=(dataclasses.replace(PHASE, steps=steps, **more), *RECIPE.phases[1:]))


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def write(folder: Path) -> dict[str, Any]:
    for part in checkpoint.UNETS:
        (folder / part).mkdir()
        save_file({"w": torch.arange(1000.0)}, folder / part / checkpoint.WEIGHTS)
    return {}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("file", ["state.pt", f"unet/{checkpoint.WEIGHTS}", f"unet_ema/{checkpoint.WEIGHTS}"])
@pytest.mark.parametrize("harm", [empty, cut, blank, os.unlink])
def test_the_checkpoint_before_a_damaged_one_is_taken(harm: Callable[[Path], None], file: str, tmp_path: Path) -> None:
    for step in (2, 4):
        checkpoint.save(tmp_path, step, write, optimizer())
    said: list[str] = []
    assert checkpoint.latest(tmp_path, checkpoint.UNETS, said.append) == tmp_path / "step-000004"
    harm(tmp_path / "step-000004" / file)
    assert checkpoint.latest(tmp_path, checkpoint.UNETS, said.append) == tmp_path / "step-000002"
    what = "is missing" if harm is os.unlink else "is empty or cut"
    assert said == [f"{tmp_path}/step-000004: {file} {what}; the checkpoint before it is taken"]
    checkpoint.save(tmp_path, 4, write, optimizer())
    assert checkpoint.damage(tmp_path / "step-000004", checkpoint.UNETS) is None, "it is written again"
    for step in (2, 4):
        harm(tmp_path / checkpoint.step_name(step) / file)
    with pytest.raises(Damaged, match="no other checkpoint is whole"):
        checkpoint.latest(tmp_path, checkpoint.UNETS, quiet)


def test_as_many_checkpoints_as_said_are_kept(tmp_path: Path) -> None:
    for keep, left in ((2, [8, 9]), (1, [10])):
        for step in (left[0] - 1, *left):
            checkpoint.save(tmp_path, step, write, optimizer(), keep=keep)
        assert sorted(map(checkpoint.step_of, tmp_path.glob("step-*"))) == left
    assert PHASE.keep == 2


def test_what_is_renamed_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])

    def replaced(source: Path, target: Path) -> None:
        files = [str(path) for path in [Path(source), *Path(source).rglob("*")]]
        assert set(files) <= set(synced)
        rename(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    checkpoint.save(tmp_path, 2, write, optimizer())
    assert str(tmp_path) in synced


def _save_with_little_room(folder: Path, room: int, answers: Any) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        with checkpoint.explain_full_disk(folder):
            checkpoint.save(folder, 4, write, optimizer())
    except Outage as error:
        answers.put(str(error))
    except BaseException as error:
        answers.put(repr(error))
    else:
        answers.put("written")


@pytest.mark.parametrize("room", [3000, 1000])
def test_a_full_disk_is_one_line_and_leaves_nothing(room: int, tmp_path: Path) -> None:
    """The system refuses to write past ``room`` bytes of a file: weights, or (of a smaller one) the state."""
    checkpoint.save(tmp_path, 2, write, optimizer())
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_save_with_little_room, args=(tmp_path, room, answers))
    process.start()
    said = answers.get(timeout=60)
    process.join()
    assert said.startswith(f"out={tmp_path}: the disk is full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000002"]


def test_a_state_that_does_not_fit_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: Any, file: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Outage), checkpoint.explain_full_disk(tmp_path):
        checkpoint.save(tmp_path, 2, write, optimizer())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermissionError), checkpoint.explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "not yours")


# ---- run.json and metrics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", '{"recipe": ', "[]"])
def test_a_run_json_that_cannot_be_read_is_named(text: str, export: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(Damaged, match=r"run\.json: "):
        Run(tmp_path, RECIPE, {"main": Export(export)}, MODELS)


def test_a_torn_line_of_metrics_is_named_and_half_a_last_one_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo')
    Metrics(tmp_path, 3).close()
    assert file.read_text() == '{"step": 1, "loss": 1}\n'
    file.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo\n{"step": 3, "loss": 1}\n')
    with pytest.raises(Damaged, match=r"metrics\.jsonl: line 2 is not JSON"):
        Metrics(tmp_path, 3)


# ---- one run at a time ----------------------------------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_refused_in_one_line(export: Path, tmp_path: Path) -> None:
    from dailies.training.vae.recipe import VaeRecipe
    from dailies.training.vae.task import train_vae

    vae = VaeRecipe(steps=1, batch=1, frames=2, size=(16, 16), validation_clips=1)
    with sole_run(tmp_path):
        with pytest.raises(RunError, match=rf"^out=.*: pid {os.getpid()} on .* is writing to it; only one run"):
            train(RECIPE, export, tmp_path, MODELS, say=quiet)
        with pytest.raises(RunError, match="only one run"):
            train_vae(str(MODELS.vae_temporal), Export(export), tmp_path, recipe=vae, say=quiet)
    with sole_run(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


# ---- longer runs ----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_made_longer(whole: Path, export: Path, tmp_path: Path) -> None:
    copytree(whole, tmp_path / "run")
    said: list[str] = []
    longer = with_steps(4, save_every=2, validate_every=1, sample_every=4, keep=1)
    run = train(longer, export, tmp_path / "run", MODELS, phase="image", say=said.append)
    assert said[0] == (
        "image: 4 steps instead of 2; from step 2 on the learning rate is that of 4 steps: 0.005, where it was 0"
    )
    assert "image: goes on from step 2" in said
    (entry,) = json.loads(run.path.read_text())["phases"]
    assert (entry["steps"], entry["done"], entry["checkpoint"]) == (4, True, "phases/image/step-000004")
    assert [step for step, _ in entry["validation"]] == [0, 2, 3, 4]
    rates = [
        json.loads(line).get("lr") for line in (run.folder / "phases/image/metrics.jsonl").read_text().splitlines()
    ]
    assert [rate for rate in rates if rate is not None] == pytest.approx([0.01, 0.005, 0.005, 0.0025])
    with pytest.raises(RunError, match="phase image: steps=3: 4 are done already"):
        train(with_steps(3), export, tmp_path / "run", MODELS, phase="image", say=quiet)
    with pytest.raises(RunError, match=r"recipe: .* was begun with recipe\.phases\[image\]\.lr 0\.01, not 0\.5"):
        train(with_steps(4, lr=0.5), export, tmp_path / "run", MODELS, phase="image", say=quiet)


def test_a_run_made_longer_ends_as_if_it_had_always_been_so_long(export: Path, tmp_path: Path) -> None:
    for out, lengths in (("longer", (2, 4)), ("long", (4,))):
        for steps in lengths:
            recipe = with_steps(steps, decay=0.0)
            train(recipe, export, tmp_path / out, MODELS, phase="image", say=quiet)
    one, other = (
        load_file(tmp_path / out / "phases/image/step-000004/unet_ema" / checkpoint.WEIGHTS)
        for out in ("longer", "long")
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_phase_that_another_was_started_from_is_not_made_longer(whole: Path, export: Path) -> None:
    run = Run(whole, RECIPE, {"main": Export(export)}, MODELS)
    run.facts["phases"].append({**run.facts["phases"][0], "name": "next"})
    recipe = with_steps(4)
    with pytest.raises(RunError, match="steps=4: phase next was started from its weights after 2 steps"):
        run.resize(recipe, recipe.phases[0])


# ---- what it is trained on ------------------------------------------------------------------------------------------


def test_an_export_that_moved_is_the_same_and_one_that_changed_is_not(
    whole: Path, export: Path, tmp_path: Path
) -> None:
    moved = copytree(export, tmp_path / "moved")
    said: list[str] = []
    train(RECIPE, moved, whole, MODELS, phase="image", say=said.append)
    assert said[0].startswith("image: done before")
    (shard,) = (moved / "data").glob("train-*")
    kept, table = shard.read_bytes(), pq.read_table(shard)
    captions = [text.replace("red", "blu").upper() for text in table["caption_fuse"].to_pylist()]
    number = table.column_names.index("caption_fuse")
    for change in (
        lambda: pq.write_table(table.set_column(number, table.field(number), pa.array(captions)), shard),
        lambda: shard.write_bytes(kept.replace(b"mdat", b"mdaT", 1)),
    ):
        change()
        with pytest.raises(RunError, match=r"^data: .* as its bytes were then"):
            train(RECIPE, moved, whole, MODELS, phase="image", say=quiet)


def test_long_columns_are_told_apart_by_samples_of_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    clips = [os.urandom(WHOLE) for _ in range(8)]
    digits = set()
    for number in range(len(clips)):
        others = [clip[::-1] if i == number else clip for i, clip in enumerate(clips)]
        pq.write_table(
            pa.table({"video": others}), tmp_path / "data/a.parquet", compression="none", use_dictionary=False
        )
        digits.add(shards_content(tmp_path))
        assert shards_content(tmp_path) in digits
    assert len(digits) == len(clips)


# ---- what the average is --------------------------------------------------------------------------------------------


def test_the_average_and_not_the_last_weights_is_kept_and_judged(whole: Path, export: Path) -> None:
    """After two steps it is 0.1·θ₀ + …: d of step 0 is 1/10, of step 1 2/11; validation is that of the average."""
    from dailies.training.data.batches import Batches
    from dailies.training.data.split import load
    from dailies.training.diffusion.encoders import Encoders
    from dailies.training.models import load_pretrained
    from dailies.training.unet_task import validation_loss

    first, last = (whole / "phases/image" / checkpoint.step_name(step) for step in (1, 2))
    one, two, mean_one, mean = (
        load_file(step / part / checkpoint.WEIGHTS) for part in checkpoint.UNETS for step in (first, last)
    )
    for name, weight in two.items():
        torch.testing.assert_close(mean[name], 2 / 11 * mean_one[name] + 9 / 11 * weight)
    assert max((mean[name] - two[name]).abs().max() for name in two) > 1e-4
    assert max((mean_one[name] - one[name]).abs().max() for name in two) > 1e-4
    split = load(RECIPE, PHASE, {"main": Export(export)}, MODELS)
    entry = json.loads((whole / "run.json").read_text())["phases"][0]
    batches = Batches(RECIPE, PHASE, split, Encoders(MODELS, text_tokens=8), entry["motion_reference"])
    losses = {
        part: validation_loss(load_pretrained(last / part), batches, RECIPE, torch.device("cpu"))
        for part in checkpoint.UNETS
    }
    batches.close()
    assert entry["validation"][-1][1] == pytest.approx(losses["unet_ema"], rel=1e-5)
    assert abs(losses["unet"] - losses["unet_ema"]) > 1e-4 * losses["unet_ema"]


# ---- which noise is which -------------------------------------------------------------------------------------------


def test_the_posteriors_noise_is_not_the_noise_that_is_taken_away(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of latents with mean 0 and variance 4, ``clean`` is their sample, scaled, and says nothing of ``noise``."""
    import math

    from dailies.training.data.batches import Batches
    from dailies.training.data.split import load
    from dailies.training.diffusion.encoders import Encoders

    long = dataclasses.replace(PHASE, steps=100)
    split = load(RECIPE, long, {"main": Export(export)}, MODELS)
    batches = Batches(RECIPE, long, split, Encoders(MODELS, text_tokens=8), 0.0)
    (loader, *_) = batches._loaders.values()
    scale = loader.scaling_factor

    def moments(self: Any, sample: Any) -> torch.Tensor:
        mean, logvar = real(self, sample).chunk(2, dim=1)
        return torch.cat([torch.zeros_like(mean), torch.full_like(logvar, math.log(4.0))], 1)

    real = type(loader).moments
    monkeypatch.setattr(type(loader), "moments", moments)
    drawn = [batch for step in range(long.steps) for batch in batches.training(step)]
    batches.close()
    clean, noise = (torch.cat([getattr(batch, name).flatten() for batch in drawn]) for name in ("clean", "noise"))
    assert clean.std().item() == pytest.approx(2 * scale, rel=0.1)
    assert noise.std().item() == pytest.approx(1, rel=0.1)
    assert abs(torch.corrcoef(torch.stack([clean, noise]))[0, 1].item()) < 0.1


def test_a_vae_is_trained_on_samples_of_the_posterior() -> None:
    from types import SimpleNamespace

    import numpy as np

    from dailies.training.vae.objective import encode

    posterior = SimpleNamespace(mean=torch.full((50, 4, 4, 4), 3.0), std=torch.full((50, 4, 4, 4), 0.5))
    vae = SimpleNamespace(device="cpu", encode=lambda x: SimpleNamespace(latent_dist=posterior))
    latents = encode(vae, np.zeros((50, 8, 8, 3), np.uint8), np.random.default_rng(0))
    assert latents.mean().item() == pytest.approx(3, abs=0.05)
    assert latents.std().item() == pytest.approx(0.5, rel=0.1)
