"""What is small on the disk and vast in memory is refused in one line, or costs its row, and takes little of either."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from dailies.curation import inside, parquet_files, pictures, schema
from dailies.curation.config import read_json, read_yaml
from dailies.curation.errors import Damaged, ExportError, ModelError, RecipeError, Unreadable, Unsafe, UsageError
from dailies.curation.model_folders import refuse_code
from dailies.curation.parquet_files import open_parquet
from dailies.curation.table_files import read_rows
from dailies.curation.tables import DatasetTables, query
from dailies.curation.video import pixels
from dailies.pipelines import maintenance
from dailies.training.data.manifest import read_manifest
from dailies.training.data.pictures import folder_pictures, parquet_pictures
from dailies.training.run_log import read_record
from dailies.zoo.formats import safetensors_info
from dailies.zoo.formats.components import load_text_model
from dailies.zoo.formats.references import BUILTIN
from dailies.zoo.run_record import RunRecord
from tests import dataset_builder
from tests.conftest import Dailies
from tests.security.outside import pipe, ringing

LISTING = re.compile(r"list +sources +\d+:\d\d")  # progress, where reading takes seconds
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 20))
YAML = {
    "aliases": (ALIASES, "aliases written out"),
    "merges": (MERGES, "aliases written out"),
    "depth": ("[" * 50_000, "nested too deep"),
    "a circle": ("a: &a [*a]", "holds itself"),
    "digits": (f"a: {'9' * 5000}", "is not YAML"),
    "sixties": (f"a: {':'.join(['1'] * 100_000)}", "is not YAML"),
    "length": ("x" * (2 << 20), "characters; the most is"),
    "an object": ("!!python/object/apply:os.system [id]", "is not YAML"),
}


@pytest.mark.parametrize(("text", "reason"), YAML.values(), ids=YAML.keys())
def test_yaml_that_stands_for_more_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe mine.yaml .*{reason}") as caught:
        read_yaml(text, "recipe mine.yaml")
    assert "\n" not in str(caught.value)


def test_a_recipe_of_aliases_is_one_line(tmp_path: Path, dailies: Dailies) -> None:
    (tmp_path / "mine.yaml").write_text(ALIASES)
    done = dailies("curate", tmp_path, "--out", tmp_path / "out", "--recipe", tmp_path / "mine.yaml")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "aliases written out" in done.stderr


def test_aliases_that_people_use_are_read() -> None:
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", "recipe") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }
    assert read_yaml("", "recipe") is None


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "\xff", '{"a": 1'])
def test_json_that_cannot_be_read_is_damage(text: str) -> None:
    with pytest.raises(Damaged, match=r"model\.json is not JSON") as caught:
        read_json(text.encode("latin-1"), "model.json", Damaged)
    assert "\n" not in str(caught.value)


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _repeated(file: Path, column: str, value: str | bytes, rows: int = 50_000, **others: str) -> Path:
    """Write a table whose one long value is in a dictionary once."""
    numbers = pa.array(np.zeros(rows, np.int32))
    columns = {column: pa.DictionaryArray.from_arrays(numbers, pa.array([value]))}
    columns |= {name: pa.DictionaryArray.from_arrays(numbers, pa.array([text])) for name, text in others.items()}
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False)
    return file


def _zeros(path: Path, column: str, rows: int) -> Path:
    kind = pa.array(np.zeros(1 << 20, np.int64))
    with pq.ParquetWriter(path, pa.schema([(column, pa.int64())]), use_dictionary=False, compression="zstd") as writer:
        for _ in range(rows >> 20):
            writer.write_table(pa.table({column: kind}))
    return path


def _peak_grows_by(work: Callable[[], object]) -> int:
    """Return MB by which this process's largest size grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def test_a_footer_that_claims_more_than_its_file_may_is_refused(tmp_path: Path) -> None:
    path = _zeros(tmp_path / "zeros.parquet", "path", 40 << 20)
    assert path.stat().st_size < 250_000
    with pytest.raises(pa.ArrowInvalid, match=r"its footer claims 41,943,040 rows in a file of"):
        open_parquet(path)
    with pytest.raises(UsageError, match=r"zeros\.parquet: cannot be read: its footer claims") as caught:
        list(read_rows(path))
    assert "\n" not in str(caught.value)


