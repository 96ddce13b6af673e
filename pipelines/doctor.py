"""``dailies doctor``: looks over what is installed, what this machine has, and what of it is amiss; changes nothing."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from dailies.curation.addresses import public
from dailies.curation.errors import DailiesError
from dailies.curation.packages import EXTRAS, installed
from dailies.curation.user_cache import user_cache
from dailies.pipelines import clusters, machine
from dailies.pipelines.installation import NAME, Extra, Installation, Package
from dailies.pipelines.machine import Disk, Gpu, Machine
from dailies.zoo.default import default_zoo
from dailies.zoo.formats.references import BUILTIN

Say = Callable[[str], None]
CORE = ("numpy", "pyarrow", "duckdb", "deltalake", "av", "cv2", "onnxruntime")
"""Packages with libraries of their own, which may be installed and still not load."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
LARGEST = 10  # packages that are named
LEAST_DISK = 1 << 30  # bytes free, below which a run is likely to end for want of room
LEAST_SHARED = 1 << 30  # bytes of shared memory, below which Ray keeps what stages exchange on disk
LEAST_FILES = 1024  # open files: tables, shards and workers' pipes at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is amiss, and how to mend it."""

    what: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """torch's version, and of which CUDA or ROCm it was built with."""

    version: str
    built_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model on this machine's disks. ``kind``: built-in, zoo, hub, torch, open_clip."""

    kind: str
    name: str
    path: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RayState:
    """``address``: the cluster that the environment names. ``started_in``: seconds that starting took, if it was tried."""

    version: str | None
    address: str | None
    started_in: float | None = None
    resources: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """``problems`` keep the core from working as it should; ``notes`` are worth knowing. Sizes are in bytes."""

    dailies: str | None
    python: str
    system: str
    environment: str
    environment_bytes: int
    packages: int
    largest: tuple[Package, ...]
    extras: tuple[Extra, ...]
    opencv: tuple[str, ...]
    machine: Machine
    disks: tuple[Disk, ...]
    gpus: tuple[Gpu, ...]
    torch: Torch | None
    encoders: Mapping[str, tuple[str, ...]]
    decoders: tuple[str, ...]
    weights: tuple[Weights, ...]
    offline: tuple[str, ...]
    ray: RayState
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def diagnose(*, ray: bool = False, path: list[str] | None = None, say: Say = lambda line: None) -> DoctorReport:
    """Look over the installation and the machine. ``ray``: also start Ray, or join the cluster that is named.

    ``path``: where distributions are looked for, by default where the interpreter does. ``say``: called with what takes
    longer than a moment.
    """
    installation = Installation(path)
    problems = [*_installation_problems(installation), *_import_problems()]
    here = machine.look()
    disks = machine.disks(user_cache())
    torch, gpus, amiss = _gpus(say)
    state, ray_problems = _ray(ray, installation, say)
    notes = _notes(installation, here, disks, gpus, torch)
    problems += [*amiss, *_machine_problems(here, disks), *ray_problems]
    encoders, decoders = _codecs()
    return DoctorReport(
        dailies=installation.version,
        python=platform.python_version(),
        system=platform.platform(terse=True),
        environment=sys.prefix,
        environment_bytes=sum(package.bytes for package in installation.packages),
        packages=len(installation.packages),
        largest=installation.packages[:LARGEST],
        extras=installation.extras(EXTRAS),
        opencv=installation.opencvs,
        machine=here,
        disks=disks,
        gpus=tuple(gpus),
        torch=torch,
        encoders=encoders,
        decoders=decoders,
        weights=tuple(weights()),
        offline=tuple(name for name in OFFLINE if os.environ.get(name, "").lower() in ("1", "on", "yes", "true")),
        ray=state,
        problems=tuple(problems),
        notes=tuple(notes),
    )


# ---- what is amiss --------------------------------------------------------------------------------------------------


def _installation_problems(installation: Installation) -> Iterator[Problem]:
    if installation.version is None:
        yield Problem(what=f"{NAME} runs from a folder and is not installed", mend="pip install dailies")
    if lacks := installation.lacking():
        lines = " ".join(f"'{line.partition(' ')[0]}'" for line in lacks)
        yield Problem(what=f"packages that the core needs are missing or of another version: {', '.join(lacks)}",
                      mend=f"pip install {lines}")  # fmt: skip
    if len(copies := installation.opencvs) > 1:
        names = " ".join(copies)
        yield Problem(
            what=f"{len(copies)} packages of OpenCV write over each other's files: {', '.join(copies)}",
            mend=f"pip uninstall -y {names} && pip install opencv-python-headless",
        )


def _import_problems() -> Iterator[Problem]:
    for name in CORE:
        try:
            import_module(name)
        except ImportError as error:
            yield Problem(
                what=f"{name} cannot be imported: {' '.join(str(error).split())}",
                mend="install it again, or the system's library that it names",
            )


