"""How often the built-in captioner names colour and shape rightly, on rendered clips that it has never seen; how fast it is.

    python benchmarks/captions.py [--clips 240] [--seed 9000000] [--no-speed] [--json]

Each clip is one shot, rendered, encoded as H.264, observed as any source is, and captioned from its middle evidence
frame. A clip counts as right in colour when the colours its caption names are those of the shapes that the frame shows, no
more and no fewer; in shape likewise; as both when each shape has its own colour. Order and size do not count. Clips
with one shape are reported on their own as well.

How fast: captions and tokens a second on one thread, and which share of the time is the bare loop of the model, on tensors that
are ready beforehand, in the same run; of the captioner that was asked for, and of a CoCa and a Qwen2.5-VL with random weights
that are large enough to take most of the time, as real ones do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dailies.curation import world
from dailies.curation.captioners.coca import CocaCaptioner
from dailies.curation.observe import EvidenceGrid, observe
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from dailies.curation.world.script import ShapeKind
from scripts.builtin.frames import HELD_OUT, seen_shapes

MODEL = Path(__file__).resolve().parents[1] / "zoo" / "builtin" / "coca-world"
GRID = EvidenceGrid(fps=2, short_side=180, quality=90)
Pairs = frozenset[tuple[str, str]]


def held_out(clips: int, folder: Path, first: int = HELD_OUT) -> Iterator[tuple[Evidence, world.Shot, Pairs]]:
    """Evidence of rendered clips, the shot it shows, and (colour, shape) of what its middle frame shows."""
    for number in range(first, first + clips):
        script = world.write_script((number,), shots=1)
        path = world.encode(script, folder / f"{number}.mp4")
        seen = observe(str(path), [], GRID)
        path.unlink()
        span = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
        columns = {"content_id": seen.content_id, "stream": seen.probe.stream}
        evidence = Evidence(clip_id=str(number), span=span, frames=tuple(seen.evidence), columns=columns)
        index = list(seen.pts).index(seen.evidence[len(seen.evidence) // 2].pts)
        shot = script.shots[0]
        shapes = seen_shapes(shot, index, size=script.size, fps=script.fps)
        yield evidence, shot, frozenset((shape.color, shape.kind) for shape in shapes)


def named(caption: str) -> Pairs:
    """(colour, shape) of each "red circle" before "over"; a shape whose colour is missing has an empty one."""
    words = caption.split(" over ")[0].replace(",", " ").split()
    kinds = get_args(ShapeKind)
    return frozenset(
        (words[at - 1] if at and words[at - 1] in world.COLORS else "", word)
        for at, word in enumerate(words)
        if word in kinds
    )


def shares(captions: Iterable[str], truths: Iterable[Pairs]) -> Mapping[str, float]:
    """Shares of clips that are right, over all and over those with one shape."""
    right: list[tuple[int, bool, bool, bool]] = []
    for caption, truth in zip(captions, truths, strict=True):
        found = named(caption)
        colors = sorted(color for color, _ in found) == sorted(color for color, _ in truth)
        shapes = sorted(kind for _, kind in found) == sorted(kind for _, kind in truth)
        right.append((len(truth), colors, shapes, found == truth))
    single = [row for row in right if row[0] == 1]

    def mean(rows: list[Any], column: int) -> float:
        return round(sum(row[column] for row in rows) / max(1, len(rows)), 4)

    return {
        "clips": len(right),
        "color": mean(right, 1),
        "shape": mean(right, 2),
        "both": mean(right, 3),
        "clips_of_one_shape": len(single),
        "color_of_one": mean(single, 1),
        "shape_of_one": mean(single, 2),
        "both_of_one": mean(single, 3),
    }


SPEED_CLIPS, LARGE_CLIPS = 96, 12


def speeds(clips: Sequence[Evidence], model: str, decode: str) -> Mapping[str, Mapping[str, Any]]:
    """How fast ``model`` is, and random models of 60 to 70 million weights: a CoCa, and a Qwen2.5-VL that looks at 8 frames."""
    from benchmarks.caption_speed import of_coca, of_video, save_coca
    from tests.tiny_chat_models import save_tiny

    few = clips[:LARGE_CLIPS]
    with tempfile.TemporaryDirectory() as folder:
        coca, qwen = (
            save_coca(Path(folder) / "coca"),
            save_tiny("qwen2.5-vl", Path(folder) / "qwen", width=640, layers=8, side=140),
        )
        return {
            "speed": of_coca(clips[:SPEED_CLIPS], model, decode, runs=3),
            "speed_of_large_coca": of_coca(few, str(coca), decode, batch=6, max_tokens=20),
            "speed_of_large_video": of_video(few, qwen, frames=8, max_tokens=24, batch_tokens=2048),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--seed", type=int, default=HELD_OUT, help="of the first clip; the others follow")
    parser.add_argument("--model", default=str(MODEL), help="folder or open_clip name")
    parser.add_argument("--decode", default="beam", choices=("beam", "greedy", "top_p"))
    parser.add_argument("--show", action="store_true", help="also print each clip that is wrong")
    parser.add_argument(
        "--speed", action=argparse.BooleanOptionalAction, default=True, help="measure how fast it is, too"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clips = list(held_out(args.clips, Path(folder), args.seed))
    began = time.monotonic()
    with CocaCaptioner(model=args.model, decode=args.decode).open() as caption:
        texts = caption([evidence for evidence, _, _ in clips])["text"].to_pylist()
    result: dict[str, Any] = {
        **shares(texts, (truth for _, _, truth in clips)),
        "seconds": round(time.monotonic() - began, 1),
    }
    if args.speed:
        result |= speeds([evidence for evidence, _, _ in clips], args.model, args.decode)
    if args.show:
        for text, (_, shot, truth) in zip(texts, clips, strict=True):
            if named(text) != truth:
                print(f"wrong: {text}\n  shot: {shot.caption(180)}", file=sys.stderr)
    if args.json:
        print(json.dumps({"model": Path(args.model).name, "decode": args.decode, **result}))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
