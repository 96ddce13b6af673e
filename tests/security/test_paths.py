"""A dataset that somebody else made leads nowhere outside: not by links, not by pipes, not by the names in its files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import inside
from dailies.curation.errors import DatasetError, Unsafe
from dailies.curation.tables import DatasetTables, Folder, read_part, write_part
from dailies.curation.tables.withdraw import withdraw_from_export
from tests.conftest import Dailies
from tests.dataset_builder import CLIPS, EXPORT, SCORES, fill
from tests.security.outside import SECRET, pipe, ringing, state, swap

SHARD = "data/train-00000-of-00002.parquet"


@pytest.fixture(autouse=True)
def _hang_is_failure() -> Iterator[None]:
    with ringing():
        yield


@dataclass
class Place:
    """A dataset of others, ``theirs``, and what lies outside of it: another dataset and a key."""

    theirs: Path
    outside: Path

    @property
    def mine(self) -> Path:
        return self.outside / "mine"

    @property
    def key(self) -> Path:
        return self.outside / "key.pem"

    def part(self, dataset: Path, table: str = CLIPS) -> Path:
        return sorted((dataset / table).glob("part-*.parquet"))[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    fill(DatasetTables.create(folder / "theirs"), ["a", "b"])
    fill(DatasetTables.create(folder / "outside" / "mine"), ["mysecret", "b"])
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    shutil.copytree(made, tmp_path / "x")
    there = Place(tmp_path / "x" / "theirs", tmp_path / "x" / "outside")
    there.key.write_bytes(SECRET)
    return there


# ---- attacks --------------------------------------------------------------------------------------------------------


def name_in_log(name: Callable[[Place], str]) -> Callable[[Place], None]:
    """The log of the clips names another file as a part, of the size and rows that it has."""

    def attack(place: Place) -> None:
        log = place.theirs / CLIPS / "_delta_log" / f"{0:020}.json"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            if "add" in line:
                line["add"]["path"] = name(place)
                line["add"]["size"] = place.part(place.mine).stat().st_size
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return attack


def name_in_index(name: Callable[[Place], str]) -> Callable[[Place], None]:
    def attack(place: Place) -> None:
        path = place.theirs / "exports" / EXPORT / "index.parquet"
        index = pq.read_table(path)
        shards = [shard and name(place) for shard in index["shard"].to_pylist()]
        at = index.schema.get_field_index("shard")
        pq.write_table(index.set_column(at, index.schema.field(at), pa.array(shards, pa.string())), path)

    return attack


def linked(at: Callable[[Place], Path], to: Callable[[Place], Path], *, hard: bool = False) -> Callable[[Place], None]:
    return lambda place: swap(at(place), to(place), hard=hard)


def folder_at(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def file_at(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def of_table(name: str, table: str = CLIPS) -> Callable[[Place], Path]:
    return lambda place: place.theirs / table / name


def of_export(name: str) -> Callable[[Place], Path]:
    return lambda place: place.theirs / "exports" / EXPORT / name


def relative_part(place: Place) -> str:
    return os.path.relpath(place.part(place.mine), place.theirs / CLIPS)


def their_part(place: Place) -> Path:
    return place.part(place.theirs)


def my_part(place: Place) -> Path:
    return place.part(place.mine)


def my_shard(place: Place) -> Path:
    return place.mine / "exports" / EXPORT / SHARD


def key(place: Place) -> Path:
    return place.key


READ = {  # what shows rows of others
    "a part is a link": linked(their_part, my_part),
    "a table is a link": linked(lambda p: p.theirs / CLIPS, lambda p: p.mine / CLIPS),
    "the runs are a link": linked(lambda p: p.theirs / "runs", lambda p: p.mine / "runs"),
    "a group of tables is a link": linked(lambda p: p.theirs / "clips", lambda p: p.mine / "clips"),
    "a log is a link": linked(of_table("_delta_log"), lambda p: p.mine / CLIPS / "_delta_log"),
    "a commit is a link": linked(
        of_table(f"_delta_log/{1:020}.json"), lambda p: p.mine / CLIPS / "_delta_log" / f"{0:020}.json"
    ),
    "a log goes up": name_in_log(relative_part),
    "a log goes up, escaped": name_in_log(lambda p: relative_part(p).replace("..", "%2E%2E")),
    "a log names a path": name_in_log(lambda p: str(my_part(p))),
    "a log names a URL": name_in_log(lambda p: f"file://{my_part(p)}"),
    "a log goes down and up": name_in_log(lambda p: f"part-{0:032}.parquet/../{relative_part(p)}"),
    "an export is a link": linked(lambda p: p.theirs / "exports" / EXPORT, lambda p: p.mine / "exports" / EXPORT),
    "all exports are a link": linked(lambda p: p.theirs / "exports", lambda p: p.mine / "exports"),
    "an index is a link": linked(of_export("index.parquet"), lambda p: p.mine / "exports" / EXPORT / "index.parquet"),
    "the shards' folder is a link": linked(of_export("data"), lambda p: p.mine / "exports" / EXPORT / "data"),
    "a shard is a link": linked(of_export(SHARD), my_shard),
    "an index goes up": name_in_index(lambda p: os.path.relpath(my_shard(p), p.theirs / "exports" / EXPORT)),
    "an index goes down and up": name_in_index(
        lambda p: f"data/../{os.path.relpath(my_shard(p), p.theirs / 'exports' / EXPORT)}"
    ),
    "an index names a path": name_in_index(lambda p: str(my_shard(p))),
    "a manifest is a link": linked(of_export("export.json"), key),
    "the marker is a link": linked(lambda p: p.theirs / "dataset.json", key),
}
WAIT = {  # what keeps a reader waiting
    "a part is a pipe": lambda p: pipe(their_part(p)),
    "a commit is a pipe": lambda p: pipe(p.theirs / CLIPS / "_delta_log" / f"{1:020}.json"),
    "a commit of another table is a pipe": lambda p: pipe(p.theirs / SCORES / "_delta_log" / f"{0:020}.json"),
    "an index is a pipe": lambda p: pipe(of_export("index.parquet")(p)),
    "a shard is a pipe": lambda p: pipe(of_export(SHARD)(p)),
    "the marker is a pipe": lambda p: pipe(p.theirs / "dataset.json"),
}
ODD = {  # folders and files in place of one another: refused in one line too
    "a part is a folder": lambda p: folder_at(their_part(p)),
    "a shard is a folder": lambda p: folder_at(of_export(SHARD)(p)),
    "a commit is a folder": lambda p: folder_at(of_table(f"_delta_log/{1:020}.json")(p)),
    "a log is a file": lambda p: file_at(of_table("_delta_log")(p)),
    "the exports are a file": lambda p: file_at(p.theirs / "exports"),
}
WRITE = {  # what sends a writer or a remover elsewhere
    "the lock is a link": linked(lambda p: p.theirs / ".lock", key),
    "the lock is a link to nothing": linked(lambda p: p.theirs / ".lock", lambda p: p.outside / "new"),
    "the lock is a hard link": linked(lambda p: p.theirs / ".lock", key, hard=True),
    "the lock is a pipe": lambda p: pipe(p.theirs / ".lock"),
    "a staging folder is a link": linked(lambda p: p.theirs / "exports" / ".staging-x", lambda p: p.mine),
    "a staging folder holds a link": linked(lambda p: p.theirs / "exports" / ".staging-x" / "data", lambda p: p.mine),
    "litter is a link": linked(of_table("x.tmp"), my_part),
    "litter is a link to a folder": linked(of_table("_delta_log/x.json.tmp"), lambda p: p.mine / CLIPS),
    "litter beside the tables is a link": linked(lambda p: p.theirs / "x.tmp", lambda p: p.mine),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "verify": (),
    "gc": (),
    "withdraw": ("b",),
    "sql": ("select source_id from clips union all select exported_source_id from export_main",),
}


@pytest.mark.parametrize(
    ("attack", "command"),
    [
        *((attack, command) for attack in (*READ, *WAIT) for command in COMMANDS),
        *((attack, command) for attack in ODD for command in ("verify", "withdraw")),
        *((attack, command) for attack in WRITE for command in ("gc", "withdraw")),
    ],
)
def test_nothing_outside_a_dataset_is_changed_or_shown(
    place: Place, dailies: Dailies, attack: str, command: str
) -> None:
    (READ | WAIT | ODD | WRITE)[attack](place)
    before = state(place.outside)
    done = dailies(command, place.theirs, *COMMANDS[command])
    assert state(place.outside) == before
    said = done.stdout + done.stderr
    assert "mysecret" not in said
    assert "PRIVATE KEY" not in said
    assert "Traceback" not in said
    if command == "verify":
        assert done.returncode in (1, 2), said
    if done.returncode == 2 or (command != "verify" and done.returncode):
        assert len(done.stderr.strip().splitlines()) == 1, "one line"


@pytest.mark.parametrize("attack", ["the lock is a link", "the lock is a hard link", "the runs are a link"])
def test_a_run_writes_nothing_outside(place: Place, small_world: Path, dailies: Dailies, attack: str) -> None:
    (READ | WRITE)[attack](place)
    before = state(place.outside)
    video = sorted(small_world.glob("*.mp4"))[0]
    done = dailies("curate", video, "--out", place.theirs, "--recipe", "quickstart", "--engine", "local")
    assert state(place.outside) == before
    assert done.returncode, done.stdout
    assert "is a link" in done.stderr or "hard link" in done.stderr, done.stderr


def test_a_dataset_that_the_user_names_may_be_a_link(place: Place, dailies: Dailies) -> None:
    (place.theirs.parent / "named").symlink_to(place.theirs)
    for command, arguments in COMMANDS.items():
        done = dailies(command, place.theirs.parent / "named", *arguments)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize("attack", [name for name in READ if "export" in name or "index" in name or "shard" in name])
def test_an_export_is_withdrawn_from_in_its_own_folder(place: Place, attack: str) -> None:
    READ[attack](place)
    before = state(place.outside)
    if attack not in ("a shard is a link", "a manifest is a link"):
        with pytest.raises(Unsafe):
            withdraw_from_export(Folder.at(place.theirs) / "exports" / EXPORT, ["b", "mysecret"])
    assert state(place.outside) == before


@pytest.mark.parametrize("name", ["index.parquet", "export.json", "data/deeper/x.parquet", "data/.x.parquet", "data/x"])
def test_an_index_names_shards_alone(place: Place, name: str) -> None:
    """What it calls a shard is rewritten and deleted."""
    name_in_index(lambda place: name)(place)
    before = state(place.theirs)
    for command in (lambda: withdraw_from_export(Folder.at(place.theirs) / "exports" / EXPORT, ["b"]), gc_of(place)):
        with pytest.raises(Unsafe, match="which is no shard"):
            command()
    assert {path: was for path, was in state(place.theirs).items() if path != ".lock"} == before


def gc_of(place: Place) -> Callable[[], object]:
    return lambda: DatasetTables.open(place.theirs).gc()


def test_workers_write_and_read_parts_in_their_table_alone(place: Place) -> None:
    """They get a table's URL, and open no log."""
    row, shape = [{"clip_id": "x"}], pa.schema([("clip_id", pa.string()), ("source_id", pa.string())])
    swap(place.theirs / CLIPS, place.mine / CLIPS)
    before = state(place.outside)
    with pytest.raises(Unsafe, match="is a link"):
        write_part(place.theirs / CLIPS, shape, row)
    for name in (my_part(place).name, "../x.parquet", "x.parquet"):
        with pytest.raises(Unsafe):
            list(read_part(f"{place.theirs / CLIPS}/{name}", ["source_id"], source_ids=["mysecret"]))
    assert state(place.outside) == before


