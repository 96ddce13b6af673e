"""Random footage at thumbnail size with known transitions: what the cut network is trained on.

A shot is a background (a still picture under a moving camera, a texture of the rendered world, or a piece of a free
video) with things moving in front of it, under changing light, with titles over it; all the things that fool cut detectors.
Shots meet by hard cuts, dissolves, fades through black or white, wipes of many forms and pushes, and the frames of both go on
moving in them. Everything is a function of continuous time, so footage can be sampled at any rate, evenly or not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.observers.likeness import HEIGHT, WIDTH
from curation.world import BACKGROUNDS, Background
from curation.world_render import plane
from curation.world_script import Texture

Pixels = NDArray[np.uint8]
Rng = np.random.Generator
W, H = 2 * WIDTH, 2 * HEIGHT  # px at which it is drawn
LONG = 320  # px of the longer side at which pictures are kept
GRADUAL = ("dissolve", "fade", "wipe", "push")
KINDS = {"cut": 0.54, "dissolve": 0.17, "fade": 0.1, "wipe": 0.15, "push": 0.04}

Draw = Callable[[float], Pixels]  # seconds since the shot began → (H, W, 3) uint8 BGR


# ---- material -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Material:
    """``pictures``: (h, w, 3) BGR stills; ``sprites``: (h, w, 4) BGRA cut-outs; ``videos``: (t, H, W, 3) at ``rates`` fps."""

    pictures: Sequence[Pixels]
    sprites: Sequence[Pixels] = ()
    videos: Sequence[Pixels] = ()
    rates: Sequence[float] = ()


def load(folder: Path | None, textures: int = 20) -> Material:
    """Every picture and video below ``folder``, and textures of the rendered world. A PNG with holes is a sprite."""
    pictures: list[Pixels] = []
    sprites: list[Pixels] = []
    videos: list[Pixels] = []
    rates: list[float] = []
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.suffix.lower() in (".mp4", ".avi", ".mkv", ".webm"):
            shots, fps = _video(path)
            videos += shots
            rates += [fps] * len(shots)
        elif path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 3 or min(image.shape[:2]) < 48 or image.dtype != np.uint8:
                continue
            scale = LONG / max(image.shape[:2])
            size = (max(48, round(image.shape[1] * scale)), max(48, round(image.shape[0] * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            if image.shape[2] == 4 and (image[..., 3] < 128).mean() > 0.1:
                sprites.append(cv2.resize(image, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA))
            else:
                pictures.append(np.ascontiguousarray(image[..., :3]))
    rng = np.random.default_rng(7)
    for _ in range(textures):
        ground = Background(
            texture=str(rng.choice(get_args(Texture))),  # type: ignore[arg-type]
            color=str(rng.choice(list(BACKGROUNDS))),
            seed=int(rng.integers(2**31)),
        )
        pictures.append(np.ascontiguousarray(plane(ground, (160, 90))[..., ::-1]))
    return Material(pictures=pictures, sprites=sprites, videos=videos, rates=rates)


def _video(path: Path) -> tuple[list[Pixels], float]:
    """The shots of a video, at least a second each, split where a frame has little in common with the one before."""
    from curation import video

    source = video.open_source(str(path))
    fps = float(source.decoder.rate or 25)
    size = (round(1.25 * W), round(1.25 * H))
    shots: list[list[Pixels]] = [[]]
    for picture in itertools.islice(video.stream(source), 1200):
        frame = cv2.resize(picture.rgb(2 * H), size, interpolation=cv2.INTER_AREA)[..., ::-1]
        if shots[-1] and cv2.norm(frame, shots[-1][-1], cv2.NORM_L1) / frame.size > 20:
            shots.append([])
        shots[-1].append(frame)
    return [np.stack(shot) for shot in shots if len(shot) >= fps], fps


# ---- shots ----------------------------------------------------------------------------------------------------------


def _log(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _picture(rng: Rng, material: Material) -> Pixels:
    """A still, in colours of its own."""
    image = material.pictures[int(rng.integers(len(material.pictures)))]
    return _tinted(rng, image)


def _tinted(rng: Rng, image: Pixels) -> Pixels:
    """Mirrored, darker or brighter, of more or less contrast, saturation and another hue."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.6:
        x = image[..., :3].astype(np.float32)
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * float(rng.choice([0, rng.uniform(0.2, 1.6)], p=[0.12, 0.88]))
        x = x * rng.uniform(0.85, 1.15, 3).astype(np.float32)
        x = 255 * np.clip(x / 255, 0, 1) ** np.float32(_log(rng, 0.5, 2.2))
        x = np.clip((x - 128) * _log(rng, 0.5, 1.3) + 128 + rng.uniform(-30, 30), 0, 255)
        image = np.concatenate([x.astype(np.uint8), image[..., 3:]], axis=2)
    return np.ascontiguousarray(image)