def test_a_text_that_a_dictionary_repeats_ends_a_manifest_in_one_line(tmp_path: Path, dailies: Dailies) -> None:
    path = _repeated(tmp_path / "videos.parquet", "caption", "x" * 1_000_000, path="a.mp4")
    assert path.stat().st_size < 10_000, "it stands for 50 GB"

    def read() -> None:
        with pytest.raises(UsageError, match=r"videos\.parquet: cannot be read: its row group 0 comes to over"):
            list(read_rows(path))

    assert _peak_grows_by(read) < 1500
    done = dailies("curate", path, "--out", tmp_path / "out")
    assert done.returncode == 2
    lines = [line for line in done.stderr.strip().splitlines() if not LISTING.fullmatch(line)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("dailies: manifest ")
    assert not (tmp_path / "out").exists()


def test_a_table_of_pictures_that_repeats_a_text_or_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "MOST_GROUP", 256 << 20)
    long = _repeated(tmp_path / "text.parquet", "text", "x" * 1_000_000, image="p")
    with pytest.raises(ExportError, match=r"text\.parquet cannot be read: its row group 0 comes to over"):
        parquet_pictures(long, (64, 64))
    many = _repeated(tmp_path / "image.parquet", "image", b"\xff" * 1_000_000, text="t")
    opened = parquet_pictures(many, (64, 64))
    with pytest.raises(Unreadable, match=r"image\.parquet, row group 0: its row group 0 comes to over"):
        opened.frames(0, 0, 1)


def test_tables_that_people_have_are_read_whole(tmp_path: Path) -> None:
    rows = 5000
    texts = [f"{n} " + "word " * (n % 400) for n in range(rows)]
    pq.write_table(pa.table({"path": [f"{n}.mp4" for n in range(rows)], "caption": texts}), tmp_path / "t.parquet")
    assert [row.values["caption"] for row in read_rows(tmp_path / "t.parquet")] == texts


# ---- pictures -------------------------------------------------------------------------------------------------------


def _png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _texts_png(kind: str) -> bytes:
    """Return a picture of 4 x 4 px with a text of 400 MB in it, deflated to 400 kB, or with 70 of 1 MB."""
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for _ in range(1 if kind == "one" else 70):
        info.add_text("comment", "x" * (400_000_000 if kind == "one" else 1_000_000), zip=True)
    Image.new("RGB", (4, 4)).save(file, "png", pnginfo=info)
    return file.getvalue()


def test_a_picture_over_the_size_is_refused_before_it_is_decoded() -> None:
    for size in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (9_400, 9_500)):
        with pytest.raises(Unreadable, match=r"px"):
            pictures.open_picture(_png(*size))


