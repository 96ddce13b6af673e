"""A chat model of transformers on this machine: texts alone, or with the pictures of a video, by its own chat template.

Nothing is fetched but data of a hub's repository that is named, only safetensors are read, and no code runs but
transformers' own; see ``dailies.curation.chat.chat_folder``, of chat templates too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dailies.curation.chat import chat_folder, smollm2
from dailies.curation.chat.asking import Ask, Reply
from dailies.curation.chat.batches import WINDOW, ahead, batches, windows
from dailies.curation.chat.chat_folder import Dtype, LoadedChat
from dailies.curation.chat.generation import Answer, answers
from dailies.curation.chat.inputs import Prepared, prepare
from dailies.curation.chat.thinking import ONLY_THOUGHT, without_thinking
from dailies.curation.config import SPEC, GpuShare
from dailies.curation.errors import OutOfMemory, SourceError, UsageError, item_error, stopping_error
from dailies.curation.model_folders import model_name
from dailies.curation.types import Resources

CPUS = 2  # of a worker with a GPU, whose threads make pictures ready while the model works


@pydantic_dataclass(frozen=True, kw_only=True, config=SPEC)
class TransformersChat:
    """A base for what asks a chat model of transformers.

    Args:
        model: zoo:NAME, a folder of transformers', a hub id OWNER/NAME, or smollm2 for the small language model that the extra
            llm brings.
        revision: branch, tag or commit of the hub's repository, its main branch if null.
        gpus: what one worker gets, a share of one such as 0.25 or whole ones, over which a model is spread that is larger
            than one; with none it runs on the CPU.
        dtype: precision of the sums, bf16 or fp32; auto is the model's own on a GPU, and fp32 without one.
        batch_tokens: tokens of one batch, those to be written and padding included.
    """

    model: str
    revision: str | None = None
    gpus: GpuShare = field(default=0, metadata={"meaning": False})
    dtype: Dtype = "auto"
    batch_tokens: Annotated[int, Field(ge=1)] = field(default=16_384, metadata={"meaning": False})

    models: ClassVar[tuple[str, ...]] = ("model",)

    @property
    def requires(self) -> tuple[str, ...]:
        """What runs any model, and ``accelerate`` where weights are read straight to a GPU or spread over several; of the one
        in the extra ``llm`` what brings it. That one sees no pictures, which torchvision makes ready."""
        of_any = ("safetensors", "torch", "torchvision", "transformers")
        return (
            *(("accelerate",) if self.gpus else ()),
            *(smollm2.REQUIRES if self.model == smollm2.NAME else of_any),
        )

    @property
    def bundle(self) -> int:
        """Clips that a worker is handed at a time, if there are as many: batches follow each other within one alone."""
        return 64 if self.gpus else 8

    @property
    def resources(self) -> Resources:
        return Resources(cpus=CPUS if self.gpus >= 1 else 1, gpus=self.gpus, memory_gb=4)

    def weights(self) -> str:
        """Return what tells these weights and settings from others: a repository's commit, or a folder's sha256."""
        return chat_folder.weights(self.model, self.revision)

    def check(self) -> None:
        """Raise ``Damaged`` or ``UsageError`` for a folder that is not sound, a hub's too: before any work."""
        chat_folder.check(chat_folder.folder_of(self.model, self.revision))

    def fetch(self) -> None:
        """Download the model, so that no worker has to: nobody sees what those print."""
        chat_folder.folder_of(self.model, self.revision)

    @contextmanager
    def chat(self) -> Iterator[Callable[[Sequence[Ask]], list[Reply]]]:
        """See ``dailies.curation.chat.asking.ChatModel``. Asks are made ready on threads, and answered in batches by length."""
        if self.model.startswith("zoo:"):
            raise UsageError(
                f"model={self.model!r}: a zoo name must be resolved to a folder first; pipelines does that"
            )
        folder = chat_folder.folder_of(self.model, self.revision)
        loaded = chat_folder.load(folder, gpus=self.gpus, dtype=self.dtype)
        threads = max(1, int(self.resources.cpus))
        with ThreadPoolExecutor(threads, "prepare") as pool:
            yield _Chat(
                loaded=loaded,
                origin=Reply(text="", outcome="empty", model=model_name(self.model), revision=self.weights()),
                budget=self.batch_tokens,
                pool=pool,
                threads=threads,
            )


@dataclass(frozen=True, kw_only=True)
class _Chat:
    """An open model. ``origin``: a reply that says where replies are from, and no more."""

    loaded: LoadedChat
    origin: Reply
    budget: int
    pool: Executor
    threads: int
    _local: threading.local = field(default_factory=threading.local)

    def __call__(self, asks: Sequence[Ask]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        for window in windows(self._prepared(asks, replies), self.budget):
            for batch in batches(window, self.budget):
                replies |= self._replies(batch)
        return [replies[number] for number in range(len(asks))]

    def _prepared(self, asks: Sequence[Ask], replies: dict[int, Reply]) -> Iterator[Prepared]:
        """Yield asks as they are ready. Those that cannot be have their reply at once."""
        tokens = count = 0

        def waiting() -> int:
            """Return how many asks to make ready ahead: what two windows hold, by the mean of those that are ready."""
            mean = tokens / count if count else self.budget / self.threads
            return max(self.threads, round(WINDOW * self.budget / mean))

        for number, ready in enumerate(ahead(asks, self._ready, self.pool, waiting)):
            if isinstance(ready, SourceError):
                replies[number] = self._failed(ready)
                continue
            tokens, count = tokens + ready.tokens + ready.max_tokens, count + 1
            yield ready

    def _ready(self, number: int, ask: Ask) -> Prepared | SourceError:
        """Make one ask ready, on a thread of its own: tokenizers of transformers hold a state that threads may not share."""
        if not hasattr(self._local, "loaded"):
            processor = deepcopy(self.loaded.processor)
            tokenizer = getattr(processor, "tokenizer", processor)
            self._local.loaded = replace(self.loaded, processor=processor, tokenizer=tokenizer)
        try:
            return prepare(self._local.loaded, number, ask)
        except Exception as error:
            return item_error(error)

    def _replies(self, batch: Sequence[Prepared]) -> dict[int, Reply]:
        """Return the replies of a batch.

        One that fails, or that memory does not suffice for, is halved, so that the rest has its answers.
        """
        try:
            written = answers(self.loaded, batch)
        except Exception as error:
            stopping = stopping_error(error)
            if stopping is not None and (len(batch) == 1 or not isinstance(stopping, OutOfMemory)):
                raise stopping from error
            if len(batch) == 1:
                return {batch[0].number: self._failed(item_error(error))}
        else:
            return {each.number: self._reply(each, answer) for each, answer in zip(batch, written, strict=True)}
        half = len(batch) // 2
        return self._replies(batch[:half]) | self._replies(batch[half:])

    def _reply(self, asked: Prepared, answer: Answer) -> Reply:
        told = replace(self.origin, tokens=answer.tokens, prompt_tokens=asked.tokens)
        text = without_thinking(answer.text)
        if not text:
            why = ONLY_THOUGHT if answer.text and not answer.ended else "the model wrote nothing"
            return replace(told, outcome="empty", why=why)
        return replace(told, text=text, outcome="ok" if answer.ended else "truncated")

    def _failed(self, error: SourceError) -> Reply:
        return replace(self.origin, outcome="failed", why=str(error), kind=error.kind)
