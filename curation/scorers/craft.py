"""CRAFT finds text by its characters (arXiv 1904.01941): where they are, and which of them belong to one word.

The network is VGG-16 with batch normalisation up to its fifth stage, a sixth of dilated and 1 x 1 convolutions, and a way back
up that joins four of the stages. It gives two maps at half size: ``region``, 1 in the middle of a character and 0 between
characters, and ``link``, 1 in the middle between two characters of a word. A word is a connected component of what is high in
either map (section 3.3 of the paper).

Weights are by path: the state dict that is published as ``craft_mlt_25k.pth``, with its names of tensors. They are trained on
pictures of text of many scripts; dailies ships none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import UsageError
from dailies.curation.scorers.dbnet import Box
from dailies.curation.scorers.state_dict import SUFFIXES, read_state

TEXT = 0.7  # least highest region score in a word: a component without such a character is none
LOW_TEXT = 0.4  # least region score of a pixel of a word
LINK = 0.4  # least link score of a pixel that joins characters
SMALLEST = 10  # px of the map in a word
SQUARE = 0.1  # a box whose sides differ by no more than this share is upright: its tilt is chance
MULTIPLE = 32  # px of both sides of what the network takes
HALF = 2  # px of the picture to one of the maps
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in RGB, from 0 to 1


class Convolution(NamedTuple):
    """A convolution that keeps the size: tensors ``name.weight`` (out, in, kernel, kernel) and ``name.bias`` (out).

    ``norm``: the name of the batch normalisation behind it, empty where there is none; ``active``: whether a ReLU follows.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    dilation: int = 1
    norm: str = ""
    active: bool = True

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the name and shape of each of its tensors, and of its normalisation's."""
        yield f"{self.name}.weight", (self.outputs, self.inputs, self.kernel, self.kernel)
        yield f"{self.name}.bias", (self.outputs,)
        if self.norm:
            yield from ((f"{self.norm}.{part}", (self.outputs,)) for part in NORM)


NORM = ("weight", "bias", "running_mean", "running_var")
EPSILON = 1e-5  # added to the normalisation's variance
POOL = None  # the larger of each two by two pixels


def _normed(block: str, at: int, inputs: int, outputs: int, kernel: int = 3, *, active: bool = True) -> Convolution:
    return Convolution(f"{block}.{at}", inputs, outputs, kernel, norm=f"{block}.{at + 1}", active=active)


# Tensors are numbered as in VGG-16 as a whole, and parted before a ReLU. The paper's figure has the last stage end in a ReLU,
# but the network that was published, and its weights trained, does not.
STAGES: tuple[tuple[Convolution | None, ...], ...] = (
    (
        *(_normed("basenet.slice1", 0, 3, 64), _normed("basenet.slice1", 3, 64, 64)),
        *(POOL, _normed("basenet.slice1", 7, 64, 128), _normed("basenet.slice1", 10, 128, 128)),
    ),
    (POOL, _normed("basenet.slice2", 14, 128, 256), _normed("basenet.slice2", 17, 256, 256)),
    (
        *(_normed("basenet.slice3", 20, 256, 256), POOL),
        *(_normed("basenet.slice3", 24, 256, 512), _normed("basenet.slice3", 27, 512, 512)),
    ),
    (
        *(_normed("basenet.slice4", 30, 512, 512), POOL),
        *(_normed("basenet.slice4", 34, 512, 512), _normed("basenet.slice4", 37, 512, 512, active=False)),
    ),
)
SIXTH = (
    Convolution("basenet.slice5.1", 512, 1024, dilation=6, active=False),
    Convolution("basenet.slice5.2", 1024, 1024, kernel=1, active=False),
)
UPWARDS = tuple(
    (_normed(f"upconv{number}.conv", 0, inputs, middle, kernel=1), _normed(f"upconv{number}.conv", 3, middle, outputs))
    for number, (inputs, middle, outputs) in enumerate(
        ((1024 + 512, 512, 256), (256 + 512, 256, 128), (128 + 256, 128, 64), (64 + 128, 64, 32)), start=1
    )
)
HEAD = (
    Convolution("conv_cls.0", 32, 32),
    Convolution("conv_cls.2", 32, 32),
    Convolution("conv_cls.4", 32, 16),
    Convolution("conv_cls.6", 16, 16, kernel=1),
    Convolution("conv_cls.8", 16, 2, kernel=1, active=False),
)
CONVOLUTIONS = (
    *(step for stage in STAGES for step in stage if step is not POOL),
    *SIXTH,
    *(convolution for pair in UPWARDS for convolution in pair),
    *HEAD,
)