def test_a_folder_that_a_program_names_is_no_link(place: Place) -> None:
    """As the staging folder is, beside the one that the user named."""
    (place.theirs / ".staging-x").symlink_to(place.mine)
    before = state(place.outside)
    with pytest.raises(Unsafe, match="is a link"):
        Folder.beneath(place.theirs / ".staging-x").write("data/x", b"x")
    with pytest.raises(Unsafe, match="is a link"):
        Folder.beneath(place.theirs / ".staging-x").list()
    (place.theirs / ".staging-x").unlink()
    staging = Folder.beneath(place.theirs / ".staging-x")
    staging.write("data/x", b"x")
    (place.theirs / ".staging-x" / "data" / "y").symlink_to(place.key)
    with pytest.raises(Unsafe, match="is a link"):
        staging.publish(Folder.at(place.theirs / "final"), without=(), last=("data/x",))
    assert state(place.outside) == before


# ---- the one way ----------------------------------------------------------------------------------------------------

NAMES = ["../key.pem", "/etc/passwd", "a/../../key.pem", "a//b", "./a", "a/.", "", "a\\b", "a\nb", "a\x00b", ".."]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_lies_in_the_folder(place: Place, name: str) -> None:
    folder, before = Folder.at(place.theirs), state(place.outside)
    for act in (folder.file, folder.read, folder.holds, folder.delete, folder.__truediv__):
        with pytest.raises(Unsafe):
            act(name)
    with pytest.raises(Unsafe):
        folder.write(name, b"x")
    with pytest.raises(Unsafe):
        inside.remove_tree(place.theirs, name)
    assert state(place.outside) == before


