"""How often the built-in captioners tell colours, shapes, motions and relations rightly, on scenes they have never seen.

    python -m scripts.builtin.judge_captions [--clips 240] [--seed 9000000] [--model FOLDER] [--json]

Each scene is rendered, encoded as H.264, observed as any source is (two pictures a second of 180 px, JPEG), and captioned
from that evidence: by ``video-world`` through the captioner ``video``, from at most eight pictures of it, and beside it by
``coca-world``, which sees the middle one alone. That can tell no motion; of the camera it says nothing, which counts as that
it stands still. ``attributes.scores`` says what each figure is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dailies.curation import world
from dailies.curation.captioners.coca import CocaCaptioner
from dailies.curation.captioners.video import VideoCaptioner
from dailies.curation.observe import EvidenceGrid, observe
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from scripts.builtin.attributes import Attributes, said, scores, true
from scripts.builtin.frames import HELD_OUT

BUILTIN = Path(__file__).resolve().parents[2] / "src" / "dailies" / "zoo" / "builtin"
GRID = EvidenceGrid(fps=2, short_side=180, quality=90)
Scene = tuple[Evidence, world.Script]


def held_out(clips: int, first: int = HELD_OUT) -> Iterator[Scene]:
    """Evidence of rendered scenes, and their scripts."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + clips):
            script = world.write_scene((number,))
            path = world.encode(script, Path(folder) / f"{number}.mp4")
            seen = observe(str(path), [], GRID)
            path.unlink()
            span = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
            columns = {"content_id": seen.content_id, "stream": seen.probe.stream}
            yield Evidence(clip_id=str(number), span=span, frames=tuple(seen.evidence), columns=columns), script


def by_video(evidence: Sequence[Evidence], model: Path) -> list[str]:
    """Captions of a video captioner that transformers loads."""
    with VideoCaptioner(model=str(model)).open() as caption:
        texts: list[str] = caption(list(evidence))["text"].to_pylist()
    return texts


def by_image(evidence: Sequence[Evidence], model: Path) -> list[str]:
    """Captions of the built-in image captioner."""
    with CocaCaptioner(model=str(model)).open() as caption:
        texts: list[str] = caption(list(evidence))["text"].to_pylist()
    return texts


def judge(captions: Sequence[str], scripts: Sequence[world.Script]) -> Mapping[str, float]:
    """``attributes.scores`` of captions against the truth of their scenes."""
    return scores([(said(text), truth_of(script)) for text, script in zip(captions, scripts, strict=True)])


def truth_of(script: world.Script) -> Attributes:
    return true(script.shots[0], script.fps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--seed", type=int, default=HELD_OUT, help="of the first scene; the others follow")
    parser.add_argument("--model", type=Path, default=BUILTIN / "video-world", help="folder of a video captioner")
    parser.add_argument("--image", type=Path, default=BUILTIN / "coca-world", help="folder of an image captioner")
    parser.add_argument("--show", action="store_true", help="also print each caption in which a motion is wrong")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    evidence, scripts = zip(*held_out(args.clips, args.seed), strict=True)
    told = by_video(evidence, args.model)
    results = {args.model.name: judge(told, scripts), args.image.name: judge(by_image(evidence, args.image), scripts)}
    if args.show:
        for text, script in zip(told, scripts, strict=True):
            one = judge([text], [script])
            if one["motion_clips"] < 1 or one["both"] < 1:
                print(
                    f"wrong: {text}\n  true: {world.tell(script.shots[0], 180, 'sentence', fps=script.fps)}",
                    file=sys.stderr,
                )
    if args.json:
        print(json.dumps(results))
        return
    names = list(results)
    print(f"{'':18}" + "".join(f"{name:>14}" for name in names))
    for figure in results[names[0]]:
        print(f"{figure:18}" + "".join(f"{results[name][figure]:>14}" for name in names))


if __name__ == "__main__":
    main()
