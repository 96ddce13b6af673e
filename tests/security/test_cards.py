"""A card keeps its structure whatever the names, rules and notes say that it is filled with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from markdown_it import MarkdownIt

from dailies.curation import cards
from dailies.curation.export import ExportManifest, render_card
from dailies.curation.export.manifest import SplitSize
from dailies.pipelines.latents.card import card as latents_card
from dailies.training.data.manifest import LatentsManifest
from dailies.training.recipes import Bucket
from dailies.zoo.card import CardFacts
from dailies.zoo.card import card as model_card
from dailies.zoo.entry import SamplingDefaults, Sources, ZooEntry
from dailies.zoo.provenance import ClipOrigin, SourceExport
from dailies.zoo.run_record import PhaseRecord, RunRecord

PLAIN = "a name"
ATTACKS = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "entity": "&lt;b&gt; &#60;script&#62;",
    "link": "[click](javascript:alert(1)) ![x](http://tracker/x.png) <http://tracker>",
    "table": "a | b | c\n|---|---|\n| d | e |",
    "heading": "x\n# A heading\n===\n---\n",
    "underline": "===",
    "rule": "---",
    "list": "- an item",
    "numbers": "1. an item",
    "quote": "> quoted",
    "fence": "```\nx\n```\n~~~\n",
    "tildes": "~~~ gone",
    "ticks": "a ` b `` c ``` d",
    "code": "    indented",
    "emphasis": "**bold** _x_ a__b__c ___x___ ~~gone~~ $x$",
    "controls": "\x1b]52;c;eA==\x07\u202e\r\x00\u2028x",
    "shell": "x; rm -rf ~ #`id`$(id)",
    "python": '", __import__("os").system("id"), "',
    "front matter": "---\nlicense: mit\n---",
}


def _export(text: str) -> str:
    manifest = ExportManifest(
        name=text,
        splits={text: SplitSize(clips=1, seconds=1.0, bytes=1)},
        sources=1,
        recipe=text,
        recipe_hash=text,
        selection=text,
        rules={text: {"min": text}},
        limits={text: {"min": 1.0}},
        tables={text: 1},
        extraction={"mode": "encode", "crf": text},
        seed=0,
        version=text,
        notes=(text,),
    )
    field = pa.field("column", pa.string(), metadata={"doc": text, "unit": text})
    return render_card(manifest, pa.schema([field, field.with_name(text)]))


def _latents(text: str) -> str:
    manifest = LatentsManifest(
        source=text,
        source_path=text,
        recipe=text,
        recipe_hash=text,
        phase=text,
        task="text-to-video",
        fps=7,
        buckets=(Bucket(size=(64, 64), frames=4),),
        crop="center",
        select=(),
        reader="pyav",
        views=1,
        seed=0,
        shown=(),
        vae=text,
        scaling_factor=1.0,
        factor=8,
        captions=(text,),
        text_encoder=text,
        text_tokens=7,
        text_width=7,
        version=text,
    )
    index = pa.table(
        {
            "status": ["ok", "failed"],
            "split": ["train", "train"],
            "bytes": [1, 0],
            "failure": [None, {"kind": text, "message": text}],
        }
    )
    return latents_card(text, index, manifest, 0)


def _model(text: str) -> str:
    phase = PhaseRecord(
        name=text, task="image-to-video", size=(64, 64), frames=4, fps=7, steps=1, seconds=1.0, done=True,
        samples=None, checkpoint=text, clips=1, first_clip_ids=(text,), validation=(), trained_fps=(7.0,),
    )  # fmt: skip
    run = RunRecord(
        folder=Path("run"), recipe={"name": text}, recipe_hash=text, data=text, phases=(phase,),
        models={}, export=SourceExport(
            name=text, clips=1, sources=1, recipe=text, recipe_hash=text, version=text, selection=text,
            rules={text: {"min": text}}, limits={text: text}, notes=(text,),
        ),
    )  # fmt: skip
    entry = ZooEntry(
        name="model", task="image-to-video", pipeline="StableVideoDiffusionPipeline", size=(64, 64), frames=4, fps=7,
        licence=text, parameters=1, bytes=1, about=text, published=text, version=text,
        sampling=SamplingDefaults(), sources=Sources(recipe=text, weights="ema"),
    )  # fmt: skip
    return model_card(
        CardFacts(
            entry=entry, run=run, phase=phase, export=run.export, clips={text: ClipOrigin(clip_id=text, uri=text)},
            pictures={text: f"samples-{text}.png"}, parts={text: (1, 1)},
        )
    )  # fmt: skip


CARDS: dict[str, Callable[[str], str]] = {"export": _export, "latents": _latents, "model": _model}


def _structure(card: str) -> list[str]:
    """Return what a reader of Markdown makes of a card but for its text: kinds of its parts, in order."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.S)
    kinds = []
    for token in parser.parse(body):
        kinds.append(token.type if token.type != "heading_open" else token.type + token.tag)
        kinds += [child.type for child in token.children or () if child.type not in ("text", "text_special")]
    return kinds


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("made", CARDS.values(), ids=CARDS.keys())
def test_a_card_keeps_its_structure(made: Callable[[str], str], attack: str) -> None:
    from huggingface_hub import RepoCard

    plain, card = made(PLAIN), made(attack)
    assert _structure(card) == _structure(plain)
    assert not set("\x00\x07\x1b\r\u2028\u202e") & set(card)
    assert set(RepoCard(card).data.to_dict()) == set(RepoCard(plain).data.to_dict())


@pytest.mark.parametrize("made", CARDS.values(), ids=CARDS.keys())
def test_commands_and_code_of_a_card_hold_values_as_values(made: Callable[[str], str]) -> None:
    card = made('x"; $(id) `id`')
    for block in re.findall(r"^```(?:python|sh)\n(.*?)^```$", card, flags=re.S | re.M):
        assert "$(id)" not in block.replace('"x\\"; $(id) \\u0060id\\u0060"', "")


def test_values_that_are_not_escaped_are_named() -> None:
    assert cards.inline("a_b <b> _c_ __d") == "a_b \\<b\\> \\_c\\_ \\_\\_d"
    assert cards.inline(cards.code("a_b")) == "`a_b`"
    assert cards.cell("a|b") == cards.cell(cards.inline("a|b")) == "a\\|b"
    assert cards.cell(cards.code("a|b")) == "`a\\|b`"
    assert cards.shell("x; rm -rf ~") == "'x; rm -rf ~'"
    assert cards.literal('a"b`') == '"a\\"b\\u0060"'
    assert cards.link("a b)c.png") == "a%20b%29c.png"
