"""Runs, exports and zoos that somebody else made lead nowhere outside, to training as to the zoo."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.errors import Damaged, RunError, Unsafe, UsageError
from dailies.zoo.entry import ZooEntry
from dailies.zoo.formats import lock
from dailies.zoo.store import ENTRY, Store
from tests.conftest import Dailies
from tests.security.outside import SECRET, pipe, ringing, state, swap

Attack = Callable[[Path, Path], None]
"""Changes what others made, so that it leads to the key."""


@pytest.fixture(autouse=True)
def _hang_is_failure() -> Iterator[None]:
    with ringing():
        yield


# ---- zoos -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A zoo with the models ``bad``, to be attacked, and ``good``; beside it, ``outside`` with a key and a model."""
    outside = tmp_path / "outside"
    for folder, name in ((tmp_path / "zoo", "bad"), (tmp_path / "zoo", "good"), (outside / "zoo", "bad")):
        with Store(folder).adding(name) as model:
            (model / ENTRY).write_text(
                ZooEntry(name=name, task="component", about=f"of {folder.parent.name}").to_json()
            )
            (model / "unet").mkdir()
            (model / "unet" / "config.json").write_text("{}")
            (model / "empty.txt").touch()
    (outside / "key.pem").write_bytes(SECRET)
    shutil.copy(tmp_path / "zoo" / "bad" / lock.LOCK, outside / "lock.json")
    return tmp_path / "zoo"


MODELS: dict[str, Attack] = {
    "a model is a link": lambda zoo, out: swap(zoo / "bad", out / "zoo" / "bad"),
    "an entry is a link": lambda zoo, out: swap(zoo / "bad" / ENTRY, out / "zoo" / "bad" / ENTRY),
    "a lock is a link": lambda zoo, out: swap(zoo / "bad" / lock.LOCK, out / "lock.json"),
    "a file is a link": lambda zoo, out: swap(zoo / "bad" / "unet" / "config.json", out / "key.pem"),
    "a folder is a link": lambda zoo, out: swap(zoo / "bad" / "unet", out / "zoo" / "bad" / "unet"),
    "an entry is a pipe": lambda zoo, out: pipe(zoo / "bad" / ENTRY),
    "a lock is a pipe": lambda zoo, out: pipe(zoo / "bad" / lock.LOCK),
    "a file is a pipe": lambda zoo, out: pipe(zoo / "bad" / "empty.txt"),
}


@pytest.mark.parametrize("attack", MODELS)
@pytest.mark.parametrize("command", ["list", "show", "verify", "run"])
def test_a_model_shows_nothing_outside(zoo: Path, dailies: Dailies, attack: str, command: str) -> None:
    outside = zoo.parent / "outside"
    MODELS[attack](zoo, outside)
    before = state(outside)
    more = {"list": (), "show": ("bad",), "verify": (), "run": ("bad", "--out", zoo.parent / "x.mp4", "--prompt", "x")}
    done = dailies("zoo", command, *more[command], "--zoo", zoo)
    said = done.stdout + done.stderr
    assert "PRIVATE KEY" not in said
    assert "of outside" not in said
    assert "Traceback" not in said
    assert state(outside) == before
    if command == "list":
        assert done.returncode == 0, said
        assert "good" in said, "one bad model hides no other"
    if command in ("verify", "run"):
        assert done.returncode == 1, said


WRITES: dict[str, Attack] = {
    "the lock is a link": lambda zoo, out: swap(zoo / ".lock", out / "key.pem"),
    "the lock is a hard link": lambda zoo, out: swap(zoo / ".lock", out / "key.pem", hard=True),
    "the lock is a pipe": lambda zoo, out: pipe(zoo / ".lock"),
    "a half model is a link": lambda zoo, out: swap(zoo / ".adding-x-1", out / "zoo"),
    "the name is a link": lambda zoo, out: swap(zoo / "new", out / "zoo"),
    "the name is a link to nothing": lambda zoo, out: swap(zoo / "new", out / "nothing"),
}


@pytest.mark.parametrize("attack", WRITES)
def test_a_zoo_is_written_to_in_its_own_folder(zoo: Path, attack: str) -> None:
    outside = zoo.parent / "outside"
    WRITES[attack](zoo, outside)
    before = state(outside)
    refused = False
    try:
        with Store(zoo).adding("new") as model:
            (model / ENTRY).write_text(ZooEntry(name="new", task="component").to_json())
    except (Damaged, UsageError):
        refused = True
    assert state(outside) == before
    assert refused == (attack != "a half model is a link")


def test_a_published_model_that_the_user_names_may_be_a_link(zoo: Path) -> None:
    from dailies.zoo.generate import find

    (zoo.parent / "named").symlink_to(zoo / "good")
    folder, entry = find(zoo.parent / "named", None)
    assert (folder, entry.name) == (zoo / "good", "good")


# ---- publishing a run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("torch", "diffusers", "transformers"):
        pytest.importorskip(package)
    from tests.tiny_run import make_run

    return make_run(tmp_path_factory.mktemp("run"))


