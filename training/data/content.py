"""What exports, latents and models hold, told by their bytes and not by where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dailies.curation.litter import is_litter, without_litter
from dailies.zoo.formats.clip_folders import processor_folder, tokenizer_folder
from dailies.zoo.formats.hashes import sha256_of

WHOLE = 1 << 20  # bytes of a column's chunk that are read whole; of a longer one as many as these, spread evenly
RANGE = 4096
MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")  # weights, configurations, vocabularies


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
        with fs.open_input_file(info.path) as file:
            size = file.size()
            hasher.update(f"{info.base_name} {size} ".encode())
            for start, length in _ranges(pq.read_metadata(file)):
                hasher.update(file.read_at(length, start))
            footer = int.from_bytes(file.read_at(4, size - 8), "little")
            hasher.update(file.read_at(footer, size - 8 - footer))
    return hasher.hexdigest()


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
