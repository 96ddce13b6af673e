"""Short prompts → prompts like captions, by a chat model: what a video model was trained on is long, what people write is not.

What the model writes is looked at: an answer that repeats itself, refuses, or says the instructions again is asked for anew,
drawn by another seed, and where none will do, the prompt stays as it is and says why. A text that misses words of the prompt
has the prompt before it, so that what was asked for is always there; all else in it is the model's invention.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dailies.curation.caption_fields import CaptionFields, instruction, json_schema, parse_fields, serialize
from dailies.curation.caption_measures import refusals
from dailies.curation.chat import (
    Ask,
    EndpointChat,
    Prompt,
    Reply,
    TransformersChat,
    prompt_hash,
    prompt_text,
    smollm2,
    wording,
)
from dailies.curation.config import SPEC, format_error
from dailies.curation.errors import Malformed, UsageError
from dailies.curation.model_folders import model_name
from dailies.curation.packages import need
from dailies.curation.plain_text import one_line
from dailies.curation.progress import Bar, Progress, reporting, silent
from dailies.curation.schema import digest
from dailies.pipelines.recipes.specs import resolved

Chat: TypeAlias = Callable[[Sequence[Ask]], list[Reply]]

TRIES = 3
"""Times that an answer is asked for."""
DRAWN = 0.8
"""The temperature where answers are to differ."""
SENTENCE = re.compile(r"[.!?][\"'”’)]?(?=\s|$)")
KEPT = "kept_as_is"


@pydantic_dataclass(frozen=True, kw_only=True, config=SPEC)
class ExpandRequest:
    """What is asked of the model.

    Args:
        prompts: short ones.
        style: what the model is told: the name of a prompt that ships with dailies, a file, or the text of one.
        fields: ask for fields, and write them as models are prompted that were trained on captions of fields.
        count: texts of each prompt.
        seed: of what is drawn.
        temperature: 0 for the likeliest words; by default that of one text, and ``DRAWN`` of several.
        max_tokens: most tokens of a text.
    """

    prompts: Annotated[tuple[Annotated[str, Field(max_length=10_000)], ...], Field(min_length=1)]
    style: Prompt = "expand"
    fields: bool = False
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: int = 0
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Field(ge=8)] = 160

    @property
    def told(self) -> str:
        """What the model is told, of the form of its answer too."""
        text = prompt_text(self.style)
        return f"{text}\n\n{instruction()}" if self.fields else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A prompt and what became of it.

    ``text``: to prompt a video model with. ``flags``: what speaks against it: ``drops_words`` where the model left out words of
    the prompt, which stands before its text then; ``kept_as_is`` where the text is the prompt alone, with why. ``seed``: of the
    answer that was taken. ``tokens``: that the model wrote in it; None where nobody counts.
    """

    prompt: str
    text: str
    flags: tuple[str, ...]
    seed: int
    tokens: int | None
    model: str
    revision: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandReport:
    """The result of ``expand``. ``style_hash``: of what the model was told, as tables have it."""

    expansions: tuple[Expansion, ...]
    style_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """One text that is wanted, and what the last answer made of it."""

    prompt: str
    number: int
    temperature: float
    seed: int = 0
    result: Expansion | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Of the last answer; before there is one, that the prompt stays as it is."""
        return (KEPT,) if self.result is None else self.result.flags


def expand(
    prompts: str | Sequence[str],
    *,
    model: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
    key_env: str | None = None,
    gpus: float = 0,
    progress: Progress = silent,
    **request: Any,
) -> ExpandReport:
    """Write prompts as captions are written. ``request``: the parameters of ``ExpandRequest``.

    Args:
        model: by default SmolLM2, which the extra ``llm`` brings; a folder of transformers', a hub's OWNER/NAME, or zoo:NAME;
            with an ``endpoint``, as that calls it.
        endpoint: a server of OpenAI's protocol, such as http://localhost:8000/v1.
        key_env: the environment variable that holds the server's key.

    Returns ``count`` texts of each prompt, in order. Raises ``UsageError`` for what cannot be asked.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    cleaned = tuple(one_line(text) for text in texts)
    if not all(cleaned):
        raise UsageError("prompt='': is empty; write a few words")
    asked = _checked(ExpandRequest, {"prompts": cleaned, **request})
    spec = _model(model, revision, endpoint, key_env, gpus)
    need(spec.requires, by="expand")
    with reporting(progress), ExitStack() as stack:
        spec = resolved(spec)
        spec.check()
        with progress("load", None, model_name(spec.model)):
            chat = stack.enter_context(spec.chat())
        with progress("expand", len(cleaned) * asked.count, "texts") as bar:
            expansions = _expanded(asked, chat, bar)
    return ExpandReport(expansions=expansions, style_hash=prompt_hash(asked.told))