SHAPES: Mapping[str, tuple[int, ...]] = {name: shape for each in CONVOLUTIONS for name, shape in each.shapes()}
"""Each tensor of the network."""


# ---- weights --------------------------------------------------------------------------------------------------------


def is_weights(path: str) -> str:
    """Return a path that may be of weights. Raises ``ValueError`` for another."""
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"no file of weights; give a file with CRAFT's ({', '.join(SUFFIXES)})")
    return path


def check_file(path: str) -> None:
    """Raise ``UsageError`` where there is no such file."""
    if not Path(path).is_file():
        raise UsageError(f"craft={path!r}: no such file; give a file with CRAFT's weights, such as craft_mlt_25k.pth")


@lru_cache(maxsize=4)
def check_tensors(path: str, modified: int) -> None:
    """Raise ``UsageError`` for a file, as it was at ``modified``, that holds another network or none."""
    state_of(path)


def state_of(path: str) -> dict[str, Any]:
    """Return the network's tensors by ``SHAPES``' names. Raises ``UsageError`` for a file that lacks one or has others.

    Published names begin with ``module.``, as of a network that was trained on several GPUs; those that do not will do too.
    How many batches a normalisation has seen is left out.
    """
    read = {name.removeprefix("module."): tensor for name, tensor in read_state(path, "craft").items()}
    state = {name: tensor for name, tensor in read.items() if not name.endswith(".num_batches_tracked")}
    for wrong, names in (("lacks", SHAPES.keys() - state.keys()), ("has the unknown", state.keys() - SHAPES.keys())):
        if names:
            raise UsageError(f"craft={path!r}: not CRAFT's weights: {wrong} {_listed(sorted(names))}")
    for name, shape in SHAPES.items():
        if tuple(state[name].shape) != shape:
            raise UsageError(f"craft={path!r}: not CRAFT's weights: {name} is {tuple(state[name].shape)}, not {shape}")
    return state


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


# ---- the network ----------------------------------------------------------------------------------------------------