def named(**changes: str) -> Attack:
    """run.json of the phases says this, with OUT for where the key lies and UP for the way there."""

    def attack(run: Path, out: Path) -> None:
        facts = json.loads((run / "run.json").read_text())
        for phase in facts["phases"]:
            phase |= {
                key: value.replace("OUT", str(out)).replace("UP", os.path.relpath(out, run))
                for key, value in changes.items()
            }
        (run / "run.json").write_text(json.dumps(facts))

    return attack


def of_phase(name: str, act: Callable[[Path, Path], None], to: str) -> Attack:
    return lambda run, out: act(run / "phases" / "animate" / name, out / to)


def hard(path: Path, target: Path) -> None:
    swap(path, target, hard=True)


RUNS: dict[str, Attack] = {
    "samples name a path": named(samples="OUT/key.pem"),
    "samples go up": named(samples="UP/key.pem"),
    "samples go down and up": named(samples="phases/../UP/key.pem"),
    "samples are a key in the run": lambda run, out: (
        shutil.copy(out / "key.pem", run / "phases" / "key.png"),
        named(samples="phases/key.png")(run, out),
    )[1],
    "samples are a link": of_phase("samples.png", swap, "key.pem"),
    "samples are a hard link": of_phase("samples.png", hard, "key.pem"),
    "samples are a pipe": of_phase("samples.png", lambda path, _: pipe(path), ""),
    "a checkpoint names a path": named(checkpoint="OUT/phases/animate/step-000200"),
    "a checkpoint goes up": named(checkpoint="UP/phases/animate/step-000200"),
    "a checkpoint is a link": of_phase("step-000200", swap, "phases/animate/step-000200"),
    "weights are a link": of_phase("step-000200/unet_ema", swap, "phases/animate/step-000200/unet_ema"),
    "a file of weights is a link": of_phase(
        "step-000200/unet_ema/config.json", swap, "phases/animate/step-000200/unet_ema/config.json"
    ),
    "the phases' folder is a link": lambda run, out: swap(run / "phases", out / "phases"),
    "a phase's name goes up": named(name="../../../outside/x"),
    "the record is a link": lambda run, out: swap(run / "run.json", out / "run.json"),
    "the record is a pipe": lambda run, out: pipe(run / "run.json"),
}


@pytest.mark.parametrize("attack", RUNS)
def test_publishing_takes_nothing_from_outside_a_run(run: Path, tmp_path: Path, dailies: Dailies, attack: str) -> None:
    theirs, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(run, theirs)
    shutil.copytree(run / "phases", outside / "phases")
    shutil.copy(run / "run.json", outside)
    (outside / "key.pem").write_bytes(SECRET)
    RUNS[attack](theirs, outside)
    before = state(outside)
    done = dailies("zoo", "publish", theirs, "--name", "new", "--to", tmp_path / "zoo")
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2), said
    assert len(done.stderr.strip().splitlines()) == 1, said
    assert "PRIVATE KEY" not in said
    assert state(outside) == before
    found = [path.relative_to(tmp_path / "zoo") for path in (tmp_path / "zoo").rglob("*") if path.is_file()]
    assert not [path for path in found if path.name != ".lock"], "nothing is published"


# ---- what training reads and writes ---------------------------------------------------------------------------------

EXPORTS: dict[str, Attack] = {
    "a shard is a link": lambda export, out: swap(shard(export), out / "x.parquet"),
    "the shards' folder is a link": lambda export, out: swap(export / "data", out),
    "a shard is a pipe": lambda export, out: pipe(shard(export)),
    "latents.json is a link": lambda export, out: swap(export / "latents.json", out / "key.pem"),
    "latents.json is a pipe": lambda export, out: pipe(export / "latents.json"),
}


def shard(export: Path) -> Path:
    return export / "data" / "train-00000-of-00001.parquet"


@pytest.mark.parametrize("attack", EXPORTS)
def test_an_export_is_read_in_its_own_folder(tmp_path: Path, attack: str) -> None:
    pytest.importorskip("torch")
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dailies.training.data.content import shards_content
    from dailies.training.data.export import Export

    export, outside = tmp_path / "export", tmp_path / "outside"
    (export / "data").mkdir(parents=True)
    outside.mkdir()
    (outside / "key.pem").write_bytes(SECRET)
    for file in (shard(export), outside / "x.parquet"):
        pq.write_table(pa.table({"clip_id": ["a"], "video": [b"bytes"]}), file)
    read = Export(export)
    EXPORTS[attack](export, outside)
    with pytest.raises(Unsafe) as raised:
        Export(export)
    assert "PRIVATE" not in str(raised.value)
    if "shard" in attack:  # which are opened again and again while training runs
        with pytest.raises(Unsafe):
            shards_content(export)
        with pytest.raises(Unsafe):
            read.with_video(read.rows[0])
        with pytest.raises(Unsafe):
            read.cells(read.rows[0], ["video"])