def _model(model: str | None, revision: str | None, endpoint: str | None, key_env: str | None, gpus: float) -> Any:
    if endpoint is None:
        if key_env is not None:
            raise UsageError(f"key-env={key_env}: belongs to a server; name that by --endpoint")
        return _checked(TransformersChat, {"model": model or smollm2.NAME, "revision": revision, "gpus": gpus})
    if model is None:
        raise UsageError(f"endpoint={endpoint}: has models of its own; name one by --model")
    key = {} if key_env is None else {"key_env": key_env}
    return _checked(EndpointChat, {"url": endpoint, "model": model, "revision": revision, **key})


def _checked(cls: Any, values: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise UsageError(format_error(error)) from None


# ---- asking, and asking again ---------------------------------------------------------------------------------------


def _expanded(request: ExpandRequest, chat: Chat, bar: Bar) -> tuple[Expansion, ...]:
    first = request.temperature if request.temperature is not None else DRAWN if request.count > 1 else 0.0
    wishes = [
        _Wish(prompt=prompt, number=number, temperature=first)
        for prompt in request.prompts
        for number in range(request.count)
    ]
    for turn in range(TRIES):
        open_ones = [at for at, wish in enumerate(wishes) if KEPT in wish.flags]
        if not open_ones:
            break
        for at in open_ones:
            warmer = max(wishes[at].temperature, DRAWN) if turn else wishes[at].temperature
            seed = int(digest("expand", request.seed, wishes[at].prompt, wishes[at].number, turn)[:7], 16)
            wishes[at] = replace(wishes[at], temperature=warmer, seed=seed)
        replies = chat([_ask(request, wishes[at]) for at in open_ones])
        for at, reply in zip(open_ones, replies, strict=True):
            wishes[at] = replace(wishes[at], result=_expansion(request, wishes[at], reply))
            bar.advance(KEPT not in wishes[at].flags)
    bar.advance(sum(KEPT in wish.flags for wish in wishes))
    return tuple(wish.result for wish in wishes if wish.result is not None)


def _ask(request: ExpandRequest, wish: _Wish) -> Ask:
    return Ask(
        text=f"Describe a video of {wish.prompt.rstrip(' .')}.",
        system=request.told,
        max_tokens=request.max_tokens,
        temperature=wish.temperature,
        seed=wish.seed,
        schema=json_schema() if request.fields else None,
    )


def _expansion(request: ExpandRequest, wish: _Wish, reply: Reply) -> Expansion:
    text, flags = _looked_at(request, wish.prompt, reply)
    if KEPT in flags:
        text = serialize(CaptionFields(subject=wish.prompt)) if request.fields else wish.prompt
    return Expansion(
        prompt=wish.prompt,
        text=text,
        flags=flags,
        seed=wish.seed,
        tokens=reply.tokens,
        model=reply.model,
        revision=reply.revision,
    )


def _looked_at(request: ExpandRequest, prompt: str, reply: Reply) -> tuple[str, tuple[str, ...]]:
    """Return the text of a reply and what speaks against it."""
    if reply.outcome not in ("ok", "truncated"):
        return "", (KEPT, reply.outcome)
    text = one_line(reply.text.replace("**", "")).strip('"“” ')
    if request.fields:
        try:
            fields, _ = parse_fields(reply.text)
        except Malformed:
            return "", (KEPT, "no_fields")
        text = serialize(fields)
        bad = _bad(text, request.told, prompt)
    else:
        text, bad = _sound_part(text, request.told, prompt, whole=reply.outcome == "ok")
    if not bad and len(text.split()) <= len(prompt.split()):
        bad = ("no_longer",)
    if bad:
        return "", (KEPT, *bad)
    if set(wording.content(wording.tokens(prompt))) <= set(wording.tokens(text)):
        return text, ()
    return f"{serialize(CaptionFields(subject=prompt))} {text}", ("drops_words",)


def _sound_part(text: str, told: str, prompt: str, *, whole: bool) -> tuple[str, tuple[str, ...]]:
    """Return the sentences of a text before the first that goes wrong; and what is wrong where there are none. The last one is
    cut off where the text is not ``whole``. Small models begin well, and then say the same again and again.
    """
    ends = [match.end() for match in SENTENCE.finditer(text)]
    ends += [len(text)] if whole and (not ends or ends[-1] < len(text)) else []
    if not ends:
        return "", ("truncated",)
    # What is wrong with a beginning of the text is wrong with each longer one.
    first = bisect_left(ends, True, key=lambda end: bool(_bad(text[:end], told, prompt)))
    return (text[: ends[first - 1]], ()) if first else ("", _bad(text[: ends[0]], told, prompt))


def _bad(text: str, told: str, prompt: str) -> tuple[str, ...]:
    signs = {
        "echo": wording.echoes(text, told, [prompt]),
        "refusal": refusals(text) > 0,
        "repeats": wording.repeats(text, [prompt]),
    }
    return tuple(name for name, holds in signs.items() if holds)
