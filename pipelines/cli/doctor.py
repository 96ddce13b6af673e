"""``dailies doctor``: the command, and how its report is printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from dailies.pipelines.cli.options import Json
from dailies.pipelines.cli.terminal import say, say_json, stdout

if TYPE_CHECKING:
    from dailies.pipelines.doctor import DoctorReport, Problem

NAMED = 5  # of the largest packages


def doctor(
    ray: Annotated[
        bool, typer.Option("--ray", help="Also start Ray, or join the cluster that RAY_ADDRESS names.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look over the installation and this machine. Exit code 1 if something is amiss, each thing with how to mend it."""
    from dailies.pipelines.doctor import diagnose

    report = diagnose(ray=ray, say=lambda line: say(f"dailies: {line}", err=True))
    if as_json:
        say_json(asdict(report))
    else:
        print_doctor(report)
    if report.problems:
        raise typer.Exit(1)


def print_doctor(report: DoctorReport) -> None:
    """Print a line for each thing, then what is worth knowing, and what is amiss."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    shown = ""
    for label, text in (*_installed(report), *_machine(report), *_models(report)):
        table.add_row("" if label == shown else label, text)
        shown = label
    for label, problems in (("note", report.notes), ("problem", report.problems)):
        for problem in problems:
            table.add_row(label, _problem(problem))
    out = stdout()
    out.print(table)
    out.print("\nall is well for the core" if not report.problems else f"\n{_count(len(report.problems))} to mend")


def _installed(report: DoctorReport) -> Iterator[tuple[str, str]]:
    yield "dailies", f"{report.dailies or 'not installed'}, Python {report.python}, {report.system}"
    yield "environment", f"{report.environment}: {report.packages} packages, {_size(report.environment_bytes)}"
    yield "largest", ", ".join(f"{each.name} {_size(each.bytes)}" for each in report.largest[:NAMED])
    for extra in report.extras:
        lacks = f" (lacks {', '.join(extra.lacks)})" if extra.status == "partial" else ""
        install = "" if extra.status == "complete" else f": {extra.install}"
        yield "extras", f"{extra.name} {extra.status}{lacks}{install}"
    yield "OpenCV", ", ".join(report.opencv) or "none"
    for codec, names in report.encoders.items():
        yield "encoders", f"{codec}: {', '.join(names) or 'none'}"
    yield "decoders", ", ".join(report.decoders) or "none"


def _machine(report: DoctorReport) -> Iterator[tuple[str, str]]:
    here = report.machine
    memory = "unknown" if here.memory is None else _size(here.memory)
    free = "" if here.memory_free is None else f", {_size(here.memory_free)} free"
    files = "any number of" if here.open_files < 0 else f"{here.open_files:,}"
    yield "machine", f"{here.cores:g} cores, {memory} memory{free}, {files} open files"
    for gpu in report.gpus:
        driver = f", driver {gpu.driver}" if gpu.driver else ""
        yield "GPU", f"{gpu.name}, {_size(gpu.memory)}{driver}"
    if not report.gpus:
        yield "GPU", "none: models run on the CPU"
    torch = report.torch
    yield "torch", "none" if torch is None else f"{torch.version}, built for {torch.built_for or 'the CPU'}"
    for disk in report.disks:
        yield "disk", f"{_size(disk.free)} of {_size(disk.total)} free: {disk.what}, {disk.path}"
    ray, started = report.ray, ""
    if ray.started_in is not None and ray.resources is not None:
        resources = ray.resources
        started = f"; starts in {ray.started_in:.1f} s with {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    where = f"the cluster at {ray.address}" if ray.address else "a cluster of its own on this machine"
    yield "Ray", "none" if ray.version is None else f"{ray.version}, {where}{started}"


def _models(report: DoctorReport) -> Iterator[tuple[str, str]]:
    for kind, group in groupby(report.weights, key=lambda each: each.kind):
        yield "weights", f"{kind}: {', '.join(f'{each.name} {_size(each.bytes)}' for each in group)}"
    if report.offline:
        yield "offline", f"{', '.join(report.offline)}: nothing is downloaded"


def _problem(problem: Problem) -> str:
    return f"{problem.what}; {problem.mend}"


def _count(problems: int) -> str:
    return f"{problems} problem{'' if problems == 1 else 's'}"


def _size(size: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"
