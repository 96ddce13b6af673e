"""What exports, latents, pictures and models hold, told by their bytes and not by where they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dailies.curation import inside
from dailies.curation.errors import Unreadable, stopping_error
from dailies.curation.litter import is_litter, without_litter
from dailies.curation.video import content_id
from dailies.zoo.formats.clip_folders import processor_folder, tokenizer_folder
from dailies.zoo.formats.hashes import sha256_of

WHOLE = 1 << 20  # bytes of a column's chunk that are read whole; of a longer one as many as these, spread evenly
RANGE = 4096
MODEL_FILES = (
    ".safetensors",
    ".bin",
    ".json",
    ".txt",
    ".model",
    ".jinja",
)  # weights, settings, vocabularies, chat template


def shards_content(folder: str | Path, fs: pafs.FileSystem | None = None) -> str:
    """Return 24 hex digits over the shards ``data/*.parquet`` of ``folder``: their names, footers and columns.

    Chunks of columns up to 1 MiB, as captions and numbers have, are read whole; of longer ones, as videos have, 256
    ranges of 4 KiB, the first and the last among them. Copies elsewhere have the same digits.
    """
    fs = fs or pafs.LocalFileSystem()
    hasher = hashlib.blake2b(digest_size=12)
    listed = fs.get_file_info(pafs.FileSelector(f"{folder}/data"))
    shards = [info for info in listed if info.extension == "parquet" and not is_litter(info.base_name)]
    for info in sorted(shards, key=lambda info: str(info.base_name)):
        if isinstance(fs, pafs.LocalFileSystem):
            inside.inside(folder, f"data/{info.base_name}")
        with fs.open_input_file(info.path) as file:
            _add_shard(hasher, info.base_name, file)
    return hasher.hexdigest()


def tables_content(root: Path, files: Sequence[Path]) -> str:
    """Return 24 hex digits over Parquet ``files`` as ``shards_content`` reads them, by their names under ``root``, which
    may be the one file itself."""
    hasher = hashlib.blake2b(digest_size=12)
    for path in files:
        name = path.name if path == root else path.relative_to(root).as_posix()
        with pafs.LocalFileSystem().open_input_file(str(path)) as file:
            _add_shard(hasher, name, file)
    return hasher.hexdigest()


def pictures_content(root: Path, captions: Sequence[tuple[str, str]]) -> str:
    """Return 24 hex digits over the pictures under ``root``: their (name, caption), and bytes as ``content_id`` samples
    them."""
    hasher = hashlib.blake2b(digest_size=12)
    with ThreadPoolExecutor(8, thread_name_prefix="hash") as threads:
        digits = threads.map(_sampled, (root / name for name, _ in captions))
        for (name, caption), read in zip(captions, digits, strict=True):
            hasher.update((json.dumps([name, caption, read]) + "\n").encode())
    return hasher.hexdigest()


def _sampled(path: Path) -> str | None:
    """Return a file's content id, ``None`` where it cannot be read: training leaves that picture out."""
    try:
        return content_id(str(path))[0]
    except Unreadable as error:
        if isinstance(error.__cause__, Exception) and (stopping := stopping_error(error.__cause__)) is not None:
            raise stopping from error
        return None


def _add_shard(hasher: Any, name: str, file: pa.NativeFile) -> None:
    """Add a Parquet file's name, size, footer and what ``_ranges`` names of its columns."""
    size = file.size()
    hasher.update(f"{name} {size} ".encode())
    for start, length in _ranges(pq.read_metadata(file)):
        hasher.update(file.read_at(length, start))
    footer = int.from_bytes(file.read_at(4, size - 8), "little")
    hasher.update(file.read_at(footer, size - 8 - footer))


def _ranges(footer: pq.FileMetaData) -> list[tuple[int, int]]:
    """Return (start, length) in bytes of what is read of each column's chunks."""
    ranges = []
    for group in range(footer.num_row_groups):
        for number in range(footer.num_columns):
            column = footer.row_group(group).column(number)
            start, size = column.data_page_offset, column.total_compressed_size
            if column.has_dictionary_page:
                start = min(start, column.dictionary_page_offset)
            if size <= WHOLE:
                ranges.append((start, size))
                continue
            count = WHOLE // RANGE
            ranges += [(start + (size - RANGE) * part // (count - 1), RANGE) for part in range(count)]
    return ranges


def model_content(folder: str | Path) -> str:
    """Return the sha256 of a model's folder: its weights, configurations and vocabularies, whatever lies beside them.

    A tokenizer or an image processor in the folder next to it, where diffusers keeps them, counts too. Files that have not
    changed since they were last hashed are not read.
    """
    place, lines = Path(folder), []
    for role, part in (("", place), ("tokenizer/", tokenizer_folder(place)), ("processor/", processor_folder(place))):
        if role and part == place:
            continue
        files = [path for path in without_litter(part, "*") if path.is_file() and path.suffix in MODEL_FILES]
        hashes = sha256_of(part, {path.name: path for path in files})
        lines += [f"{digits} {role}{name}\n" for name, digits in hashes.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
