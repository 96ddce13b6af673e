"""How often the built-in captioners tell colours, shapes, motions and relations rightly, on scenes they have never seen.

    python -m scripts.builtin.judge_captions [--clips 240] [--seed 9000000] [--model FOLDER] [--json]

Each scene is rendered, encoded as H.264, observed as any source is (two pictures a second of 180 px, JPEG), and captioned
from that evidence: by ``video-world`` from at most eight pictures of it, and beside it by ``coca-world``, which sees the
middle one alone and so can't tell a motion but "stands still" of the camera, by saying nothing. ``attributes.scores`` says
what each figure is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dailies.curation import world
from dailies.curation.captioners.coca import CocaCaptioner
from dailies.curation.observe import EvidenceGrid, observe
from dailies.curation.timing import Span
from dailies.curation.types import Evidence
from scripts.builtin.attributes import Attributes, said, scores, true
from scripts.builtin.frames import HELD_OUT

BUILTIN = Path(__file__).resolve().parents[2] / "src" / "dailies" / "zoo" / "builtin"
GRID = EvidenceGrid(fps=2, short_side=180, quality=90)
MOST_FRAMES = 8
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


def by_video(evidence: Sequence[Evidence], model: Path, batch: int = 16) -> list[str]:
    """Captions of the built-in video captioner, through transformers' own classes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(model, local_files_only=True)
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Describe this video."}]}]
    prompt = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    texts = []
    for start in range(0, len(evidence), batch):
        pictures, moments = zip(*(_spread(clip) for clip in evidence[start : start + batch]), strict=True)
        inputs = processor(
            text=[prompt] * len(pictures),
            videos=[torch.from_numpy(clip) for clip in pictures],
            video_metadata=[VideoMetadata(total_num_frames=len(at), fps=1000, frames_indices=at) for at in moments],
            do_sample_frames=False,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            written = network.generate(**inputs, do_sample=False, max_new_tokens=80)
        new = written[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    return texts


def _spread(clip: Evidence) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    """At most eight pictures (n, 3, h, w) spread evenly over the clip, and their times from its start in ms."""
    import cv2

    chosen = np.unique(np.linspace(0, len(clip.frames) - 1, MOST_FRAMES).round().astype(int))
    frames = [clip.frames[index] for index in chosen]
    pictures = [cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for frame in frames]
    times = [round(float((frame.pts - clip.span.start) * clip.span.time_base) * 1000) for frame in frames]
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)), times


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