def _path(rng: Rng) -> Callable[[float], tuple[float, float, float, float]]:
    """A camera: seconds → offset x, y (of the frame's height), log zoom, turn (radians)."""
    kind = str(
        rng.choice(["still", "hand", "pan", "zoom", "shake", "whip", "fly"], p=[0.2, 0.17, 0.19, 0.13, 0.1, 0.11, 0.1])
    )
    vx = vy = vz = vr = 0.0
    angle, speed = rng.uniform(0, math.tau), _log(rng, 0.02, 2.5)
    if kind in ("pan", "fly"):
        vx, vy = speed * math.cos(angle), 0.4 * speed * math.sin(angle)
    if kind in ("zoom", "fly"):
        vz = float(rng.choice([-1, 1])) * _log(rng, 0.03, 1.5)
    if kind == "fly":
        vr = float(rng.normal(0, 0.2))
    sway = {"hand": _log(rng, 0.002, 0.02), "shake": _log(rng, 0.01, 0.06), "fly": 0.004}.get(kind, 0.0)
    hertz = rng.uniform(0.4, 2.5, (4, 3)) if kind != "shake" else rng.uniform(1.5, 9.0, (4, 3))
    phases = rng.uniform(0, math.tau, (4, 3))
    # Turns of the camera, one after the other, each within a fraction of a second or two.
    whips = [(rng.uniform(0, 8), *rng.normal(0, (1.5, 0.5, 0.4)), _log(rng, 0.15, 2)) for _ in range(3)]
    pace = _pace(rng)

    def at(t: float) -> tuple[float, float, float, float]:
        t = pace(t)
        s = np.sin(math.tau * hertz * t + phases).sum(axis=1) * sway
        x, y, z = vx * t + s[0], vy * t + s[1], vz * t + 0.5 * s[2]
        if kind == "whip":
            for start, across, down, near, seconds in whips:
                done = _smooth((t - start) / seconds)
                x, y, z = x + across * done, y + down * done, z + near * done
        return x, y, z, vr * t + 0.5 * s[3]

    return at


def _pace(rng: Rng) -> Callable[[float], float]:
    """Time that runs evenly, or in bursts and pauses."""
    if rng.random() < 0.5:
        return lambda t: t
    hertz, phase, depth = _log(rng, 0.15, 1.2), rng.uniform(0, math.tau), rng.uniform(0.3, 1.0)
    return lambda t: t + depth * math.sin(math.tau * hertz * t + phase) / (math.tau * hertz)


def _smooth(x: float) -> float:
    x = min(1.0, max(0.0, x))
    return x * x * (3 - 2 * x)


