"""How many copies are found among real clips and how many other clips are joined, and how long it takes among many.

    python benchmarks/duplicates.py ../shared/data/clips [--json]
    python benchmarks/duplicates.py --clips 200000 [--json]
    python benchmarks/duplicates.py --embeddings 1000000 [--channels 512] [--json]
    python benchmarks/duplicates.py --captions 200000 [--json]

The first makes copies of the folder's clips of one shot (crf 35, half size, a second less at the start, a logo, letterboxed,
remuxed; half a second less, which is off the grid of evidence) and mirrored ones, curates all, and prints per kind how many
clips are in one group with their original, and how many pairs in a group are wrong; and the distance of the farthest copy of
each kind from its original beside the smallest one between other clips. The others generate pictures, embeddings or captions,
with copies planted among them. Seconds, and the most memory taken, in GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

import av
import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dailies.curation.clips import split_of
from dailies.curation.duplicates import (
    SIGNATURE_COLUMNS,
    Embeddings,
    Search,
    Signatures,
    caption_groups,
    group_clips,
    read_signatures,
)
from dailies.curation.duplicates.alike import all_offsets, clip_distances
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.run import curate

Picture = NDArray[np.uint8]
RECIPE = {
    "name": "copies",
    "steps": [
        {"observe": {"observers": ["boundary"], "evidence": {"fps": 1, "short_side": 384, "quality": 80}}},
        {"cut": {"detector": "boundary", "min_seconds": 1, "max_seconds": 10}},
        {"dedup": {}},
    ],
}
PLANTED = 0.1  # copies among generated clips or embeddings, as a share of all
COSINE = 0.96  # of a planted embedding and its original


# ---- real clips -----------------------------------------------------------------------------------------------------


def logo(picture: Picture) -> Picture:
    stamped, side = picture.copy(), picture.shape[0] // 8
    at, left = picture.shape[0] // 40, picture.shape[1] - picture.shape[1] // 40 - 2 * side
    stamped[at : at + side, left : left + 2 * side] = 250
    cv2.putText(stamped, "LOGO", (left + 4, at + 3 * side // 4), cv2.FONT_HERSHEY_SIMPLEX, side / 40, (200, 0, 0), 2)
    return stamped


def letterboxed(picture: Picture) -> Picture:
    bar = picture.shape[0] // 8
    return np.asarray(cv2.copyMakeBorder(picture, bar, bar, 0, 0, cv2.BORDER_CONSTANT), np.uint8)


def halved(picture: Picture) -> Picture:
    return np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def write(path: Path, pictures: Sequence[Picture], rate: Any, crf: int) -> None:
    height, width = (side - side % 2 for side in pictures[0].shape[:2])
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def remux(path: Path, to: Path) -> None:
    with av.open(str(path)) as source, av.open(str(to), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)


def make_copies(path: Path, folder: Path) -> None:
    """Write a clip's original and copies as ``NAME__KIND``."""
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
        pictures: list[Picture] = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    ways: Mapping[str, tuple[Callable[[Picture], Picture], int]] = {
        "crf35": (lambda picture: picture, 35),
        "half": (halved, 20),
        "logo": (logo, 20),
        "letterbox": (letterboxed, 20),
        "mirrored": (lambda picture: picture[:, ::-1], 20),
    }
    for kind, (way, crf) in ways.items():
        write(folder / f"{path.stem}__{kind}.mp4", [way(picture) for picture in pictures], rate, crf)
    write(folder / f"{path.stem}__trimmed.mp4", pictures[round(float(rate)) :], rate, 20)
    write(folder / f"{path.stem}__off_grid.mp4", pictures[round(float(rate) / 2) :], rate, 20)
    remux(path, folder / f"{path.stem}__remux.mkv")
    (folder / f"{path.stem}__original.mp4").write_bytes(path.read_bytes())


