"""RAFT: the motion measures from a learnt flow (arXiv 2003.12039), over the evidence frames of a clip.

SVD scores the motion of its high-quality subset with RAFT at 800 x 450 (arXiv 2311.15127, App. C). Flow between each two
consecutive evidence frames is reduced as the observer ``motion`` does it, to the same units; with evidence at 1 fps, the
default, what happens within a second is a straight line. torchvision's model, small or large as the weights say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from dailies.curation import video
from dailies.curation.config import SPEC, GpuShare
from dailies.curation.errors import TooFewFrames, UsageError
from dailies.curation.observers import camera
from dailies.curation.observers.motion import TRACKS, MotionObserver, reduced
from dailies.curation.scorers.state_dict import SUFFIXES, fingerprint, read_state
from dailies.curation.types import Evidence, EvidenceFrame, Resources

SIZES = ("raft_small", "raft_large")


def _name(measure: str) -> str:
    """Return a measure of the observer ``motion`` as RAFT's: ``raft_motion``, ``raft_pan``."""
    return "raft_" + measure.removeprefix("motion_")


def _is_weights(path: str) -> str:
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"no file of weights; give a file with RAFT's ({', '.join(SUFFIXES)})")
    return path


@dataclass(frozen=True, kw_only=True, config=SPEC)
class RaftScorer:
    """The motion measures from RAFT's flow.

    Args:
        model: a file with the state dict of torchvision's ``raft_small`` or ``raft_large``, .pth, .pt or .safetensors.
        short_side: px, with the longer side the nearest multiple of 8 that keeps the shape: RAFT needs multiples, and
            16:9 becomes 800 x 448. Smaller evidence is scaled up to it.
        updates: of the flow, per pair.
        batch: pairs at once.
        gpus: what one worker gets, a share of one such as 0.25 or whole ones; with none it runs on the CPU.
    """

    model: Annotated[str, AfterValidator(_is_weights)]
    short_side: Annotated[int, Field(ge=128, multiple_of=8)] = 448  # smaller, its pyramid of correlations is empty
    updates: Annotated[int, Field(ge=1)] = 12
    batch: Annotated[int, Field(ge=1)] = field(default=4, metadata={"meaning": False})
    gpus: GpuShare = field(default=0, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.raft.Raft"
    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = tuple(
        measure.with_name(_name(measure.name)) for measure in MotionObserver.measures
    )
    needs: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ("safetensors", "torch", "torchvision")
    models: ClassVar[tuple[str, ...]] = ()  # ``model`` is a file, and no model of the zoo

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, gpus=self.gpus, memory_gb=4)

    def weights(self) -> str:
        """Return the file's sha256. Raises ``UsageError`` as ``check`` does."""
        self.check()
        return fingerprint(self.model)

    def check(self) -> None:
        """Raise ``UsageError`` where there is no file, or one of another network, where torch is there to tell."""
        if not Path(self.model).is_file():
            raise UsageError(f"model={self.model!r}: no such file; give a file with RAFT's weights")
        if find_spec("torchvision"):
            _size(self.model, Path(self.model).stat().st_mtime_ns)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        flow = _load(self.model, gpu=self.gpus > 0, updates=self.updates)

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = [self._clip(flow, clip) for clip in evidence]
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score

    def _clip(self, flow: Flow, clip: Evidence) -> dict[str, Any]:
        if len(clip.frames) < 2:
            raise TooFewFrames(f"RAFT needs two evidence frames of a clip, not {len(clip.frames)}")
        values: list[tuple[float, ...]] = []  # of ``TRACKS``, one for each pair
        pairs = pairwise((frame.pts, self._picture(frame)) for frame in clip.frames)
        while batch := list(islice(pairs, self.batch)):
            flows = flow([before for (_, before), _ in batch], [after for _, (_, after) in batch])
            for ((start, _), (end, _)), flow_hw2 in zip(batch, flows, strict=True):
                values.append(reduced(flow_hw2, float((end - start) * clip.span.time_base)))
        of_track = dict(zip(TRACKS, np.array(values).T, strict=True))
        row = {_name(track): float(values.mean()) for track, values in of_track.items()}
        return {**row, _name("motion_camera"): camera.label(*of_track.values())}

    def _picture(self, frame: EvidenceFrame) -> NDArray[np.uint8]:
        """Return (h, w, 3) RGB as RAFT takes it."""
        rgb = video.unjpeg(frame.jpeg)
        height, width = rgb.shape[:2]
        scale = self.short_side / min(height, width)
        size = tuple(max(self.short_side, 8 * round(side * scale / 8)) for side in (width, height))
        return np.asarray(
            cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8
        )


# ---- the model ------------------------------------------------------------------------------------------------------

# n RGB pictures (h, w, 3) and what follows each → n flow maps (h, w, 2) px
Flow = Callable[[Sequence[NDArray[np.uint8]], Sequence[NDArray[np.uint8]]], Sequence[NDArray[np.float32]]]


def _load(path: str, *, gpu: bool, updates: int) -> Flow:
    import torch

    device = "cuda" if gpu else "cpu"
    model = _network(_size(path, Path(path).stat().st_mtime_ns))
    model.load_state_dict(read_state(path, "model"))
    model.eval().to(device)

    def ready(pictures: Sequence[NDArray[np.uint8]]) -> Any:
        return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def flow(before: Sequence[NDArray[np.uint8]], after: Sequence[NDArray[np.uint8]]) -> Sequence[NDArray[np.float32]]:
        with torch.inference_mode():
            last = model(ready(before), ready(after), num_flow_updates=updates)[-1]
            return list(last.permute(0, 2, 3, 1).contiguous().cpu().numpy())

    return flow


def _network(size: str) -> Any:
    from torchvision.models import optical_flow  # type: ignore[import-untyped,unused-ignore]

    return getattr(optical_flow, size)(weights=None)


@lru_cache(maxsize=4)
def _size(path: str, modified: int) -> str:
    """Return which of ``SIZES`` a file holds, as it was at ``modified``. Raises ``UsageError`` for none."""
    import torch

    shapes = {name: tuple(tensor.shape) for name, tensor in read_state(path, "model").items()}
    for size in SIZES:
        with torch.device("meta"):
            wanted = _network(size).state_dict()
        if shapes == {name: tuple(tensor.shape) for name, tensor in wanted.items()}:
            return size
    raise UsageError(f"model={path}: not the state dict of torchvision's {' or '.join(SIZES)}")
