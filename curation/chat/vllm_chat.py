"""A chat model by vLLM on the GPUs of a Ray cluster, through ``ray.data.llm``: batches offline, without a server.

**Not run by us**: vLLM needs GPUs that the machines which test dailies have not. What is tested is the configuration, against
Ray's own classes, the rows that go in, and what becomes of rows as Ray documents them.

A processor of ``ray.data.llm`` starts its engines for each dataset that it is applied to, and ends them behind it. So the one
worker of a stage, which needs no GPU itself, hands over ``at_a_time`` clips at once. For few clips a server is better:
``vllm serve`` and ``EndpointChat``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from dailies.curation import transformers_folder
from dailies.curation.chat import chat_folder
from dailies.curation.chat.asking import Ask, Reply
from dailies.curation.chat.messages import is_jpeg, messages
from dailies.curation.chat.thinking import ONLY_THOUGHT, without_thinking
from dailies.curation.config import SPEC
from dailies.curation.errors import Unreadable, UsageError, first_line, outage
from dailies.curation.model_folders import model_name
from dailies.curation.packages import need
from dailies.curation.plain_text import clean, one_line, shortened
from dailies.curation.types import Resources

OURS = frozenset({"model", "revision", "tensor_parallel_size", "limit_mm_per_prompt"})
CODE = "trust_remote_code"
ERROR = "__inference_error__"
KEPT = ("number", "generated_text", "num_generated_tokens", "num_input_tokens", ERROR)
"""Columns of what comes out: the ask's number, and those that Ray documents."""
LONGEST_LINE = 300
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.gguf")
"""What vLLM loads besides safetensors."""


def _checked_engine(engine: dict[str, Any]) -> dict[str, Any]:
    if engine.get(CODE):
        raise ValueError(f"{CODE}: no code of a model's folder is run; take a model that vLLM has itself")
    if taken := sorted(OURS & engine.keys()):
        raise ValueError(f"{taken[0]} is not for it; leave it out")
    return engine