@pytest.mark.parametrize("kind", ["one", "many"])
def test_texts_in_a_png_are_bounded(kind: str) -> None:
    data = _texts_png(kind)
    assert len(data) < 500_000

    def read() -> None:
        with pytest.raises(Unreadable):
            pictures.open_picture(data)

    assert _peak_grows_by(read) < 200


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n%%EOF\n"


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has Ghostscript run PostScript, whatever the file is called."""
    from PIL import EpsImagePlugin

    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/mark\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "a.png").write_bytes(EPS)
    for data in (EPS, tmp_path / "a.png"):
        with pytest.raises(Unreadable, match="no picture in a format"):
            pictures.open_picture(data)
    with pytest.raises(OSError, match="cannot identify"):
        pictures.opened(EPS)
    assert not (tmp_path / "mark").exists()


def test_evidence_is_a_jpeg_of_a_size(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (64, 48), 7).save(file, "jpeg")
    sound = file.getvalue()
    assert pixels.unjpeg(sound).shape == (48, 64, 3)
    at = sound.index(b"\xff\xc0")
    vast = sound[: at + 5] + struct.pack(">HH", 30_000, 30_000) + sound[at + 9 :]
    with pytest.raises(Unreadable, match="900,000,000 px"):
        pixels.unjpeg(vast)
    for other in (b"", b"\xff", _png(64, 48, bytes(48 * 193)), sound[:at], b"\xff\xd8" + b"\xff" * 100):
        with pytest.raises(Unreadable, match="not a JPEG"):
            pixels.unjpeg(other)


# ---- videos ---------------------------------------------------------------------------------------------------------


def test_verify_decodes_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip of a few kilobytes that decodes to gigabytes is a problem of the export, not the end of ``verify``."""
    from dailies.curation.tables import DatasetTables
    from tests import dataset_builder

    bomb = io.BytesIO()
    with av.open(bomb, "w", format="mov") as container:
        stream = container.add_stream("png", rate=5)
        stream.width, stream.height, stream.pix_fmt = 12_000, 12_000, "gray"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((12_000, 12_000), number, np.uint8), "gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(bomb.getvalue()) < 1_000_000
    dataset = DatasetTables.create(tmp_path / "dataset")
    dataset_builder.fill(dataset, ["a"])
    folder = dataset.folder / "exports" / "main@1"
    clips = [{**clip, "video": bomb.getvalue()} for clip in dataset_builder.clips_of("a")]
    dataset_builder.export(folder, clips, shards=1)
    whole = [str(problem) for problem in maintenance.verify_dataset(dataset.url, deep=True)]
    assert not [problem for problem in whole if "packets" in problem], "it is a video"
    monkeypatch.setattr(maintenance, "MEMORY_GB", 0.7)
    problems = [str(problem) for problem in maintenance.verify_dataset(dataset.url, deep=True)]
    assert len([problem for problem in problems if "of 3 packets do not decode" in problem]) == 2, problems


@pytest.mark.parametrize("command", [["verify"], ["withdraw", "a"], ["sql", "select * from export_main"]])
def test_an_index_that_claims_more_than_it_may_is_one_line(
    tmp_path: Path, dailies: Dailies, command: list[str]
) -> None:
    from dailies.curation.tables import DatasetTables
    from tests import dataset_builder

    dataset = DatasetTables.create(tmp_path / "dataset")
    dataset_builder.fill(dataset, ["a"])
    _zeros(Path(dataset.folder.path) / "exports" / dataset_builder.EXPORT / "index.parquet", "shard", 40 << 20)
    done = dailies(command[0], dataset.url, *command[1:])
    said = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode in (1, 2)
    assert any("index.parquet" in line and "its footer claims" in line for line in said), said
    assert "Traceback" not in done.stderr


def test_a_shard_that_claims_more_than_it_may_is_refused_by_training(tmp_path: Path) -> None:
    from dailies.training.data.export import Export

    (tmp_path / "data").mkdir()
    _zeros(tmp_path / "data" / "train-00000-of-00001.parquet", "clip_id", 40 << 20)
    with pytest.raises(ExportError, match=r"data/train-00000-of-00001\.parquet cannot be read: its footer claims"):
        Export(tmp_path)


# ---- files with holes, pipes and depth ----


def hole(path: Path, begin: bytes = b"") -> Path:
    """Write a file of 100 GB that takes no room."""
    path.write_bytes(begin)
    with path.open("ab") as file:
        file.truncate(100 << 30)
    return path


