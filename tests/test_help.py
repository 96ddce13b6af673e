"""Help reads right at 80 columns, a shell completes names, and what is misspelled is answered by what was meant."""

from __future__ import annotations

import os
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dailies.curation.captioners import SummaryCaptioner, VideoCaptioner
from dailies.curation.errors import RecipeError, SourceError
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.curation.retrying import cause_of
from dailies.curation.scorers import AestheticScorer, AskScorer, RaftScorer
from dailies.curation.video.bytes_io import content_id
from dailies.pipelines.cli import train
from dailies.pipelines.cli.recipe_tables import shown
from dailies.pipelines.recipes import CurationRecipe, load_recipe, recipe_names
from dailies.pipelines.recipes.describe import TABLES, describe, describe_all
from dailies.training.recipes import RECIPES
from dailies.training.recipes import load_recipe as load_training_recipe
from tests.conftest import Dailies
from tests.test_cli import COMMANDS
from tests.test_docs import command_of

PAGES = ["", "zoo", "recipe", *COMMANDS]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_help_fits_80_columns_and_names_no_types(
    name: str, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = dailies(*name.split(), "--help")
    assert done == dailies(*name.split(), "-h")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "<bool>" in line or "<str>" in line or "]..." in line or "}" in line]
    assert lines[0].startswith("Usage: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_commands_that_parse(name: str) -> None:
    command = COMMANDS[name]
    for line in (command.epilog or "").splitlines():
        words = shlex.split(line, comments=True)
        found, rest = command_of(words[1:])
        assert found.name == command.name
        found.make_context(found.name, list(rest))


def test_help_of_train_lists_every_recipe() -> None:
    listed = COMMANDS["train"].help.partition("Recipes:\n")[2]
    names = [line.split()[0] for line in listed.splitlines() if line[:1].strip()]
    assert set(names) == set(train.RECIPES) == {*RECIPES, "vae", "captioner"}


def completed(words: str) -> list[str]:
    """What bash completes the last of ``words`` to."""
    split = words.split(" ")
    env = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(len(split) - 1), "_DAILIES_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv[0] = 'dailies'; from dailies.pipelines.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dailies cu", ["curate", "cuts"]),
        ("dailies curate --recipe q", ["quickstart"]),
        ("dailies recipe explain boun", ["boundary"]),
        ("dailies train l", ["lora"]),
        ("dailies train tiny --phase i", ["image"]),
        ("dailies zoo show coca", ["coca-world"]),
        ("dailies zoo publish --weights e", ["ema"]),
    ],
)
def test_a_shell_completes_names(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


# ---- what was meant -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("curat", "curate"),
        ("zoo lst", "list"),
        ("--hlp", "--help"),
        ("curate x --ot y", "--out"),
        ("recipe explain motoin", "motion"),
        ("recipe shw cpu", "show"),
        ("curate x --out y --recipe defalt", "default"),
        ("train tinny --data x --out y", "tiny"),
        ("train tiny --phase imge --dry-run", "image"),
        ("train tiny --dry-run --set imge.steps=3", "image"),
        ("train tiny --dry-run --set image.stps=3", "steps"),
        ("train tiny --dry-run --set image.task=text-to-imag", "text-to-image"),
        ("train tiny --dry-run --set unet.chanels=3", "channels"),
        ("train tiny --dry-run --set reader=pyva", "pyav"),
        ("zoo show cca-world --zoo nowhere", "coca-world"),
    ],
)
def test_a_misspelled_word_is_answered_by_the_right_one(words: str, meant: str, dailies: Dailies) -> None:
    done = dailies(*words.split())
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"did you mean {meant}?" in done.stderr


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("ct.min_seconds=2", "cut"),
        ("cut.min_secnds=2", "min_seconds"),
        ("cut.hrd=0.3", "hard"),
        ("cut.detector.hrd=0.3", "hard"),
        ("cut.detector=contnt", "content"),
        ("observe.evidence.fsp=2", "fps"),
        ("observe.motion.methd=dis", "method"),
        ("observe.motion.method=diss", "dis"),
        ("observe.observers=[luam]", "luma"),
        ("text.sidee=3", "side"),
        ("score.text.side=3", "text.side"),
        ("select.rules.motion.min=3", "main"),
        ("main.rule.motion.min=3", "rules"),
        ("main.rules.motionn.min=3", "motion"),
        ("main.rules.motion.mn=3", "min"),
        ("main.rules.manifset.rating.min=3", "manifest.rating"),
        ("main.duplicates=dorp", "drop"),
        ("export.mod=none", "mode"),
        ("export.mode=nnoe", "none"),
        ("export.select=mian", "main"),
    ],
)
def test_a_misspelled_override_is_answered_by_the_right_one(override: str, meant: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("default", [override])
    assert f"did you mean {meant}?" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_with_dots_and_signs_can_be_set() -> None:
    recipe = load_recipe(
        "default",
        ["main.rules.manifest.rating.min=3", 'main.rules."manifest.a=b.c".min=1', "main.rules.manifest.'my key'.max=2"],
    )
    rules = next(step for step in recipe.steps if step.name == "main").rules
    assert rules["manifest.rating"].min == 3
    assert rules["manifest.a=b.c"].min == 1
    assert rules["manifest.my key"].max == 2
    assert load_training_recipe("tiny", ["*.steps=3"]).phases[1].steps == 3


# ---- recipes --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def weights_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of weights that a built-in recipe names, and that people fetch themselves, count as here."""
    for spec in (AestheticScorer, AskScorer, RaftScorer, SummaryCaptioner, VideoCaptioner):
        monkeypatch.setattr(spec, "weights", lambda self: "sha256")


@pytest.mark.parametrize("part", describe_all(), ids=lambda part: f"{part.kind} {part.name}")
def test_every_part_says_what_it_is_and_what_each_key_means(part: Any) -> None:
    assert len(part.about) > 10
    for whole in describe(part.name):
        for key in whole.keys:
            assert key.about, f"{whole.kind} {whole.name}: {key.name}"
            assert key.allowed, f"{whole.kind} {whole.name}: {key.name}"
        assert all(column.about for column in whole.columns)


def test_all_of_the_tables_is_described() -> None:
    there = {(part.kind, part.name) for part in describe_all()}
    assert there == {("recipe", name) for name in recipe_names()} | {
        (kind, name) for kind, table in TABLES.items() for name in table
    }


@pytest.mark.parametrize("name", recipe_names())
def test_the_keys_that_are_shown_can_be_set_and_make_the_same_recipe(name: str) -> None:
    (recipe, *_) = describe(name)
    sets = [f"{key.name}={shown(key.value)}" for key in recipe.keys]
    made, plain = load_recipe(name, sets), load_recipe(name)
    assert isinstance(made, CurationRecipe)
    assert made.tables() == plain.tables()
    assert [step.model_dump(exclude={"observers"}) for step in made.steps] == [
        step.model_dump(exclude={"observers"}) for step in plain.steps
    ]


# ---- addresses ------------------------------------------------------------------------------------------------------


def caused(outer: Exception, *causes: Exception) -> Exception:
    link: BaseException = outer
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            caused(OSError("Cannot connect to host h:443"), socket.gaierror(-2, "Name or service not known")),
            "no such host",
        ),
        (
            caused(OSError("Cannot connect to host h:1"), ConnectionRefusedError(111, "refused")),
            "no server answers there",
        ),
        (TimeoutError(), "no answer in time"),
        (ssl.SSLCertVerificationError("certificate verify failed"), "its certificate is not trusted"),
        (ssl.SSLError(1, "wrong version number"), "is it an http:// address"),
        (FileNotFoundError("https://h/x.mp4"), "there is nothing at this address"),
    ],
)
def test_an_address_that_cannot_be_reached_says_why(error: Exception, said: str) -> None:
    assert said in cause_of(error).partition(": ")[0]


@pytest.mark.parametrize(("status", "said"), [(404, "there is nothing at"), (403, "access is not allowed")])
def test_a_servers_answer_is_said_in_words(status: int, said: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x.mp4"
        with opening_by(SourcePolicy(private_hosts=True)), pytest.raises(SourceError, match=said):
            content_id(url)
        server.shutdown()
