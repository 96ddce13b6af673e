"""What gets installed: one OpenCV, the headless one; pins as bare lines; the command."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_exactly_one_opencv_is_installed() -> None:
    installed = {d.metadata["Name"].lower() for d in distributions() if "opencv" in (d.metadata["Name"] or "").lower()}
    assert installed == {"opencv-python-headless"}
    assert set(packages_distributions()["cv2"]) == {"opencv-python-headless"}


def test_opencv_works_though_scenedetect_and_rapidocr_name_others() -> None:
    code = "import cv2, scenedetect, rapidocr; print(cv2.__version__, len(cv2.getBuildInformation()) > 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_constraints_are_bare_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!]+", line) for line in lines)


def test_the_core_has_no_torch() -> None:
    import tomllib

    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [line for line in core if re.match(r"torch|transformers|diffusers|open_clip", line)]


OF_EXTRAS = ("accelerate", "diffusers", "open_clip", "peft", "safetensors", "torch", "torchvision", "transformers")
OBSERVE = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails, as where it is not installed
from dailies.curation import world
from dailies.curation.observe import observe
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.recipes.steps import ObserveStep
(step,) = [step for step in load_recipe("default").steps if isinstance(step, ObserveStep)]
path = world.encode(world.write_script((500,), transitions=["cut"]), {path!r})
seen = observe(str(path), step.observers, None)
strengths = {{track.name: float(track.values.max()) for track in seen.tracks}}
assert strengths["boundary_cut"] > 0.5, strengths
"""


def test_the_default_recipe_observes_without_any_extra(tmp_path: Path) -> None:
    code = OBSERVE.format(blocked=OF_EXTRAS, path=str(tmp_path / "a.mp4"))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "dailies"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"dailies \d+\.\d+\.\d+\n", done.stdout)