def _machine_problems(here: Machine, disks: tuple[Disk, ...]) -> Iterator[Problem]:
    for disk in disks:
        if disk.free < LEAST_DISK and disk.path != str(machine.SHARED):
            yield Problem(
                what=f"{disk.what}: {disk.free / 1e9:.2f} GB free at {disk.path}", mend="make room, or work elsewhere"
            )
    if 0 <= here.open_files < LEAST_FILES:
        yield Problem(what=f"a process may open {here.open_files} files only", mend="ulimit -n 4096")


def _notes(
    installation: Installation, here: Machine, disks: tuple[Disk, ...], gpus: list[Gpu], torch: Torch | None
) -> Iterator[Problem]:
    for disk in disks:
        if disk.path == str(machine.SHARED) and disk.total < LEAST_SHARED:
            yield Problem(
                what=f"shared memory holds {disk.total / 1e6:.0f} MB, and Ray keeps what does not fit on disk",
                mend="in Docker: --shm-size=4g",
            )
    if gpus and torch is None:
        yield Problem(
            what=f"there is a GPU ({gpus[0].name}), and no torch to use it", mend="pip install 'dailies[train]'"
        )
    for extra in installation.extras(EXTRAS):
        if extra.status == "partial":
            yield Problem(what=f"of the extra {extra.name}, {', '.join(extra.lacks)} is missing", mend=extra.install)


# ---- probes ---------------------------------------------------------------------------------------------------------


def _gpus(say: Say) -> tuple[Torch | None, list[Gpu], list[Problem]]:
    """Return torch, the GPUs that it or the driver tells of, and what keeps it from them."""
    driven = machine.nvidia_gpus()
    if not installed("torch"):
        return None, driven, []
    say("torch is asked for GPUs, which takes some seconds")
    try:
        from dailies.training import devices

        torch = Torch(version=devices.build()[0], built_for=devices.build()[1])
        used = devices.gpus()
    except (ImportError, OSError, RuntimeError) as error:
        return None, driven, [
            Problem(what=f"torch does not start: {' '.join(str(error).split())}", mend="pip install --force-reinstall torch")
        ]  # fmt: skip
    if driven and not used:
        what = f"torch {torch.version} (built for {torch.built_for or 'the CPU'}) cannot use {driven[0].name}"
        mend = f"install a torch that driver {driven[0].driver} can run: https://pytorch.org/get-started/locally"
        return torch, driven, [Problem(what=what, mend=mend)]
    drivers = {gpu.name: gpu.driver for gpu in driven}
    return torch, [Gpu(name=name, memory=memory, driver=drivers.get(name)) for name, memory in used], []


def _codecs() -> tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """Return encoders by codec and decoders; none where PyAV or OpenCV does not load, which is a problem of its own."""
    try:
        from dailies.curation import video

        return video.encoders(), video.decoders()
    except ImportError:
        return {}, ()


def _ray(start: bool, installation: Installation, say: Say) -> tuple[RayState, list[Problem]]:
    version = installation.version_of("ray")
    try:
        named = clusters.address()
        address = None if named is None else public(named)
        if not start or version is None:
            return RayState(version=version, address=address), []
        say("Ray is started, which takes some seconds")
        from dailies.pipelines import engine

        began = time.monotonic()
        with engine.session("ray") as session:
            session.start_ray()
            seconds = time.monotonic() - began
            resources = clusters.resources()
        return RayState(version=version, address=address, started_in=seconds, resources=resources), []
    except DailiesError as error:
        what, _, mend = str(error).partition("; ")
        return RayState(version=version, address=None), [
            Problem(what=what, mend=mend or "--engine local works without it")
        ]


def weights() -> Iterator[Weights]:
    """Yield the models that are on this machine: built in, in the zoo, and in the caches of the hub, torch and open_clip."""
    for kind, folder, pattern in (
        ("built-in", BUILTIN, "*/model.json"),
        ("zoo", Path(default_zoo()).expanduser(), "*/model.json"),
        ("hub", _hub(), "models--*/refs"),
        ("torch", _home("TORCH_HOME", "torch") / "hub" / "checkpoints", "*.pt*"),
        ("open_clip", Path("~/.cache/clip").expanduser(), "*.pt"),
    ):
        for path in sorted(folder.glob(pattern)):
            place = path if path.is_file() and path.suffix.startswith(".pt") else path.parent
            name = place.name.removeprefix("models--").replace("--", "/") if kind == "hub" else place.name
            yield Weights(kind=kind, name=name, path=str(place), bytes=_bytes(place))


def _hub() -> Path:
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named).expanduser() if named else _home("HF_HOME", "huggingface") / "hub"


def _home(variable: str, name: str) -> Path:
    """Return the folder that ``variable`` names, or that of this ``name`` in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(variable) or f"{caches}/{name}").expanduser()


def _bytes(place: Path) -> int:
    """Return the size of a file, or of all regular files below a folder."""
    if not place.is_dir():
        return place.stat().st_size
    files = (Path(folder) / name for folder, _, names in os.walk(place) for name in names)
    return sum(file.lstat().st_size for file in files if not file.is_symlink())
