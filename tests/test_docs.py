"""The documents keep to what is there: lines of 120, links and paths that lead somewhere, commands that parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dailies.pipelines.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FOLDERS = ("benchmarks", "curation", "docs", "examples", "pipelines", "scripts", "src", "tests", "training", "zoo")
WIDTH = 120
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)

page = pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])


def prose(text: str) -> str:
    """Return a page without its code blocks, whose lines stay as empty ones."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


@page
def test_prose_wraps(path: Path) -> None:
    lines = enumerate(prose(path.read_text(encoding="utf-8")).splitlines(), 1)
    assert not [(number, len(line)) for number, line in lines if len(line) > WIDTH and not line.startswith("|")]


@page
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8")))
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@page
def test_paths_exist(path: Path) -> None:
    for span in re.findall(r"`([^`\n]+)`", prose(path.read_text(encoding="utf-8"))):
        for word in span.split():
            if re.fullmatch(r"test_\w+\.py", word):
                word = f"tests/{word}"  # further files after one with its folder
            word = re.sub("NAME|CLASS|FILE", "*", word)  # of a file that is to be added
            if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*]*", word):
                assert any(ROOT.glob(word.rstrip("/"))), word


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words after ``dailies`` of each command in a page's shell blocks."""
    for language, block in FENCE.findall(text):
        line = ""
        for part in block.replace("\\\n", " ").splitlines() if language == "sh" else ():
            line = f"{line}\n{part}" if line else part
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a quotation goes on in the next line
                continue
            line = ""
            if words[:1] == ["dailies"]:
                yield words[1:]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that ``words`` begin with, and the words left for it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@page
def test_commands_in_blocks_parse(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        command, rest = command_of(words)
        command.make_context(command.name, list(rest))  # parses, types included, and runs nothing


@page
def test_commands_in_sentences_have_their_options(path: Path) -> None:
    for span in re.findall(r"`dailies ([^`]+)`", prose(path.read_text(encoding="utf-8"))):
        words = re.sub(r"[\[\]\\]", "", span).split()
        if "|" in words:
            first = words.index("|") - 1
            prefix, choices = words[:first], [word for word in words[first:] if word != "|"]
        else:
            prefix, choices = words, [""]
        for choice in choices:
            command, rest = command_of([*prefix, *([choice] if choice else [])])
            known = {name for option in command.params for name in option.opts}
            known |= {"-h", "--help"}
            assert not [word for word in rest if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known], span


def test_the_documents_hold_commands() -> None:
    blocks = [words for path in PAGES for words in commands(path.read_text(encoding="utf-8"))]
    assert len(blocks) > 15
    assert {"curate", "train", "zoo"} <= {words[0] for words in blocks}