TEXTS = {
    "t.csv": b"path,caption\na.mp4,",
    "u.csv": b"path",
    "t.tsv": b"path\na",
    "t.txt": b"a.mp4",
    "t.jsonl": b'{"path": "',
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_line_without_end_is_one_line(name: str, tmp_path: Path) -> None:
    path = hole(tmp_path / name, TEXTS[name])

    def read() -> None:
        with pytest.raises(UsageError, match=r"characters|field larger than field limit") as caught:
            list(read_rows(path))
        assert "\n" not in str(caught.value)

    assert _peak_grows_by(read) < 1500


@pytest.mark.parametrize("depth", [900, 960, 990, 100_000])
def test_rows_that_are_nested_too_deep_are_one_line(depth: int, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"path": "a.mp4", "a": ' + "[" * depth + "]" * depth + "}")
    with contextlib.suppress(UsageError):
        list(read_rows(tmp_path / "t.jsonl"))


def test_columns_that_are_named_twice_are_found_at_once(tmp_path: Path) -> None:
    names = ",".join(f"c{n}" for n in range(200_000))
    (tmp_path / "t.csv").write_text(f"{names},c7\n")
    (tmp_path / "t.jsonl").write_text("{" + ",".join(f'"c{n}": 1' for n in range(200_000)) + ', "c7": 1}')
    with ringing(20):
        for name in ("t.csv", "t.jsonl"):
            with pytest.raises(UsageError, match="'c7'"):
                list(read_rows(tmp_path / name))


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t.jsonl", "t.parquet"])
def test_a_table_is_a_file(name: str, tmp_path: Path) -> None:
    pipe(tmp_path / name)
    with ringing(20), pytest.raises(UsageError, match="is not a file"):
        list(read_rows(tmp_path / name))


def test_captions_and_pictures_are_files_of_a_size(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for make in (hole, pipe):
        make(tmp_path / "a.txt")
        with ringing(20), pytest.raises(ExportError, match=r"no caption"):
            folder_pictures(tmp_path, (64, 64))
        (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").write_text("a ball")
    found = folder_pictures(tmp_path, (64, 64))
    hole(tmp_path / "a.png", (tmp_path / "a.png").read_bytes())
    with pytest.raises(Unreadable, match="is over 1024 MB"):
        found.frames(0, 0, 1)


def test_what_is_read_at_once_has_a_size(tmp_path: Path) -> None:
    hole(tmp_path / "run.json", b"{")
    for read in (
        lambda: inside.read_bytes(tmp_path, "run.json"),
        lambda: inside.read_named(tmp_path / "run.json"),
        lambda: RunRecord.read(tmp_path),
        lambda: read_record(tmp_path / "run.json"),
    ):
        with pytest.raises(Unsafe, match=r"run\.json: is over 64 MB"):
            read()
    for name in ("latents.json", "model.json"):
        hole(tmp_path / name)
    with pytest.raises(Unsafe, match=r"latents\.json: is over 64 MB"):
        read_manifest(tmp_path)


def test_folders_in_folders_without_end(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    try:
        for look in (lambda: list(inside.walk(tmp_path)), lambda: refuse_code(tmp_path)):
            with pytest.raises(Unsafe, match="over 64 folders deep"):
                look()
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


# ---- tables ----


def _table(tmp_path: Path) -> DatasetTables:
    dataset = DatasetTables.create(tmp_path / "dataset")
    dataset_builder.fill(dataset, ["a"])
    return dataset


def _part(dataset: DatasetTables) -> Path:
    return sorted((Path(dataset.folder.path) / dataset_builder.CLIPS).glob("part-*.parquet"))[0]


def _repeat_texts(part: Path) -> None:
    """Put 50,000 rows of 1 MB into a part of a few kB."""
    columns, rows = pq.read_schema(part), 50_000
    zeros = pa.array(np.zeros(rows, np.int32))
    text = pa.array(["x" * 1_000_000])
    long = [column.name for column in columns if pa.types.is_string(column.type)][:1]
    arrays = [
        pa.DictionaryArray.from_arrays(zeros, text) if column.name in long else pa.nulls(rows, column.type)
        for column in columns
    ]
    pq.write_table(pa.table(arrays, names=columns.names), part, compression="zstd", store_schema=False)


def test_a_part_of_a_table_that_comes_to_more_than_it_may(tmp_path: Path) -> None:
    """What scans a table counts nothing, and DuckDB does not count what Arrow takes."""
    dataset = _table(tmp_path)
    part = _part(dataset)
    sound = part.read_bytes()
    _repeat_texts(part)
    assert part.stat().st_size < 100_000
    reason = "row group 0 comes to over"

    def read() -> None:
        fresh = DatasetTables.open(dataset.url)
        for work in (
            lambda: query(fresh, "select * from clips"),
            lambda: fresh.table(dataset_builder.CLIPS).read(),
            lambda: list(fresh.table(dataset_builder.CLIPS).batches()),
            lambda: fresh.table(dataset_builder.CLIPS).delete(["a"]),
        ):
            with pytest.raises(Damaged, match=reason):
                work()

    assert _peak_grows_by(read) < 1000
    part.write_bytes(sound)
    assert query(DatasetTables.open(dataset.url), "select * from clips").num_rows


def test_a_part_with_bounds_of_its_key_is_held_against_what_it_comes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = DatasetTables.create(tmp_path / "dataset")
    columns = schema.scores([schema.field("said", pa.string(), "A text.")])
    base = {**schema.empty_row(columns), "source_id": "s", "status": "ok", "said": "x" * 1000}
    dataset.table("captions/x@ab", columns).append([{**base, "clip_id": f"c{n:04}"} for n in range(3000)])
    monkeypatch.setattr(parquet_files, "MOST_GROUP", 1 << 20)
    monkeypatch.setattr(parquet_files, "MOST_RATIO", 0)
    table = dataset.table("captions/x@ab")
    assert "min.clip_id" in table.log.parts(table.log.open()).column_names
    for read in (table.read, table.keys, lambda: list(table.batches(["said"])), lambda: table.located(["said"])):
        with pytest.raises(Damaged, match="row group 0 comes to over"):
            read()
    assert table.arrow(bounded=True).count_rows() == 3000


def test_lengths_are_added_up_without_writing_the_values_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested ones too; and texts that people have stay, in a dictionary or not."""
    monkeypatch.setattr(parquet_files, "MOST_GROUP", 10 << 20)
    monkeypatch.setattr(parquet_files, "MOST_RATIO", 0)
    path = tmp_path / "t.parquet"

    def write(text: str, rows: int, **options: Any) -> None:
        texts = pa.array([text] * rows)
        nested = pa.array([[{"a": text}]] * rows, pa.list_(pa.struct([("a", pa.string())])))
        for name, values in (("plain", texts), ("nested", nested)):
            pq.write_table(pa.table({name: values}), tmp_path / f"{name}.parquet", **options)

    for text, rows, good in (("x" * 1000, 5000, True), ("x" * 1000, 20_000, False)):
        write(text, rows)
        for name in ("plain", "nested"):
            path = tmp_path / f"{name}.parquet"
            parquet_files.open_parquet(path).close()
            if good:
                parquet_files.open_parquet(path, whole=True).close()
            else:
                with pytest.raises(pa.ArrowInvalid, match="row group 0 comes to over"):
                    parquet_files.open_parquet(path, whole=True)
    write("x" * 1000, 20_000, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    with pytest.raises(pa.ArrowInvalid, match="row group 0 comes to over"):
        parquet_files.open_parquet(tmp_path / "plain.parquet", whole=True)


def test_a_list_without_end_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "MOST_VALUES", 8 << 20)
    values = pa.ListArray.from_arrays([0, 8 << 20], pa.array(np.zeros(8 << 20, np.int64)))
    pq.write_table(pa.table({"a": values}), tmp_path / "t.parquet", compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    with pytest.raises(pa.ArrowInvalid, match="its footer claims 8,388,608 values"):
        open_parquet(tmp_path / "t.parquet")


def test_a_log_has_a_size(tmp_path: Path) -> None:
    dataset = _table(tmp_path)
    hole(Path(dataset.folder.path) / dataset_builder.CLIPS / "_delta_log" / "_last_checkpoint")
    with pytest.raises(Unsafe, match="_last_checkpoint: is over 1024 MB"):
        query(DatasetTables.open(dataset.url), "select * from clips")


# ---- models ----


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("num_hidden_layers", 10**6), ("vocab_size", 10**8), ("hidden_size", 10**12), ("intermediate_size", 10**8)),
        *(("max_position_embeddings", 10**9), ("hidden_size", "x"), ("hidden_size", -5), ("hidden_act", "os.system")),
        ("num_attention_heads", 0),
    ],
)
def test_a_model_is_no_larger_than_its_weights(key: str, value: Any, tmp_path: Path) -> None:
    """transformers makes what the settings say before it sees that the weights are others."""
    folder = tmp_path / "clip"
    shutil.copytree(BUILTIN / "clip-world", folder)
    row = json.loads((folder / "config.json").read_text())
    row["text_config"][key] = value
    (folder / "config.json").write_text(json.dumps(row))

    def load() -> None:
        with ringing(120), pytest.raises((Damaged, ModelError)) as caught:
            load_text_model(folder)
        assert "\n" not in str(caught.value)

    assert _peak_grows_by(load) < 500


def test_the_numbers_that_models_have_are_allowed(tmp_path: Path) -> None:
    config = {
        "block_out_channels": [320, 640, 1280, 1280],
        "vocab_size": 262_144,
        "rope_theta": 1e7,
        "layers_per_block": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": 96, "max_position_embeddings": 1 << 20}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 10**11}, "weight_map": {}})
    )
    refuse_code(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "config.json", "x.safetensors"]
)
@pytest.mark.parametrize(
    "make", [hole, pipe, lambda path: path.symlink_to("/dev/zero")], ids=["hole", "pipe", "device"]
)
def test_words_and_settings_are_files_of_a_size(name: str, make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / name)
    if name.endswith(".safetensors") and make is hole:
        return
    with ringing(20), pytest.raises(Damaged, match=r"is over|is not a file"):
        refuse_code(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[]",
        b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 4611686018427387904], "data_offsets": [0, 0]}}',
    ],
)
@pytest.mark.parametrize("length", [None, 1 << 60])
def test_weights_whose_header_claims_anything_are_one_line(header: bytes, length: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(BUILTIN / "clip-world", folder)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length or len(header)) + header)
    with pytest.raises(ModelError, match="does not load as CLIPTextModel"):
        load_text_model(folder)
    if length or b"dtype" not in header:
        with pytest.raises(Damaged):
            safetensors_info.size(folder)


def test_json_of_others_is_parsed_in_one_place() -> None:
    """Which knows of depth, of numbers without end and of what is no object. Elsewhere is what this program wrote itself."""
    root = Path(parquet_files.__file__).parents[1]
    found = {
        str(path.relative_to(root))
        for room in ("curation", "pipelines", "training", "zoo")
        for path in (root / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if "json.loads(" in line and "json.loads(json.dumps(" not in line
    }
    assert found == {
        "curation/addresses.py",  # what cannot be parsed is text
        "curation/policy.py",  # from the parent process
        "curation/chat/completions.py",  # whose faults are replies
        "curation/chat/vllm_chat.py",  # rows of its own
        "curation/config.py",
        "curation/table_files.py",  # with rows named
        "pipelines/answers.py",  # with its own limits
        "pipelines/engine.py",
        "pipelines/relay.py",  # from workers of its own
        "pipelines/run_rows.py",
        "pipelines/workers.py",
        "training/models/vae/io.py",
        "zoo/formats/hashes.py",
    }