@pytest.mark.parametrize("at", ["link", "folder/link", "linked/key.pem", "linked/new/deeper"])
def test_no_way_leads_through_a_link(place: Place, at: str) -> None:
    (place.theirs / "folder").mkdir()
    (place.theirs / "link").symlink_to(place.key)
    (place.theirs / "folder" / "link").symlink_to(place.key)
    (place.theirs / "linked").symlink_to(place.outside)
    folder, before = Folder.at(place.theirs), state(place.outside)
    for act in (folder.file, folder.read, folder.holds):
        with pytest.raises(Unsafe, match="is a link"):
            act(at)
    if at.startswith("linked/"):
        for change in (folder.delete, lambda name: folder.write(name, b"x"), folder.delete_tree):
            with pytest.raises(Unsafe, match="is a link"):
                change(at)
        with pytest.raises(Unsafe, match="is a link"):
            (folder / "linked").list()
    else:
        with pytest.raises(Unsafe, match="is a link"):
            folder.write(at, b"x")
        folder.delete(at)  # of a link, the link goes
        folder.write(at, b"x")
        assert folder.read(at) == b"x"
    assert state(place.outside) == before
    assert all("key.pem" not in info.path for info in folder.list(recursive=True))


def test_what_is_written_to_has_no_other_name(place: Place) -> None:
    os.link(place.key, place.theirs / "log")
    assert inside.read_bytes(place.theirs, "log") == SECRET, "copies made of links are there to be read"
    for flags in (os.O_WRONLY | os.O_APPEND, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        with pytest.raises(Unsafe, match="hard link"):
            inside.open_inside(place.theirs, "log", flags)
    assert place.key.read_bytes() == SECRET


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with pytest.raises((Unsafe, IsADirectoryError)):
            inside.open_inside(tmp_path, "odd", flags)


def test_unfinished_files_have_names_that_nobody_plants(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By process and name they could be guessed; what others put there is neither written to nor removed."""
    from dailies.curation import atomic

    monkeypatch.setattr("secrets.token_hex", lambda size: "0")
    before = state(place.outside)
    (place.theirs / f".x.{os.getpid()}-0.tmp").symlink_to(place.key)
    (place.theirs / f"{atomic.PART}{os.getpid()}-0-y").symlink_to(place.key)
    with pytest.raises(Unsafe, match="is a link"):
        Folder.at(place.theirs).write("x", b"x")
    with pytest.raises(FileExistsError):
        atomic.write_text(place.theirs / "y", "x")
    with pytest.raises(FileExistsError), atomic.new_folder(place.theirs / "y"):
        pass
    assert state(place.outside) == before


def test_a_folder_that_is_replaced_is_never_what_a_link_stands_for(place: Place) -> None:
    from dailies.curation import atomic

    before = state(place.outside)
    (place.theirs / "result").symlink_to(place.mine)
    with atomic.new_folder(place.theirs / "result") as hidden:
        (hidden / "x").touch()
    assert [path.name for path in (place.theirs / "result").iterdir()] == ["x"]
    assert state(place.outside) == before


def test_a_lock_says_what_it_is(place: Place) -> None:
    swap(place.theirs / ".lock", place.key)
    with (
        pytest.raises(DatasetError, match=r"cannot be locked: .*/\.lock: is a link"),
        DatasetTables.open(place.theirs).writer(),
    ):
        pass


def test_a_folder_is_listed_again_once_it_changes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "SETTLED", -1)  # as if it were long ago
    known = inside.refuse_links(place.theirs, CLIPS)
    assert known is not None
    assert inside.refuse_links(place.theirs, CLIPS, known) == known
    swap(their_part(place), my_part(place))
    with pytest.raises(Unsafe, match="is a link"):
        inside.refuse_links(place.theirs, CLIPS, known)
