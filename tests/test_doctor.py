"""What ``dailies doctor`` finds amiss: in made-up installations, control groups and caches whose state is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dailies.pipelines import doctor, machine
from dailies.pipelines.doctor import diagnose
from dailies.pipelines.installation import Installation
from dailies.pipelines.machine import Disk, Gpu
from tests.conftest import Dailies

CORE = "opencv-python-headless>=4.10"


def distribution(folder: Path, name: str, version: str, *requires: str, sizes: tuple[int, ...] = (1000, 24)) -> None:
    """A distribution as an installer leaves it: its metadata and its list of files, of these sizes."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}")
    files = [f"{name}/{number}.py,sha256=x,{size}" for number, size in enumerate(sizes)]
    (info / "RECORD").write_text("\n".join([*files, f"{name}/c.pyc,,", f"{info.name}/RECORD,,"]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installation that lacks nothing of the core, and has half of an extra."""
    site = tmp_path / "site"
    extras = ("torch>=2.5; extra == 'models'", "open_clip_torch>=3; extra == 'models'", "s3fs; extra == 's3'")
    distribution(site, "dailies", "1.2", CORE, "ray[data]>=2.5", "never; sys_platform == 'never'", *extras)
    distribution(site, "opencv-python-headless", "4.11", sizes=(5_000_000,))
    distribution(site, "ray", "2.6", "pandas; extra == 'data'", "tensorboardX; extra == 'train'", sizes=(7_000_000,))
    distribution(site, "pandas", "2.0", "NumPy_.x>=2")
    distribution(site, "numpy-x", "2.1")
    distribution(site, "torch", "2.6")
    return site


def test_an_installation_is_whole_and_says_what_an_extra_lacks(site: Path) -> None:
    found = Installation([str(site)])
    assert found.version == "1.2"
    assert found.lacking() == ()
    models, s3 = found.extras({"models": (), "s3": ()})
    assert (models.status, models.lacks, models.install) == (
        "partial",
        ("open_clip_torch>=3",),
        "pip install 'dailies[models]'",
    )
    assert (s3.status, s3.lacks) == ("absent", ("s3fs",))
    assert [(each.name, each.bytes) for each in found.packages[:2]] == [
        ("ray", 7_000_000),
        ("opencv-python-headless", 5_000_000),
    ]


def test_what_is_missing_is_found_at_any_depth_and_in_another_version(site: Path) -> None:
    """Also behind the extra of a requirement, which ``ray[data]`` is."""
    next(site.glob("numpy_x*/METADATA")).write_text("Metadata-Version: 2.1\nName: numpy-x\nVersion: 1.9\n")
    assert Installation([str(site)]).lacking() == ("NumPy_.x>=2 (there is 1.9)",)
    for file in site.glob("pandas*/*"):
        file.unlink()
    assert Installation([str(site)]).lacking() == ("pandas",)


def test_two_opencvs_are_a_problem_with_its_mend(site: Path) -> None:
    distribution(site, "opencv-python", "4.10")
    distribution(site, "opencv-stubs", "1.0")
    problems = diagnose(path=[str(site)]).problems
    assert [problem.mend for problem in problems] == [
        "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless"
    ]


def test_a_core_that_lacks_a_package_is_a_problem(site: Path) -> None:
    for file in site.glob("opencv_python_headless*/*"):
        file.unlink()
    (problem,) = diagnose(path=[str(site)]).problems
    assert problem.mend == "pip install 'opencv-python-headless>=4.10'"


def test_a_library_that_does_not_load_is_a_problem(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    (problem,) = diagnose(path=[str(site)]).problems
    assert problem.what.startswith("cv2 cannot be imported: ")


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"cpu.max": "50000 100000", "memory.max": "1073741824", "memory.current": "73741824"}, 0.5, 1 << 30),
        ({"cpu.max": "max 100000", "memory.max": "max"}, 4, 1 << 40),
        (
            {
                "cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "2147483648", "memory/memory.usage_in_bytes": "48",
            }, 2.5, 2 << 30,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": str(1 << 62),
            }, 4, 1 << 40,
        ),
        ({}, 4, 1 << 40),
    ],
    ids=["v2", "v2 without limits", "v1", "v1 without limits", "none"],
)  # fmt: skip
def test_a_containers_limits_are_what_there_is(
    files: dict[str, str], cores: float, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine has four cores and a TiB, half of it free."""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "_memory", lambda: (1 << 40, 1 << 39))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    here = machine.look(tmp_path)
    assert (here.cores, here.memory) == (cores, memory)
    assert here.memory_free == {1 << 30: 1_000_000_000, 2 << 30: (2 << 30) - 48, 1 << 40: 1 << 39}[memory]


def test_the_drivers_gpus_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA X, 80GB, 81559, 550.54'\necho 'Grace, [N/A], 560.1'\n")
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_gpus() == [
        Gpu(name="NVIDIA X, 80GB", memory=81559 << 20, driver="550.54"),
        Gpu(name="Grace", memory=0, driver="560.1"),
    ]
    tool.write_text("#!/bin/sh\necho 'could not talk to the driver'\nexit 9\n")
    assert machine.nvidia_gpus() == []


@pytest.mark.parametrize(("there", "amiss"), [(True, ""), (False, "cannot use NVIDIA X")])
def test_a_gpu_that_torch_cannot_use_is_a_problem(there: bool, amiss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = pytest.importorskip("dailies.training.devices", reason="needs torch")
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: [Gpu(name="NVIDIA X", memory=1 << 36, driver="550")])
    monkeypatch.setattr(devices, "gpus", lambda: [("NVIDIA X", 1 << 36)] if there else [])
    torch, gpus, problems = doctor._gpus(lambda line: None)
    assert torch is not None
    assert gpus == [Gpu(name="NVIDIA X", memory=1 << 36, driver="550")]
    assert bool(problems) is not there
    assert all(amiss in problem.what and "driver 550" in problem.mend for problem in problems)


def test_disks_and_limits_that_end_runs_are_problems(tmp_path: Path) -> None:
    assert machine.disk_of("here", tmp_path / "not" / "yet").total == machine.disk_of("here", tmp_path).total > 0
    full = (
        Disk(what="here", path="/x", free=10**6, total=10**12),
        Disk(what="cache", path="/y", free=10**10, total=10**12),
    )
    shared = Disk(what="shared memory", path=str(machine.SHARED), free=64 << 20, total=64 << 20)
    here = machine.Machine(cores=1, memory=None, memory_free=None, open_files=256)
    said = [problem.what for problem in doctor._machine_problems(here, (*full, shared))]
    assert said == ["here: 0.00 GB free at /x", "a process may open 256 files only"]
    (note,) = doctor._notes(Installation([str(tmp_path)]), here, (*full, shared), [], None)
    assert note.what.startswith("shared memory holds 67 MB")


def test_weights_are_found_in_every_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    model = tmp_path / "hf/hub/models--org--name"
    for file, size in (
        (model / "refs/main", 40),
        (model / "blobs/a", 3000),
        (tmp_path / "torch/hub/checkpoints/raft.pth", 70),
    ):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * size)
    (model / "snapshots").mkdir()
    (model / "snapshots/a").symlink_to(model / "blobs/a")
    found = {(each.kind, each.name): each.bytes for each in doctor.weights()}
    assert found["hub", "org/name"] == 3040  # what a snapshot links to counts once
    assert found["torch", "raft.pth"] == 70
    assert found["built-in", "vae-world"] > 10**6


def test_the_command_names_no_secret_and_tells_what_is_amiss(dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: False)
    monkeypatch.setattr(doctor, "_installation_problems", lambda found: iter(()))
    monkeypatch.setenv("RAY_ADDRESS", "ray://user:hunter22@head:10001")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = dailies("doctor")
    assert done.returncode == 0, done.stdout
    assert "the cluster at ray://head:10001" in done.stdout
    assert "HF_HUB_OFFLINE: nothing is downloaded" in done.stdout
    assert "all is well for the core" in done.stdout
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    text = dailies("doctor", "--json")
    assert text.returncode == 1
    report = json.loads(text.stdout)
    assert [problem["what"][:16] for problem in report["problems"]] == ["RAY_ADDRESS=auto"]
    assert report["encoders"]["h264"][0] == "libx264"
    assert "hunter22" not in done.stdout + text.stdout


@pytest.mark.slow
def test_ray_is_started_on_request_and_its_share_of_the_machine_is_told() -> None:
    command = [sys.executable, "-m", "dailies", "doctor", "--ray", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    ray = json.loads(done.stdout)["ray"]
    assert ray["started_in"] > 0.5
    assert ray["resources"]["CPU"] >= 1