class Craft:
    """The network with the weights of a file; a ``TextDetector``."""

    def __init__(self, path: str, *, gpu: bool = False) -> None:
        self._device = "cuda" if gpu else "cpu"
        state = state_of(path)
        self._tensors = {each.name: _folded(each, state, self._device) for each in CONVOLUTIONS}

    def maps(self, rgb: NDArray[np.uint8], zoom: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return region and link scores, each (h/2, w/2), of a picture (h, w, 3) RGB that is looked at scaled by ``zoom``.

        Below and to the right, black is added until both sides are multiples of ``MULTIPLE``; the maps leave it out.
        """
        import torch

        height, width = _scaled(rgb, zoom)
        scaled = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        down, across = (-side % MULTIPLE for side in (height, width))
        padded = cv2.copyMakeBorder(scaled, 0, down, 0, across, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        normed = (padded.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        with torch.inference_mode():
            pixels_1CHW = torch.from_numpy(normed).to(self._device).permute(2, 0, 1)[None]  # noqa: N806
            region, link = np.asarray(self._maps(pixels_1CHW)[0].cpu().numpy(), np.float32)
        rows, columns = -(-height // HALF), -(-width // HALF)
        return region[:rows, :columns], link[:rows, :columns]

    def boxes(self, rgb: NDArray[np.uint8], zoom: float, score: float = TEXT) -> list[Box]:
        """Return the words in a picture (h, w, 3), in its px; ``score``: the least highest region score in one."""
        region, link = self.maps(rgb, zoom)
        height, width = _scaled(rgb, zoom)
        scale = HALF * np.array([rgb.shape[1] / width, rgb.shape[0] / height], np.float32)
        edge = np.array([rgb.shape[1], rgb.shape[0]], np.float32)
        return [
            Box(np.clip(box.corners_42 * scale, 0, edge).astype(np.float32), box.score)
            for box in words_in(region, link, text=score)
        ]

    def _maps(self, pixels_NCHW: Any) -> Any:  # noqa: N803
        """Return region and link (N, 2, H/2, W/2) of normalised pictures (N, 3, H, W)."""
        import torch
        from torch.nn.functional import interpolate, max_pool2d

        x, stages = pixels_NCHW, []
        for stage in STAGES:
            for step in stage:
                x = max_pool2d(x, 2) if step is POOL else self._convolved(x, step)
            stages.append(x)
        x = max_pool2d(x, 3, stride=1, padding=1)
        for convolution in SIXTH:
            x = self._convolved(x, convolution)
        for pair, stage_x in zip(UPWARDS, reversed(stages), strict=True):
            x = interpolate(x, size=stage_x.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, stage_x], dim=1)
            for convolution in pair:
                x = self._convolved(x, convolution)
        for convolution in HEAD:
            x = self._convolved(x, convolution)
        return x

    def _convolved(self, x_NCHW: Any, convolution: Convolution) -> Any:  # noqa: N803
        from torch.nn.functional import conv2d, relu

        weight, bias = self._tensors[convolution.name]
        around = convolution.dilation * (convolution.kernel // 2)
        x_NCHW = conv2d(x_NCHW, weight, bias, padding=around, dilation=convolution.dilation)  # noqa: N806
        return relu(x_NCHW) if convolution.active else x_NCHW


def _scaled(rgb: NDArray[np.uint8], zoom: float) -> tuple[int, int]:
    """Return the height and width at which a picture is looked at, px."""
    return max(1, round(rgb.shape[0] * zoom)), max(1, round(rgb.shape[1] * zoom))


def _folded(convolution: Convolution, state: Mapping[str, Any], device: str) -> tuple[Any, Any]:
    """Return weight and bias of a convolution that does its normalisation too: both are linear."""
    weight, bias = (state[f"{convolution.name}.{part}"].double() for part in ("weight", "bias"))
    if convolution.norm:
        gain, offset, mean, variance = (state[f"{convolution.norm}.{part}"].double() for part in NORM)
        gain = gain / (variance + EPSILON).sqrt()
        weight, bias = weight * gain[:, None, None, None], (bias - mean) * gain + offset
    return weight.float().to(device), bias.float().to(device)


# ---- words ----------------------------------------------------------------------------------------------------------


def words_in(
    region_hw: NDArray[np.float32],
    link_hw: NDArray[np.float32],
    *,
    text: float = TEXT,
    low_text: float = LOW_TEXT,
    link: float = LINK,
) -> list[Box]:
    """Return the boxes of words that two maps show, in px of the maps; a pixel is one px wide.

    A box's score is the highest region score in it. As published, a box runs through the middles of its outermost pixels.
    """
    is_text = region_hw > low_text
    is_word = (is_text | (link_hw > link)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(is_word, connectivity=4)
    boxes = []
    for label in range(1, count):
        left, top, width, height, pixels = (int(each) for each in stats[label])
        if pixels < SMALLEST:
            continue
        window = np.s_[top : top + height, left : left + width]
        inside = labels[window] == label
        best = float(region_hw[window][inside].max())
        if best < max(text, low_text):
            continue
        core = (
            inside & is_text[window]
        )  # what only links reach says that characters belong together, not where they end
        by = grown_by(pixels, width, height)
        # The middle of a pixel; by an odd ``by`` a word grows half a px more down and to the right.
        middle = 0.5 - by % 2 / 2
        corners = _rectangle(np.pad(core, by), by) + np.array([left - by + middle, top - by + middle], np.float32)
        boxes.append(Box(corners.astype(np.float32), min(best, 1.0)))
    return boxes


def grown_by(pixels: int, width: int, height: int) -> int:
    """Return by how many px in all a word's pixels grow, which are ``pixels`` in an upright box: characters' scores are
    high in their middle alone."""
    return int(2 * np.sqrt(pixels * min(width, height) / (width * height)))


def _rectangle(core_hw: NDArray[np.bool_], by: int) -> NDArray[np.float32]:
    """Return the corners (4, 2) of the smallest rectangle about what has grown by a square, in order around it."""
    grown = cv2.dilate(core_hw.astype(np.uint8), np.ones((1 + by, 1 + by), np.uint8))
    points = cv2.findNonZero(grown)
    rectangle = cv2.minAreaRect(points)
    short, long = sorted(rectangle[1])
    if long <= (1 + SQUARE) * short:
        left, top, width, height = cv2.boundingRect(points)
        right, bottom = left + width - 1, top + height - 1
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    return np.asarray(cv2.boxPoints(rectangle), np.float32)