@dataclass(frozen=True, kw_only=True, config=SPEC)
class VllmChat:
    """A chat model by vLLM on a Ray cluster.

    Args:
        model: a folder that every node has, or a hub's OWNER/NAME.
        revision: of the hub's.
        gpus: that each copy of the model is spread over.
        copies: of the model, at most.
        batch: asks that an engine is handed at once; it has several such batches under way.
        at_a_time: clips for which the engines are started once.
        engine: more of vLLM's engine arguments, such as {max_model_len: 8192}.
    """

    model: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)] | None = field(default=None, metadata={"meaning": False})
    gpus: Annotated[int, Field(ge=1)] = field(default=1, metadata={"meaning": False})
    copies: Annotated[int, Field(ge=1)] = field(default=1, metadata={"meaning": False})
    batch: Annotated[int, Field(ge=1)] = field(default=64, metadata={"meaning": False})
    at_a_time: Annotated[int, Field(ge=1)] = field(default=2048, metadata={"meaning": False})
    engine: Annotated[dict[str, Any], AfterValidator(_checked_engine)] = field(default_factory=dict)

    requires: ClassVar[tuple[str, ...]] = ("vllm",)
    models: ClassVar[tuple[str, ...]] = ()

    @property
    def resources(self) -> Resources:
        """What the worker that hands asks over needs; the engines take their GPUs of the cluster themselves."""
        return Resources(cpus=1, memory_gb=4, workers=1)

    @property
    def bundle(self) -> int:
        """Clips that the worker is handed at a time, if there are as many."""
        return self.at_a_time

    def weights(self) -> str | None:
        """Return the sha256 of the folder's weights and settings, where this machine has it, else the revision."""
        folder = Path(self.model)
        if not folder.is_dir():
            return self.revision
        others = [path.name for pattern in OTHER_WEIGHTS for path in folder.glob(pattern)]
        return transformers_folder.fingerprint(folder, (*chat_folder.SETTINGS, *others))

    def check(self) -> None:
        """Raise ``NotInstalled`` with the line that installs vLLM, where it is absent."""
        need(self.requires, by=f"model={self.model}")

    @contextmanager
    def chat(self) -> Iterator[Callable[[Sequence[Ask]], list[Reply]]]:
        """Answer asks on the cluster. Raises ``UsageError`` outside of one, and ``Outage`` where its engines fail."""
        self.check()
        import ray

        if not ray.is_initialized():  # Ray would start a cluster that is open to everyone
            raise UsageError("engine=local: vLLM runs on Ray; run with --engine ray")

        def answer(asks: Sequence[Ask]) -> list[Reply]:
            bad = {number for number, ask in enumerate(asks) if not all(is_jpeg(image.jpeg) for image in ask.images)}
            rows = [row_of(number, ask) for number, ask in enumerate(asks) if number not in bad]
            answers = {row["number"]: row for row in self._rows_out(rows, most_images(asks))} if rows else {}
            return [
                self._none("a picture is no JPEG", Unreadable.kind)
                if number in bad
                else self._reply(ask, answers[number])
                for number, ask in enumerate(asks)
            ]

        yield answer

    def config(self, images: int) -> dict[str, Any]:
        """Return the arguments of ``vLLMEngineProcessorConfig`` for asks of at most so many ``images``."""
        limit = {"limit_mm_per_prompt": {"image": images}} if images else {}
        pinned = {"revision": self.revision, "tokenizer_revision": self.revision} if self.revision else {}
        return {
            "model_source": self.model,
            "engine_kwargs": {"tensor_parallel_size": self.gpus, **pinned, **limit, **self.engine},
            "concurrency": self.copies,
            "batch_size": self.batch,
            "should_continue_on_error": True,  # an ask that fails is its clip's row
            "log_engine_metrics": False,
            "prepare_multimodal_stage": {"enabled": images > 0},
        }

    def _rows_out(self, rows: Sequence[Mapping[str, Any]], images: int) -> list[dict[str, Any]]:
        import ray
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        try:
            processor = build_processor(
                vLLMEngineProcessorConfig(**self.config(images)), preprocess=unpacked, postprocess=kept
            )
            answered = processor(ray.data.from_items(list(rows))).map(kept).take_all()
        except ray.exceptions.RayError as error:
            raise outage(
                f"model={self.model}: vLLM failed on the cluster: {shortened(first_line(error), 200)}"
            ) from error
        return [dict(row) for row in answered]

    def _reply(self, ask: Ask, row: Mapping[str, Any]) -> Reply:
        if row[ERROR]:
            return self._none(shortened(one_line(row[ERROR]), LONGEST_LINE))
        written, tokens = clean(row["generated_text"] or "").strip(), int(row["num_generated_tokens"])
        text = without_thinking(written)
        ended = tokens < ask.max_tokens  # Ray does not pass on why the model stopped
        return Reply(
            text=text,
            outcome="empty" if not text else "ok" if ended else "truncated",
            why=None if text else ONLY_THOUGHT if written and not ended else "no text came",
            tokens=tokens,
            prompt_tokens=int(row["num_input_tokens"]),
            model=model_name(self.model),
            revision=self.revision,
        )

    def _none(self, why: str, kind: str | None = None) -> Reply:
        return Reply(
            text="", outcome="failed", why=why, kind=kind, model=model_name(self.model), revision=self.revision
        )


def most_images(asks: Sequence[Ask]) -> int:
    return max((len(ask.images) for ask in asks), default=0)


def row_of(number: int, ask: Ask) -> dict[str, Any]:
    """Return an ask as a row. Its messages travel as text: Arrow would give each part of them the keys of all others."""
    drawn = {"seed": ask.seed} if ask.temperature > 0 else {}
    structured = {"structured_outputs": {"json": json.dumps(ask.schema)}} if ask.schema is not None else {}
    sampling = {"temperature": ask.temperature, "max_tokens": ask.max_tokens, **drawn, **structured}
    return {"number": number, "ask": json.dumps({"messages": messages(ask), "sampling_params": sampling})}


def unpacked(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a processor takes: the ask's number, ``messages`` and ``sampling_params``."""
    return {"number": row["number"], **json.loads(row["ask"])}


def kept(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a row that came out. One that failed holds all that went in, too."""
    defaults = {"generated_text": "", "num_generated_tokens": 0, "num_input_tokens": 0, ERROR: ""}
    return {name: row.get(name, defaults.get(name)) for name in KEPT}
