"""Shared fixtures: a small rendered world, and the command line as a user has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation import world

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Research footage beside the repository; tests that use it skip visibly where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no footage at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rendered videos of three to four shots with ``truth.json``. Read only."""
    folder = tmp_path_factory.mktemp("world")
    world.render_world(folder, seed=5, videos=5, shots=(3, 4), shot_frames=(30, 60))
    return folder


@pytest.fixture(scope="session")
def truth(small_world: Path) -> dict[str, Any]:
    return dict(json.loads((small_world / "truth.json").read_text()))


Dailies = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def dailies() -> Dailies:
    """Run ``dailies ARGS`` in a process of its own."""

    def run(*args: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.cli", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run
