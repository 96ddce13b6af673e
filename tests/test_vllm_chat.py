"""vLLM through ray.data.llm, as far as that goes without one: configuration, rows in, rows out, and in a stage's task."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.captioners import VllmCaptioner
from dailies.curation.chat import Ask, ChatImage, Reply, VllmChat
from dailies.curation.chat.messages import messages
from dailies.curation.chat.vllm_chat import ERROR, kept, most_images, row_of, unpacked
from dailies.curation.errors import NotInstalled, UsageError
from dailies.curation.packages import installed
from dailies.pipelines.recipes.obstacles import obstacles
from dailies.pipelines.recipes.recipe import parse_recipe

JPEG = b"\xff\xd8 a picture \xff\xd9"
ASK = Ask(text="what?", images=(ChatImage(jpeg=JPEG, seconds=0.5),), system="be brief", max_tokens=8)
SCHEMA = {"type": "object", "properties": {"subject": {"type": "string"}}}


def out(number: int, text: str = "a cat", tokens: int = 3, **other: Any) -> dict[str, Any]:
    """A row as Ray documents it."""
    return {
        "number": number,
        "generated_text": text,
        "num_generated_tokens": tokens,
        "num_input_tokens": 90,
        ERROR: "",
        **other,
    }


def reply(row: dict[str, Any]) -> Reply:
    return VllmChat(model="owner/name", revision="r1")._reply(ASK, row)


def steps(model: str) -> list[dict[str, Any]]:
    return [
        {"observe": {"observers": ["boundary"]}},
        {"cut": {"detector": "boundary"}},
        {"caption": {"captioner": {"vllm": {"model": model}}}},
    ]


def test_the_configuration_is_one_that_ray_takes() -> None:
    llm = pytest.importorskip("ray.data.llm")
    chat = VllmChat(model="owner/name", revision="r1", gpus=4, copies=2, engine={"max_model_len": 8192})
    config = llm.vLLMEngineProcessorConfig(**chat.config(8))
    assert config.model_source == "owner/name"
    assert config.engine_kwargs == {
        "tensor_parallel_size": 4,
        "revision": "r1",
        "tokenizer_revision": "r1",
        "limit_mm_per_prompt": {"image": 8},
        "max_model_len": 8192,
        "task_type": "generate",
    }
    assert (config.concurrency, config.batch_size, config.should_continue_on_error) == (2, 64, True)
    assert config.prepare_multimodal_stage == {"enabled": True}
    text = llm.vLLMEngineProcessorConfig(**VllmChat(model="owner/name").config(0))
    assert "limit_mm_per_prompt" not in text.engine_kwargs
    assert text.prepare_multimodal_stage == {"enabled": False}


def test_no_code_of_a_model_runs_and_its_own_arguments_stay() -> None:
    for engine, message in (({"trust_remote_code": True}, "no code"), ({"model": "other"}, "model is not for it")):
        with pytest.raises(ValueError, match=message):
            VllmChat(model="owner/name", engine=engine)
    assert VllmChat(model="owner/name", engine={"trust_remote_code": False}).engine


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "chat_template.jinja"])
def test_a_folder_whose_files_are_others_is_another_model(name: str, tmp_path: Path) -> None:
    def table() -> str:
        return parse_recipe({"name": "vllm", "steps": steps(str(tmp_path))}).tables()["caption_vllm"]

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"one")
    before = table(), VllmChat(model=str(tmp_path)).weights()
    (tmp_path / "notes.txt").write_text("nothing of the model's")
    assert before == (table(), VllmChat(model=str(tmp_path)).weights())
    (tmp_path / name).write_bytes(b"other")
    assert not set(before) & {table(), VllmChat(model=str(tmp_path)).weights()}
    assert VllmChat(model="owner/name", revision="r1").weights() == "r1"


def test_a_row_goes_in_as_text_and_comes_as_messages() -> None:
    row = row_of(3, ASK)
    assert {name: type(value) for name, value in row.items()} == {"number": int, "ask": str}
    assert unpacked(row) == {
        "number": 3,
        "messages": messages(ASK),
        "sampling_params": {"temperature": 0.0, "max_tokens": 8},
    }
    drawn = unpacked(row_of(0, Ask(text="what?", temperature=0.7, seed=5, schema=SCHEMA)))["sampling_params"]
    assert (drawn["temperature"], drawn["seed"]) == (0.7, 5)
    assert json.loads(drawn["structured_outputs"]["json"]) == SCHEMA
    assert [most_images([]), most_images([Ask(text="a"), ASK])] == [0, 1]


@pytest.mark.parametrize(
    ("row", "outcome", "text", "why"),
    [
        (out(0, " a cat\x00 "), "ok", "a cat", None),
        (out(0, "a cat that", tokens=8), "truncated", "a cat that", None),
        (out(0, " "), "empty", "", "no text came"),
        (out(0, "<think>a dog?</think>\n\na cat"), "ok", "a cat", None),
        (
            out(0, "<think>a dog?", tokens=8),
            "empty",
            "",
            "only thoughts came before the most tokens; turn them off or raise max_tokens",
        ),
        (
            out(0, "", tokens=0, **{ERROR: "ValueError: prompt is\ntoo long"}),
            "failed",
            "",
            "ValueError: prompt is too long",
        ),
    ],
)
def test_a_row_that_comes_out_is_a_reply(row: dict[str, Any], outcome: str, text: str, why: str | None) -> None:
    got = reply(kept(row | {"messages": [], "params": "…", "batch_uuid": "0"}))
    assert (got.outcome, got.text, got.why) == (outcome, text, why)
    assert (got.model, got.revision) == ("owner/name", "r1")
    assert outcome == "failed" or (got.tokens, got.prompt_tokens) == (row["num_generated_tokens"], 90)


def test_a_row_that_failed_before_the_engine_lacks_its_columns() -> None:
    assert kept({"number": 1, ERROR: "no"}) == {**out(1, "", 0), "num_input_tokens": 0, ERROR: "no"}


@pytest.mark.skipif(installed("vllm"), reason="vLLM is installed")
def test_where_vllm_is_missing_the_line_that_installs_it_is_said() -> None:
    chat = VllmChat(model="owner/name")
    with pytest.raises(NotInstalled, match=r"model=owner/name needs vllm: pip install 'ray\[llm\]'"), chat.chat():
        pass
    ((step, error),) = obstacles(parse_recipe({"name": "vllm", "steps": steps("owner/name")}))
    assert (step.name, str(error)) == ("caption_vllm", "step caption_vllm needs vllm: pip install 'ray[llm]'")


@pytest.fixture
def _as_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VllmChat, "requires", ())


@pytest.mark.usefixtures("_as_if_installed")
def test_without_a_cluster_none_is_started() -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("Ray runs already")
    with pytest.raises(UsageError, match="run with --engine ray"), VllmChat(model="owner/name").chat():
        pass


def test_nothing_of_ray_or_vllm_is_imported_before_it_is_used() -> None:
    code = "import sys; from dailies.curation.captioners import VllmCaptioner; VllmCaptioner(model='a/b'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "vllm", "torch"} & set(loaded)


# ---- in a stage on Ray ----------------------------------------------------------------------------------------------


class Processor:
    """What ``build_processor`` returns, with an engine that says what it was asked instead of vLLM's."""

    def __init__(self, config: Any, preprocess: Any, postprocess: Any) -> None:
        self.images = config.engine_kwargs.get("limit_mm_per_prompt")
        self.preprocess, self.postprocess = preprocess, postprocess

    def __call__(self, dataset: Any) -> Any:
        return dataset.map(self.preprocess).map(self.answered).map(self.postprocess)

    def answered(self, row: dict[str, Any]) -> dict[str, Any]:
        asked = row["messages"][-1]["content"]
        text = asked if isinstance(asked, str) else asked[-1]["text"]
        failed = "cannot" if "2" in text else ""
        return {**row, **out(row["number"], f"{text} {self.images}"), ERROR: failed}


@pytest.fixture
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from dailies.pipelines import engine

    with engine.session("ray") as session:
        session.start_ray()
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not import tests
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
def test_a_processor_runs_inside_of_a_stages_task(cluster: Any) -> None:
    def stage() -> list[tuple[str, str]]:
        import ray.data.llm

        ray.data.llm.build_processor = Processor
        VllmChat.requires = ()
        asks = [Ask(text=f"what is {number}?") for number in range(4)]
        pictures = [Ask(text="what?", images=(ChatImage(jpeg=jpeg),)) for jpeg in (JPEG, b"none")]
        with VllmCaptioner(model="owner/name").chat() as answer:
            replies = [*answer(asks), *answer(pictures), *answer([])]
        return [(reply.outcome, reply.text) for reply in replies]

    assert cluster.get(cluster.remote(num_cpus=1)(stage).remote()) == [
        ("ok", "what is 0? None"),
        ("ok", "what is 1? None"),
        ("failed", ""),
        ("ok", "what is 3? None"),
        ("ok", "what? {'image': 1}"),
        ("failed", ""),
    ]
