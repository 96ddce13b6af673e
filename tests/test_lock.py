"""The lock of a model's folder: a link is told from the file that it leads to, however alike they are."""

from __future__ import annotations

from pathlib import Path

from dailies.zoo.formats import lock


def test_a_link_to_the_very_bytes_is_no_file_of_the_folder(tmp_path: Path) -> None:
    """The hash and size agree: only that it is a link tells that its bytes may change without the folder."""
    folder, outside = tmp_path / "model", tmp_path / "outside"
    folder.mkdir()
    for place in (folder / "weights", outside):
        place.write_bytes(b"weights")
    lock.write(folder)
    assert lock.verify(folder) == []
    (folder / "weights").unlink()
    (folder / "weights").symlink_to(outside)
    for deep in (True, False):
        assert [(problem.path, problem.what) for problem in lock.verify(folder, deep=deep)] == [
            ("weights", "is a link, not a file")
        ]