def _ground(rng: Rng, material: Material, image: Pixels | None = None) -> Draw:
    """A still picture under a moving camera; sometimes part of it sways, as leaves, water and people do."""
    if image is None and rng.random() < 0.06:
        image = np.full((60, 100, 3), rng.integers(0, 256, 3).astype(np.uint8))
        if rng.random() < 0.5:
            image[:] = int(rng.choice([0, 8, 16, 235, 255]))
    if image is None:
        image = _panorama(rng, material) if rng.random() < 0.4 else _picture(rng, material)
    h, w = image.shape[:2]
    front = _front(rng, material) if rng.random() < 0.22 else None
    scale = min(w / W, h / H) * rng.uniform(0.35, 0.95)  # picture pixels to one of the frame
    cx = rng.uniform(0.5 * W * scale, max(0.5 * W * scale, w - 0.5 * W * scale))
    cy = rng.uniform(0.5 * H * scale, max(0.5 * H * scale, h - 0.5 * H * scale))
    camera, wave = _path(rng), _wave(rng) if rng.random() < 0.4 else None

    def draw(t: float) -> Pixels:
        x, y, z, r = camera(t)
        k = scale * math.exp(-max(-1.5, min(1.5, z)))
        c, s = k * math.cos(r), k * math.sin(r)
        u, v = cx + x * H * scale, cy + y * H * scale
        matrix = np.array([[c, -s, u - c * W / 2 + s * H / 2], [s, c, v - s * W / 2 - c * H / 2]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = np.asarray(cv2.warpAffine(image, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REFLECT), np.uint8)
        if front is not None:
            front(frame, x * H, y * H, z)
        return frame if wave is None else wave(frame, t)

    return draw


def _panorama(rng: Rng, material: Material) -> Pixels:
    """Pictures side by side that run into each other: a camera that pans over them sees other things after a while."""
    height, seam = 180, int(rng.uniform(15, 80))
    parts = []
    for _ in range(int(rng.integers(2, 5))):
        part = _picture(rng, material)
        width = max(2 * seam + 40, round(part.shape[1] * height / part.shape[0]))
        parts.append(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32))
    ramp = np.linspace(0, 1, seam, dtype=np.float32)[None, :, None]
    out = parts[0]
    for part in parts[1:]:
        mixed = out[:, -seam:] * (1 - ramp) + part[:, :seam] * ramp
        out = np.concatenate([out[:, :-seam], mixed, part[:, seam:]], axis=1)
    out = out.astype(np.uint8)
    return np.ascontiguousarray(out.transpose(1, 0, 2)) if rng.random() < 0.15 else out


def _front(rng: Rng, material: Material) -> Callable[[Pixels, float, float, float], None]:
    """What stands nearer to the camera and so moves more: part of another picture, cut off along a rough line."""
    image = cv2.resize(_picture(rng, material), (3 * W, 2 * H), interpolation=cv2.INTER_AREA)
    rough = cv2.resize(
        rng.uniform(-1, 1, (1, int(rng.integers(3, 14)))).astype(np.float32), (3 * W, 1), interpolation=cv2.INTER_CUBIC
    )
    line = H * (1.0 + rng.uniform(-0.4, 0.4) + rng.uniform(0.05, 0.4) * rough)
    alpha = np.clip(np.arange(2 * H, dtype=np.float32)[:, None] - line, 0, 1)[..., None]
    near, turned = rng.uniform(1.3, 3), rng.random() < 0.3

    def draw(frame: Pixels, x: float, y: float, z: float) -> None:
        k = math.exp(-max(-1.0, min(1.0, z * near)))
        matrix = np.array([[k, 0, W + near * x + W / 2 * (1 - k)], [0, k, H / 2 + near * y + H / 2 * (1 - k)]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        color = cv2.warpAffine(image, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REFLECT)
        a = cv2.warpAffine(alpha, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REPLICATE)[..., None]
        if turned:  # a wall at the side
            a = cv2.resize(np.ascontiguousarray(a[..., 0].T), (W, H))[..., None]
        frame[...] = frame * (1 - a) + color * a

    return draw


def _wave(rng: Rng) -> Callable[[Pixels, float], Pixels]:
    """A smooth displacement that sways with time, in part of the frame."""
    field = cv2.resize(rng.standard_normal((5, 6, 4)).astype(np.float32), (W, H), interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize((rng.random((3, 4)) < 0.5).astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)
    field *= mask[..., None] * np.float32(_log(rng, 0.5, 8))
    hertz, phase = _log(rng, 0.2, 3), rng.uniform(0, math.tau)
    x, y = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))

    def apply(frame: Pixels, t: float) -> Pixels:
        one = np.float32(math.sin(math.tau * hertz * t + phase))
        two = np.float32(math.sin(math.tau * 0.6 * hertz * t + 2 * phase))
        moved = field[..., :2] * one + field[..., 2:] * two
        return np.asarray(
            cv2.remap(frame, x + moved[..., 0], y + moved[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
            np.uint8,
        )

    return apply


def _filmed(rng: Rng, material: Material) -> Draw:
    """A piece of a real video, cropped, played forwards or backwards at some speed, back and forth."""
    number = int(rng.integers(len(material.videos)))
    frames, fps = material.videos[number], material.rates[number] * _log(rng, 0.5, 1.6)
    start, sign = int(rng.integers(len(frames))), int(rng.choice([-1, 1]))
    h, w = frames.shape[1:3]
    top, left, mirror = int(rng.integers(h - H + 1)), int(rng.integers(w - W + 1)), rng.random() < 0.5
    gain, lift = rng.uniform(0.7, 1.2), rng.uniform(-20, 20)
    period = 2 * len(frames) - 2

    def draw(t: float) -> Pixels:
        at = (start + sign * int(t * fps)) % period
        frame = frames[min(at, period - at), top : top + H, left : left + W]
        frame = np.asarray(cv2.convertScaleAbs(frame, alpha=gain, beta=lift), np.uint8)
        return np.ascontiguousarray(frame[:, ::-1]) if mirror else frame

    return draw


def _thing(rng: Rng, material: Material, seconds: float) -> Callable[[Pixels, float], None]:
    """Something that moves in front of the background: a cut-out, or an ellipse out of another picture."""
    if material.sprites and rng.random() < 0.6:
        bgra = _tinted(rng, material.sprites[int(rng.integers(len(material.sprites)))])
    else:
        image = _picture(rng, material)
        side = min(image.shape[:2])
        bgra = np.dstack([image[:side, :side], np.zeros((side, side), np.uint8)])
        axes = (int(side * rng.uniform(0.25, 0.5)), int(side * rng.uniform(0.25, 0.5)))
        alpha = np.zeros((side, side), np.uint8)
        cv2.ellipse(alpha, (side // 2, side // 2), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        bgra[..., 3] = alpha
    size = (_log(rng, 0.15, 1.2) if rng.random() < 0.75 else _log(rng, 1.2, 3.5)) * H / max(bgra.shape[:2])
    bgra = cv2.resize(bgra, None, fx=size, fy=size, interpolation=cv2.INTER_AREA if size < 1 else cv2.INTER_LINEAR)
    color, alpha = bgra[..., :3].astype(np.float32), bgra[..., 3:].astype(np.float32) / 255
    x0, y0 = rng.uniform(-0.1, 1.1) * W, rng.uniform(0.2, 1.0) * H
    speed = float(rng.choice([0, _log(rng, 0.05, 2.5)], p=[0.35, 0.65])) * H
    angle = rng.normal(0, 0.4) + (math.pi if rng.random() < 0.5 else 0)
    wobble, hertz, phase = _log(rng, 0.005, 0.15) * H, _log(rng, 0.3, 3), rng.uniform(0, math.tau)
    appears = rng.uniform(0, seconds) if rng.random() < 0.12 else -math.inf
    meets = rng.uniform(0, seconds)  # when it is where it was put
    h, w = color.shape[:2]
    pace = _pace(rng)

    def draw(frame: Pixels, t: float) -> None:
        if t < appears:
            return
        t = pace(t)
        x = x0 + speed * math.cos(angle) * (t - meets) + wobble * math.sin(math.tau * hertz * t + phase) - w / 2
        y = y0 + speed * math.sin(angle) * (t - meets) + wobble * math.sin(math.tau * 0.7 * hertz * t) - h / 2
        left, top = round(x), round(y)
        a, b, c, d = max(0, left), max(0, top), min(W, left + w), min(H, top + h)
        if a >= c or b >= d:
            return
        region, piece = frame[b:d, a:c], (slice(b - top, d - top), slice(a - left, c - left))
        region[...] = region * (1 - alpha[piece]) + color[piece] * alpha[piece]

    return draw


def _screen(rng: Rng, material: Material) -> Callable[[Pixels, float], None]:
    """A screen in the scene whose picture changes now and then."""
    w, h = int(rng.uniform(0.15, 0.5) * W), int(rng.uniform(0.2, 0.5) * H)
    x, y = int(rng.integers(W - w)), int(rng.integers(H - h))
    shown = [cv2.resize(_picture(rng, material), (w, h), interpolation=cv2.INTER_AREA) for _ in range(4)]
    beat = rng.uniform(0.6, 3)

    def draw(frame: Pixels, t: float) -> None:
        frame[y : y + h, x : x + w] = shown[int(t / beat) % 4]

    return draw


def _sparkle(rng: Rng) -> Callable[[Pixels, float], None]:
    """Water, fire, confetti, a crowd: spots that are others in each frame, in part of the picture."""
    grid = int(rng.integers(6, 40))
    mask = cv2.resize((rng.random((3, 4)) < 0.5).astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)[..., None]
    power, tint, rate = _log(rng, 10, 90), rng.uniform(0.3, 1, 3).astype(np.float32), rng.uniform(6, 14)
    seed = int(rng.integers(2**31))

    def draw(frame: Pixels, t: float) -> None:
        spots = (
            np.random.default_rng([seed, abs(int(t * rate))])
            .standard_normal((grid * 9 // 16 + 1, grid))
            .astype(np.float32)
        )
        field = cv2.resize(spots, (W, H), interpolation=cv2.INTER_LINEAR)[..., None] * (mask * power) * tint
        frame[...] = np.clip(frame + field, 0, 255)

    return draw


def _light(rng: Rng, seconds: float) -> Callable[[Pixels, float], Pixels]:
    """Light that changes: a drift, a flicker, a lamp switched, flashes, a flare."""
    kind = str(
        rng.choice(
            ["none", "drift", "flicker", "switch", "flash", "flare", "strobe"],
            p=[0.52, 0.12, 0.07, 0.09, 0.1, 0.05, 0.05],
        )
    )
    at, low = rng.uniform(0.1, max(0.2, seconds)), _log(rng, 0.1, 0.7)
    drift, hertz = rng.uniform(-0.6, 0.6), rng.uniform(2, 10)
    lamps = rng.uniform(0.25, 1.2, (64, 3)).astype(np.float32) if rng.random() < 0.6 else rng.uniform(0.3, 1.2, (64, 1))
    beat = _log(rng, 0.08, 0.7)
    times = rng.uniform(0, seconds, int(rng.integers(1, 4)))
    long, white = float(rng.choice([0.04, 0.08, 0.12, 0.25])), rng.uniform(0.5, 1.0)
    ramp = float(rng.choice([0.001, 0.001, 0.3, 1.0]))
    y, x = np.mgrid[0:H, 0:W].astype(np.float32)
    u, v, spread = rng.uniform(0, W), rng.uniform(0, H), rng.uniform(15, 60)
    color = rng.uniform(0.6, 1, 3).astype(np.float32)
    up = rng.random() < 0.6

    def apply(frame: Pixels, t: float) -> Pixels:
        if kind == "none":
            return frame
        if kind == "flash":
            if not any(s <= t < s + long for s in times):
                return frame
            return np.asarray(cv2.addWeighted(frame, 1 - white, np.full_like(frame, 250), white, 0), np.uint8)
        if kind == "flare":
            strength = math.exp(-(((t - at) / 0.4) ** 2)) * 255
            centre = u + (t - at) * 80
            glow = np.exp(-((x - centre) ** 2 + (y - v) ** 2) / (2 * spread**2))[..., None] * color
            return np.asarray(np.clip(frame + strength * glow, 0, 255), np.uint8)
        if kind == "strobe":  # coloured light that jumps from one to the next, as at a concert
            return np.asarray(np.clip(frame * lamps[int(t / beat) % 64], 0, 255), np.uint8)
        gain = 1 + drift * t / seconds if kind == "drift" else 1 + 0.15 * math.sin(math.tau * hertz * t)
        if kind == "switch":
            on = _smooth((t - at) / ramp)
            gain = low + (1 - low) * (on if up else 1 - on)
        return np.asarray(cv2.convertScaleAbs(frame, alpha=gain), np.uint8)

    return apply


def shot(rng: Rng, material: Material, seconds: float, image: Pixels | None = None) -> Draw:
    """A shot of about so many seconds; ``image``: what its background is taken from."""
    filmed = image is None and len(material.videos) > 0 and rng.random() < 0.22
    ground = _filmed(rng, material) if filmed else _ground(rng, material, image)
    count = 0 if filmed else int(rng.choice([0, 1, 2, 3, 5], p=[0.25, 0.3, 0.22, 0.15, 0.08]))
    things = [_thing(rng, material, seconds) for _ in range(count)]
    if rng.random() < 0.06:
        things.append(_screen(rng, material))
    if rng.random() < 0.1:
        things.append(_sparkle(rng))
    light, titles, wave = _light(rng, seconds), _titles(rng, seconds), _wave(rng) if rng.random() < 0.12 else None
    shutter = float(rng.choice([0, 1 / 120, 1 / 50, 1 / 25], p=[0.5, 0.2, 0.2, 0.1]))  # s; what moves is blurred
    freeze = float(rng.choice([0.0, 1 / 12, 1 / 8], p=[0.93, 0.04, 0.03]))  # drawn animation shows each picture longer
    blur_at, blur = rng.uniform(0, seconds), rng.random() < 0.04  # a lens that seeks focus

    def scene(t: float) -> Pixels:
        frame = ground(t).copy()
        for thing in things:
            thing(frame, t)
        return frame

    def draw(t: float) -> Pixels:
        t = math.floor(t / freeze) * freeze if freeze else t
        frame = scene(t)
        if shutter:
            rest = [scene(t - shutter * part) for part in (1 / 3, 2 / 3)]
            frame = ((frame.astype(np.uint16) + rest[0] + rest[1]) // 3).astype(np.uint8)
        frame = light(frame if wave is None else wave(frame, t), t)
        if blur:
            sigma = 5 * math.exp(-(((t - blur_at) / 0.5) ** 2))
            frame = cv2.GaussianBlur(frame, (0, 0), sigma) if sigma > 0.3 else frame
        for title in titles:
            title(frame, t)
        return np.asarray(frame, np.uint8)

    return draw


def _titles(rng: Rng, seconds: float) -> list[Callable[[Pixels, float], None]]:
    """Lines of words, boxes with words, small pictures in a corner: there all the time, or coming and going."""
    return [_title(rng, seconds) for _ in range(int(rng.choice([0, 1, 2], p=[0.72, 0.2, 0.08])))]


def _title(rng: Rng, seconds: float) -> Callable[[Pixels, float], None]:
    w, h = int(rng.uniform(0.12, 0.85) * W), int(_log(rng, 0.06, 0.3) * H)
    x, y = int(rng.uniform(0, W - w)), int(rng.choice([rng.uniform(0, H - h), 0.97 * (H - h)]))
    ink = (250, 250, 250) if rng.random() < 0.7 else tuple(int(v) for v in rng.integers(0, 256, 3))
    box = tuple(int(v) for v in rng.integers(0, 256, 3)) if rng.random() < 0.45 else None
    start = rng.uniform(0, seconds) if rng.random() < 0.6 else -math.inf
    end = start + rng.uniform(0.5, 3) if rng.random() < 0.5 else math.inf
    slides = rng.random() < 0.4
    words = np.sort(rng.uniform(0, 1, int(rng.integers(2, 9))))

    def draw(frame: Pixels, t: float) -> None:
        if not start <= t < end:
            return
        shown = int(w * _smooth((t - start) / 0.35)) if slides and math.isfinite(start) else w
        if shown < 2:
            return
        if box is not None:
            cv2.rectangle(frame, (x, y), (x + shown, y + h), box, -1)
        for one, other in itertools.pairwise(words):
            a, b = x + int(one * w) + 1, x + int(other * w) - 2
            if a < b <= x + shown:
                cv2.rectangle(frame, (a, y + h // 4), (b, y + 3 * h // 4), ink, -1 if h < 10 else max(1, h // 5))

    return draw


# ---- transitions ----------------------------------------------------------------------------------------------------


def _blend(rng: Rng, kind: str) -> Callable[[Pixels, Pixels, float], Pixels]:
    """(old, new, share in (0, 1)) → a frame of the transition."""
    if kind == "dissolve":
        return lambda old, new, share: np.asarray(cv2.addWeighted(old, 1 - share, new, share, 0), np.uint8)
    if kind == "fade":
        tone = 255 if rng.random() < 0.15 else 0
        turn, black = rng.uniform(0.35, 0.65), rng.uniform(0, 0.3)

        def fade(old: Pixels, new: Pixels, share: float) -> Pixels:
            light = max(0.0, abs(share - turn) / (turn if share < turn else 1 - turn) * (1 + black) - black)
            frame = old if share < turn else new
            return np.asarray(cv2.convertScaleAbs(frame, alpha=light, beta=tone * (1 - light)), np.uint8)

        return fade
    if kind == "push":
        axis, sign = int(rng.integers(2)), int(rng.choice([-1, 1]))
        slides = rng.random() < 0.4  # the new one slides over the old one, which stays
        ease = rng.random() < 0.5

        def push(old: Pixels, new: Pixels, share: float) -> Pixels:
            length = old.shape[axis]
            edge = min(length - 1, max(1, round((_smooth(share) if ease else share) * length)))
            first, second = (old, new) if sign > 0 else (new, old)
            both = np.concatenate([first, second], axis=axis)
            start = edge if sign > 0 else length - edge
            out = both[start : start + length] if axis == 0 else both[:, start : start + length]
            if slides:
                out = out.copy()
                keep = slice(0, length - edge) if sign > 0 else slice(edge, length)
                index = (keep, slice(None)) if axis == 0 else (slice(None), keep)
                out[index] = old[index]
            return np.ascontiguousarray(out)

        return push
    order = _order(rng)
    soft = float(rng.choice([0.01, 0.03, 0.1, 0.3]))

    def wipe(old: Pixels, new: Pixels, share: float) -> Pixels:
        alpha = np.clip((share * (1 + soft) - order) / soft, 0, 1)[..., None]
        return np.asarray(old * (1 - alpha) + new * alpha + 0.5, np.uint8)

    return wipe


def _order(rng: Rng) -> NDArray[np.float32]:
    """When a wipe reaches each pixel, 0 to 1."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float32)
    x, y = (x + 0.5) / W, (y + 0.5) / H
    form = str(rng.choice(["line", "line", "line", "slanted", "iris", "clock", "blinds", "doors"]))
    if form == "line":
        order = x if rng.random() < 0.6 else y
    elif form == "slanted":
        order = x * rng.uniform(0.3, 1) + y * rng.uniform(0.3, 1)
    elif form == "iris":
        order = np.hypot((x - 0.5) * W / H, y - 0.5)
    elif form == "clock":
        order = np.arctan2(y - 0.5, x - 0.5)
    elif form == "blinds":
        order = (x if rng.random() < 0.5 else y) * int(rng.integers(3, 9)) % 1
    else:
        order = np.abs((x if rng.random() < 0.5 else y) - 0.5)
    order = (order - order.min()) / (order.max() - order.min())
    return np.asarray(order if rng.random() < 0.5 else 1 - order, np.float32)


# ---- sequences ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Footage:
    """``thumbs`` (N, 36, 64, 3) BGR at ``times`` (N,) s; ``events``: (first moment that is not all old, first that is all
    new, kind) in seconds, equal for a hard cut.
    """

    thumbs: Pixels
    times: NDArray[np.float64]
    events: list[tuple[float, float, str]]


def sequence(rng: Rng, material: Material, samples: int) -> Footage:
    """``samples`` frames on a grid of 12 a second, as a decoder that skips frames delivers them."""
    times = _times(rng, samples)
    cuts = _events(rng, float(times[-1]))
    draws: list[Draw] = []
    image: Pixels | None = None
    bounds = [0.0, *(end for _, end, _ in cuts)]
    for number in range(len(cuts) + 1):
        until = cuts[number][1] if number < len(cuts) else float(times[-1])
        # A cut within a scene: other framing of the same picture.
        if not (number and image is not None and rng.random() < 0.15):
            image = _picture(rng, material) if rng.random() < 0.7 else None
        draws.append(shot(rng, material, max(0.3, until - bounds[number]), image))
    blends = [_blend(rng, kind) if kind != "cut" else None for _, _, kind in cuts]
    overall, finish = _titles(rng, float(times[-1])) if rng.random() < 0.5 else [], _finish(rng)
    thumbs = np.empty((samples, HEIGHT, WIDTH, 3), np.uint8)
    for row, t in enumerate(times.tolist()):
        number = sum(t >= end for _, end, _ in cuts)
        frame = draws[number](t - bounds[number])
        if number < len(cuts) and t >= cuts[number][0]:
            start, end, _ = cuts[number]
            blend = blends[number]
            assert blend is not None
            frame = blend(frame, draws[number + 1](t - bounds[number + 1]), (t - start) / (end - start))
        for title in overall:
            title(frame, t)
        thumbs[row] = finish(frame, rng)
    return Footage(thumbs=thumbs, times=times, events=cuts)


def _times(rng: Rng, samples: int) -> NDArray[np.float64]:
    """Times of the frames seen: native ones, some skipped as B-frames are, thinned to 12 a second."""
    fps = float(rng.choice([15, 24, 25, 30, 50, 60]))
    keep = int(rng.choice([1, 2, 3, 4]))
    irregular = rng.random() < 0.3
    times: list[float] = []
    step, at, point = 1 / fps, 0.0, -1
    while len(times) < samples:
        now = math.floor(at * 12)
        if now > point:
            times.append(at)
            point = now
        at += step * (int(rng.integers(1, keep + 1)) if irregular else keep)
    return np.array(times)


def _events(rng: Rng, seconds: float) -> list[tuple[float, float, str]]:
    events: list[tuple[float, float, str]] = []
    at, pace = 0.0, _log(rng, 0.6, 9)
    while True:
        start = at + _log(rng, 0.3, 2.2) * pace
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        end = start + (0 if kind == "cut" else _log(rng, 0.16, 1.8))
        if end >= seconds - 0.1:
            return events
        events.append((start, end, kind))
        at = end


def _finish(rng: Rng) -> Callable[[Pixels, Rng], Pixels]:
    """What a camera and a codec add: grain, a haze, bars."""
    grain = float(rng.choice([0, _log(rng, 0.5, 6)], p=[0.4, 0.6]))
    pulse = float(rng.choice([0.0, 1.0], p=[0.7, 0.3]))
    bars, pillars = (int(rng.integers(2, 12)) if rng.random() < p else 0 for p in (0.12, 0.05))

    def finish(frame: Pixels, draw: Rng) -> Pixels:
        small = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        if grain or pulse:
            noise = np.asarray(draw.standard_normal(small.shape, np.float32)) * grain
            noise += float(draw.normal(0, 0.6)) * pulse
            small = np.clip(small + noise, 0, 255).astype(np.uint8)
        if bars:
            small[: bars // 2], small[HEIGHT - bars // 2 :] = 0, 0
        if pillars:
            small[:, :pillars], small[:, WIDTH - pillars :] = 0, 0
        return np.asarray(small, np.uint8)

    return finish
