"""What is small on the disk and vast in memory is refused in one line, or costs its row, and takes little of either."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from dailies.curation import parquet_files, pictures
from dailies.curation.config import read_json, read_yaml
from dailies.curation.errors import Damaged, ExportError, RecipeError, Unreadable, UsageError
from dailies.curation.parquet_files import open_parquet
from dailies.curation.table_files import read_rows
from dailies.pipelines import maintenance
from dailies.training.data.pictures import parquet_pictures
from tests.conftest import Dailies

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
    assert len(done.stderr.strip().splitlines()) == 1
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