def footage(clips: Path) -> dict[str, Any]:
    shots = json.loads((clips / "shots.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        videos, data = Path(temporary) / "videos", Path(temporary) / "data"
        videos.mkdir()
        for name in sorted(name for name, told in shots.items() if told["shots"] == "one"):
            make_copies(clips / name, videos)
        recipe = parse_recipe(RECIPE)
        curate([str(videos)], str(data), recipe, engine="local")
        return evaluate(DatasetTables.open(data), recipe)


def evaluate(dataset: DatasetTables, recipe: CurationRecipe) -> dict[str, Any]:
    step = recipe.dedup()
    assert step is not None
    columns = ["clip_id", "source_id", "uri"]
    clips = dataset.table(recipe.clips).read(columns, equals={"status": "ok"}).sort_by("clip_id").combine_chunks()
    names = [Path(uri).stem.split("__") for uri in clips["uri"].to_pylist()]
    group = dict(zip(*dataset.table(recipe.duplicates(step)).read(["clip_id", "duplicate_group"]).columns, strict=True))
    group = {clip.as_py(): value.as_py() for clip, value in group.items()}
    groups = [group[clip] for clip in clips["clip_id"].to_pylist()]
    originals: dict[str, set[str]] = {}
    for (name, kind), number in zip(names, groups, strict=True):
        if (
            kind == "original"
        ):  # of some nothing is left that is long enough to be a clip, and its copies are not asked for
            originals.setdefault(name, set()).update([number] if number else [])
    found: dict[str, list[bool]] = {}
    for (name, kind), number in zip(names, groups, strict=True):
        if kind not in ("original", "mirrored") and name in originals:
            found.setdefault(kind, []).append(number in originals[name])
    origin = np.unique([name for name, _ in names], return_inverse=True)[1]
    mirrored = np.array([kind == "mirrored" for _, kind in names])
    together = np.array([number or f"alone {place}" for place, number in enumerate(groups)])
    left, right = np.triu_indices(len(names), 1)
    joined = together[left] == together[right]
    apart, turned = origin[left] != origin[right], mirrored[left] != mirrored[right]
    batches = dataset.table(recipe.signatures).batches(SIGNATURE_COLUMNS, equals={"status": "ok"})
    signatures = read_signatures(batches, clips["clip_id"].combine_chunks())
    pairs, distances = clip_distances(signatures, *all_offsets(signatures, left, right), most=10.0)
    first, second = pairs[:, 0], pairs[:, 1]
    kinds = np.array([kind for _, kind in names])
    of_original = (kinds[first] == "original") | (kinds[second] == "original")
    true = (origin[first] == origin[second]) & (mirrored[first] == mirrored[second]) & of_original
    true &= clips["source_id"].to_numpy()[first] != clips["source_id"].to_numpy()[second]
    nearest = {kind: _nearest(kind, kinds, first, second, distances, true) for kind in sorted(found)}
    return {
        "clips": len(names),
        "found": {kind: [sum(values), len(values)] for kind, values in sorted(found.items())},
        "wrong_pairs": int((joined & apart).sum()),
        "mirrored_pairs": int((joined & ~apart & turned).sum()),
        "farthest_copy": nearest,
        "nearest_other": round(float(distances[origin[first] != origin[second]].min()), 3),
        "limit": step.perceptual.distance if step.perceptual else None,
    }


def _nearest(
    kind: str,
    kinds: NDArray[Any],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    distances: NDArray[np.float32],
    true: NDArray[np.bool_],
) -> float:
    """Return how far the farthest copy of a kind is from the nearest clip of its original."""
    nearest: dict[int, float] = {}
    for side, other in ((first, second), (second, first)):
        chosen = np.flatnonzero(true & (kinds[side] == kind) & (kinds[other] == "original"))
        for clip, distance in zip(side[chosen].tolist(), distances[chosen].tolist(), strict=True):
            nearest[clip] = min(distance, nearest.get(clip, np.inf))
    return round(max(nearest.values()), 3)


# ---- many -----------------------------------------------------------------------------------------------------------


def rows_of(count: int) -> pa.Table:
    numbers = [f"{number:08}" for number in range(count)]
    same = {"stream": [0] * count, "start": [0] * count, "end": [1] * count, "time_base_num": [1] * count}
    splits = [split_of(number, 0.05, 0.05) for number in numbers]
    ids = {"clip_id": numbers, "source_id": numbers, "content_id": numbers, "split": splits}
    return pa.table({**ids, **same, "time_base_den": [1] * count, "manifest": pa.array([None] * count, pa.string())})


def scenes(count: int, draw: np.random.Generator) -> Picture:
    """Return (count, 256) gray pictures with the spectrum of natural ones."""
    falls = 0.03 + np.hypot(np.fft.fftfreq(16)[:, None], np.fft.rfftfreq(16)[None])
    out = np.empty((count, 256), np.uint8)
    for at in range(0, count, 20_000):
        noise = np.fft.rfft2(draw.standard_normal((min(20_000, count - at), 16, 16)))
        pictures = np.fft.irfft2(noise / falls, (16, 16))
        pictures = 120 + 40 * pictures / pictures.std((1, 2), keepdims=True)
        out[at : at + 20_000] = np.clip(pictures, 0, 255).reshape(-1, 256)
    return out


def many_clips(count: int, frames: int = 5) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    copies = int(count * PLANTED)
    pictures = scenes(count * frames, draw).reshape(count, frames, 256)
    originals = draw.permutation(count - copies)[:copies]
    for at in range(0, copies, 10_000):
        pictures[count - copies + at : count][:10_000] = np.clip(
            pictures[originals[at : at + 10_000]] + draw.normal(0, 5, (1, frames, 256)), 0, 255
        )
    signatures = Signatures.of(
        [pictures.reshape(-1, 256)],
        [np.tile(np.arange(float(frames)), count)],
        [np.repeat(np.arange(count), frames)],
        np.arange(count),
        np.ones((count, 256), bool),
    )
    return measured(rows_of(count), originals, {"signatures": signatures}) | {"clips": count, "frames": frames}


def many_embeddings(count: int, channels: int, folder: Path) -> dict[str, Any]:
    """Topics with some spread, so that lists are uneven, and planted neighbours."""
    draw = np.random.default_rng(0)
    copies = int(count * PLANTED)
    topics = draw.standard_normal((2000, channels), np.float32)
    vectors = np.memmap(folder / "embeddings", np.float16, "w+", shape=(count, channels))
    for at in range(0, count - copies, 50_000):
        size = min(50_000, count - copies - at)
        spread = 0.8 * topics[draw.integers(0, len(topics), size)] + draw.standard_normal((size, channels), np.float32)
        vectors[at : at + size] = spread / np.linalg.norm(spread, axis=1, keepdims=True)
    originals = draw.permutation(count - copies)[:copies]
    for at in range(0, copies, 50_000):
        near = vectors[originals[at : at + 50_000]].astype(np.float32)
        noise = draw.standard_normal(near.shape, np.float32) * np.sqrt((1 / COSINE**2 - 1) / channels)
        near += noise
        vectors[count - copies + at : count - copies + at + len(near)] = near / np.linalg.norm(
            near, axis=1, keepdims=True
        )
    embeddings = Embeddings(clips=np.arange(count), vectors=vectors)
    searched = {"embeddings": embeddings, "similarity": 0.95}
    return measured(rows_of(count), originals, searched) | {"embeddings": count, "channels": channels}


def many_captions(count: int) -> dict[str, Any]:
    """Captions of 20 to 40 words, frequent ones more often, and planted ones with a word changed."""
    draw = np.random.default_rng(0)
    copies = int(count * PLANTED)
    originals = draw.permutation(count - copies)[:copies]
    captions = [list(np.minimum(draw.zipf(1.3, draw.integers(20, 41)), 20_000)) for _ in range(count - copies)]
    captions += [[*captions[at][:10], 0, *captions[at][11:]] for at in originals]
    texts = [" ".join(f"w{word}" for word in caption) for caption in captions]
    began = time.perf_counter()
    groups = caption_groups(texts, 0.8)
    seconds = time.perf_counter() - began
    right = groups[originals] == groups[count - copies :]
    size = np.bincount(groups, minlength=count)[groups]
    alone = np.ones(count, bool)
    alone[originals], alone[count - copies :] = False, False
    return {
        "planted": copies,
        "recall": round(float(right.mean()), 4),
        "others_in_groups": int((size[alone] > 1).sum()),
        "seconds": round(seconds, 1),
        "captions": count,
        "memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def measured(rows: pa.Table, originals: NDArray[np.int64], searched: Mapping[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    groups, _ = group_clips(rows, Search(rows, exact=False, **searched))
    seconds = time.perf_counter() - began
    group = groups["duplicate_group"].to_numpy()
    first = len(rows) - len(originals)
    right = group[originals] == group[first:]
    right &= groups["duplicate_group"].is_valid().to_numpy()[originals]
    size = groups["duplicate_size"].to_numpy()
    return {
        "planted": len(originals),
        "recall": round(float(right.mean()), 4),
        "others_in_groups": int((size > 1).sum() - 2 * right.sum()),
        "seconds": round(seconds, 1),
        "memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="clips, with their shots.json")
    parser.add_argument("--clips", type=int, help="how many to generate")
    parser.add_argument("--embeddings", type=int, help="how many to generate")
    parser.add_argument("--captions", type=int, help="how many to generate")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.captions:
        result = many_captions(arguments.captions)
    elif arguments.embeddings:
        with tempfile.TemporaryDirectory() as folder:
            result = many_embeddings(arguments.embeddings, arguments.channels, Path(folder))
    elif arguments.clips:
        result = many_clips(arguments.clips)
    elif arguments.folder:
        result = footage(arguments.folder)
    else:
        parser.error("give a folder of clips, --clips, --embeddings or --captions")
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<18} {value}")


if __name__ == "__main__":
    main()
