"""A scorer of one's own, handed to a recipe as an object. Each ``# %%`` is a notebook's cell.

    python examples/own_scorer.py [VIDEOS [DATASET]]

In a recipe's YAML the same scorer is ``- score: {scorer: examples/own_scorer.py:ColourfulnessScorer}``.
"""

# %% The scorer: columns with units, and a call that takes clips and returns a row for each.
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

import dailies
from dailies.curation.schema import field
from dailies.curation.types import Evidence, Resources
from dailies.curation.video import unjpeg


@dataclass(frozen=True, kw_only=True)
class ColourfulnessScorer:
    """Colourfulness after Hasler and Süsstrunk (2003), eq. 12, as the mean over every ``step``-th evidence frame."""

    step: int = 1

    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = (field("colourfulness", pa.float64(), "Hasler's M, mean", "0-255"),)
    needs: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def score(clips: Sequence[Evidence]) -> pa.Table:
            rows = [{"colourfulness": self.measure(clip)} for clip in clips]
            return pa.Table.from_pylist(rows, schema=pa.schema(self.columns))

        yield score

    def measure(self, clip: Evidence) -> float:
        values = []
        for frame in clip.frames[:: self.step]:
            red, green, blue = np.moveaxis(unjpeg(frame.jpeg).astype(np.float64), -1, 0)
            rg, yb = red - green, (red + green) / 2 - blue
            values.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
        return float(np.mean(values))


# %% A recipe of steps as objects, checked as a whole
if __name__ == "__main__":
    videos = Path(sys.argv[1] if len(sys.argv) > 1 else "example/videos")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "example/own-scorer")
    if not videos.exists():
        dailies.curation.world.render_world(videos, seed=1, videos=3, shots=(3, 4))
    recipe = dailies.CurationRecipe.of(
        "colourful",
        [
            dailies.ObserveStep(observers=("boundary", "motion")),
            dailies.CutStep(detector="boundary", min_seconds=1),
            dailies.ScoreStep(scorer=ColourfulnessScorer()),
            dailies.SelectStep(rules={"colourfulness": {"min_quantile": 0.5, "nulls": "drop"}}),
        ],
    )
    result = dailies.curate(videos, out, recipe=recipe, engine="local")

    # %% The better half by its own measure
    print(result.selections[0])
    clips = dailies.Dataset(out).clips("main").sort_by([("colourfulness", "descending")])
    print(clips.select(["clip_id", "colourfulness", "keep"]).to_pandas().to_string())
