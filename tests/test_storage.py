"""Files appear whole or not at all, and nothing is left of one that failed."""

import shutil
from pathlib import Path

import pytest

from pipeline.storage import whole_file, write_text


def test_a_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/file.txt"
    for text in ("one", "two"):
        assert write_text(path, text) == path
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file.txt", "old")
    with pytest.raises(FileNotFoundError, match="gone"), whole_file(path) as partial:
        shutil.copy(partial.parent / "gone", partial.write_text("half") and partial)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"file.txt": "old"}


def test_two_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path, apart=True) as first:
        first.write_text("first")
        with whole_file(path, apart=True) as second:
            second.write_text("second")
    assert path.read_text() == "first"
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_in_the_place_of_a_file_leaves_no_partial_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