TRAINING: dict[str, tuple[str, ...]] = {
    "train": ("train", "tiny", "--data", "EXPORT", "--out", "OUT", "--device", "cpu"),
    "train vae": ("train", "vae", "--from", "zoo:vae-world", "--data", "EXPORT", "--out", "OUT", "--device", "cpu"),
    "train captioner": (
        *("train", "captioner", "--from", "zoo:coca-world", "--data", "EXPORT", "--out", "OUT", "--device", "cpu"),
    ),
    "latents": ("export", "EXPORT", "--latents", "tiny", "--out", "OUT", "--device", "cpu", "--engine", "local"),
}


@pytest.mark.parametrize("command", TRAINING)
@pytest.mark.parametrize("attack", EXPORTS)
def test_training_reads_an_export_in_its_own_folder(
    tmp_path: Path, dailies: Dailies, attack: str, command: str
) -> None:
    for package in ("torch", "diffusers", "transformers"):
        pytest.importorskip(package)
    import pyarrow as pa
    import pyarrow.parquet as pq

    export, outside = tmp_path / "export", tmp_path / "outside"
    (export / "data").mkdir(parents=True)
    outside.mkdir()
    (outside / "key.pem").write_bytes(SECRET)
    columns = {"clip_id": ["mysecret"], "video": [b"bytes"], "caption_fuse": ["a text"]}  # which training tiny reads
    for file in (shard(export), outside / "x.parquet", export / "index.parquet"):
        pq.write_table(pa.table(columns), file)
    EXPORTS[attack](export, outside)
    before = state(outside)
    places = {"EXPORT": str(export), "OUT": str(tmp_path / "out")}
    done = dailies(*(places.get(word, word) for word in TRAINING[command]))
    assert done.returncode, done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "is a link" in done.stderr or "neither a file nor a folder" in done.stderr or "no data/" in done.stderr
    assert state(outside) == before


def test_pictures_are_files(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dailies.training.data.pictures import folder_pictures, picture_tables

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"png")
        (tmp_path / name).with_suffix(".txt").write_text(name)
    pipe(tmp_path / "b.png")
    pipe(tmp_path / "c.parquet")
    assert folder_pictures(tmp_path, (8, 8)).clip_ids == ["a.png"]
    assert picture_tables(tmp_path) == []


def test_a_run_keeps_its_files_in_its_own_folder(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dailies.training.run_log import Metrics, read_record

    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    run.mkdir()
    (outside / "key.pem").write_bytes(SECRET)
    (outside / "board").mkdir()
    before = state(outside)
    for name in ("run.json", "metrics.jsonl"):
        (run / name).symlink_to(outside / "key.pem")
    with pytest.raises(Unsafe, match=r"run\.json: is a link"):
        read_record(run / "run.json")
    with pytest.raises(Unsafe, match=r"metrics\.jsonl: is a link"):
        Metrics(run, 0)
    (run / "metrics.jsonl").unlink()
    (run / "tensorboard").symlink_to(outside / "board")
    with pytest.raises(Unsafe, match="tensorboard: is a link"):
        Metrics(run, 0)
    assert state(outside) == before


@pytest.mark.parametrize("at", ["step-000004", "step-000004/unet", "step-000004/state.pt"])
def test_a_checkpoint_is_no_link(tmp_path: Path, at: str) -> None:
    torch: Any = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from dailies.training import checkpoint

    phase, outside = tmp_path / "phase", tmp_path / "outside"
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def write(folder: Path) -> dict[str, Any]:
        (folder / "unet").mkdir()
        save_file(model.state_dict(), folder / "unet" / checkpoint.WEIGHTS)
        return {}

    def save(folder: Path, step: int) -> None:
        checkpoint.save(folder, step, write, optimizer, keep=1, parts=("unet",))

    for folder in (phase, outside):
        save(folder, 4)
    swap(phase / at, outside / at)
    before = state(outside)
    said: list[str] = []
    with pytest.raises(Damaged, match="is a link"):
        checkpoint.latest(phase, ("unet",), said.append)
    save(phase, 6)  # which removes what is older
    assert sorted(path.name for path in phase.iterdir()) == ["latest", "step-000006"]
    assert state(outside) == before


def test_what_workers_say_stays_in_the_run(tmp_path: Path) -> None:
    from dailies.pipelines.workers import Lines

    outside, run = tmp_path / "outside", tmp_path / "run"
    (outside / "folder").mkdir(parents=True)
    (outside / "key.pem").write_bytes(SECRET)
    (run / "ray").mkdir(parents=True)
    before = state(outside)
    for name in ("log.txt", "error.json", "traceback.txt"):
        (run / "ray" / name).symlink_to(outside / "key.pem")
    lines = Lines(run / "ray")
    lines.begin()
    lines.say("step 1")
    lines.keep_error(RunError("no"))
    assert str(lines.error()) == "no"
    assert (run / "ray" / "log.txt").read_text() == "step 1\n"
    shutil.rmtree(run / "ray")
    (run / "ray").symlink_to(outside / "folder")
    with pytest.raises(Unsafe, match="is a link"):
        lines.begin()
    assert state(outside) == before
