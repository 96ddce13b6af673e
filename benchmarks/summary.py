"""How often a language model's merge of two captions says what they say, on shots of the rendered world, and how long it takes.

    python benchmarks/summary.py [--clips 60] [--model smollm2] [--prompt merge-svd] [--seed 9000000] [--json]

What is merged is true: what a frame of the shot shows, and how the shot moves, in motion words ("motion") or as the world's
own caption of the whole ("video"). A merge is kept or falls back to ``fuse``, as the captioner ``summary`` decides. Of the kept
ones, and of ``fuse`` on the same shots, the share that has every colour, shape, texture and direction of both, whatever the
order; colours and shapes count in pairs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dailies.curation import world
from dailies.curation.captioners.captions import Caption
from dailies.curation.captioners.fuse import fuse
from dailies.curation.captioners.merge_check import attributes
from dailies.curation.captioners.motion import SOME, STILL
from dailies.curation.captioners.summary import SummaryCaptioner
from dailies.curation.chat import wording
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from scripts.builtin.frames import HELD_OUT, shot_caption

KINDS = ("motion", "video")
EXAMPLES = 4  # that are printed of each


def shots(count: int, first: int) -> Iterator[dict[str, str]]:
    """The true captions of ``count`` shots: of the frame in the middle, of how it moves, and of the whole."""
    for number in range(first, first + count):
        script = world.write_script((number,), shots=1)
        shot = script.shots[0]
        camera = [] if shot.camera.still else [f"the camera {shot.camera.motion}"]
        moving = [] if all(shape.still for shape in shot.shapes) else [SOME]
        yield {
            "frame": shot_caption(shot, shot.frames // 2, size=script.size, fps=script.fps),
            "motion": ", ".join([*camera, *moving]) or STILL,
            "video": shot.caption(min(script.size)),
        }


def whole(text: str, sources: Sequence[str]) -> bool:
    """Whether a text has every word of ``sources`` that says something, and each attribute with what it is said of."""
    stems, said = {*wording.tokens(text)}, attributes(text)
    return all(
        {*wording.content(wording.tokens(source))} <= stems
        and attributes(source).alone <= said.alone
        and attributes(source).bound <= said.bound
        for source in sources
    )


def measure(kind: str, truths: Sequence[dict[str, str]], spec: SummaryCaptioner, chat: Any) -> dict[str, Any]:
    """The shares of one kind of pairs."""
    clips = [
        Evidence(
            clip_id=str(number),
            span=Span(start=0, end=1, time_base=1),  # type: ignore[arg-type]
            frames=(),
            columns={"caption_frame": truth["frame"], f"caption_{kind}": truth[kind]},
        )
        for number, truth in enumerate(truths)
    ]
    began = time.perf_counter()
    captions: list[Caption] = spec.captions_of(clips, chat)
    seconds = time.perf_counter() - began
    pairs = [(truth["frame"], truth[kind]) for truth in truths]
    kept = [(caption, pair) for caption, pair in zip(captions, pairs, strict=True) if caption.model != "fuse"]
    fallen = [caption for caption in captions if "fell_back" in caption.flags]
    unflagged = [caption for caption, _ in kept if not caption.flags]

    def share(part: Sequence[object], of: Sequence[object]) -> float | None:
        return round(len(part) / len(of), 3) if of else None

    return {
        "kept": share(kept, captions),
        "fell_back": share(fallen, captions),
        "kept_without_flags": share(unflagged, captions),
        "kept_ones_say_all": share([1 for caption, pair in kept if whole(caption.text or "", pair)], kept),
        "fuse_says_all": share([1 for pair in pairs if whole(fuse(*pair), pair)], pairs),
        "words": round(sum(len((caption.text or "").split()) for caption, _ in kept) / max(1, len(kept)), 1),
        "fuse_words": round(sum(len(fuse(*pair).split()) for _, pair in kept) / max(1, len(kept)), 1),
        "why": dict(Counter(flag for caption in fallen for flag in caption.flags[1:]).most_common()),
        "seconds_per_merge": round(seconds / len(clips), 3),
        "examples": [{"of": pair, "text": caption.text, "flags": caption.flags} for caption, pair in kept[:EXAMPLES]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompt", default="merge-svd")
    parser.add_argument("--seed", type=int, default=HELD_OUT)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    truths = list(shots(args.clips, args.seed))
    specs = {
        kind: SummaryCaptioner(
            model=args.model, prompt=args.prompt, captions=("caption_frame", f"caption_{kind}"), max_tokens=96
        )
        for kind in KINDS
    }
    began = time.perf_counter()
    with specs[KINDS[0]].chat() as chat:
        loaded = time.perf_counter() - began
        report: dict[str, Any] = {"model": args.model, "prompt": args.prompt, "clips": args.clips}
        report["load_seconds"] = round(loaded, 1)
        report |= {kind: measure(kind, truths, spec, chat) for kind, spec in specs.items()}
    if args.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{args.model}, {args.prompt}, {args.clips} shots, loaded in {report['load_seconds']} s")
    for kind in KINDS:
        print(f"\nframe + {kind}")
        for name, value in report[kind].items():
            if name != "examples":
                print(f"  {name:20} {value}")
        for example in report[kind]["examples"]:
            print(f"  {example['of'][0]} | {example['of'][1]}\n    -> {example['text']} {list(example['flags'])}")


if __name__ == "__main__":
    main()
