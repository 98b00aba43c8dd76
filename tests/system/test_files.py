import resource

import pytest

from onnxprune.system.files import write_text


@pytest.fixture
def full_disk():
    """No file may have more than 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_text_replaces_a_file_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "a.json").write_text("old")
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_on_a_full_disk_the_file_is_as_it_was(tmp_path, full_disk):
    (tmp_path / "a.json").write_text("old")
    for name in ("a.json", "b.json"):
        with pytest.raises(OSError, match="File too large"):
            write_text(tmp_path / name, "new" * 100)
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_link_stays_and_a_device_is_written_to(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    write_text("/dev/null", "new")
