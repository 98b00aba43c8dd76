import gzip

import numpy as np
import pytest

from onnxprune.data.idx import read_idx
from onnxprune.errors import DataError

LABELS = b"\0\0\x08\x01\0\0\0\x04" + bytes(range(4))


def test_idx_files_may_be_gzipped(tmp_path):
    (tmp_path / "plain").write_bytes(LABELS)
    (tmp_path / "packed").write_bytes(gzip.compress(LABELS))
    assert read_idx(tmp_path / "plain").tolist() == read_idx(tmp_path / "packed").tolist() == [0, 1, 2, 3]


def test_numbers_of_several_bytes_are_in_native_order(tmp_path):
    (tmp_path / "floats").write_bytes(
        b"\0\0\x0d\x02\0\0\0\x01\0\0\0\x02" + np.array([1.5, -2], ">f4").tobytes()
    )
    array = read_idx(tmp_path / "floats")
    assert array.tolist() == [[1.5, -2.0]] and array.dtype == np.float32 and array.dtype.isnative


# Names, since what gzip writes holds the time, and test processes must agree on what they are to run.
BROKEN = {
    "empty": (b"", "is not an IDX file"),
    "no such type": (b"\0\0\x07\x01\0\0\0\0", "is not an IDX file"),
    "half a header": (b"\0\0\x08\x03\0\0\0\x02", "ends within its IDX header"),
    "a byte missing": (LABELS[:-1], "3 bytes of data, its IDX header says 4"),
    "a byte too many": (LABELS + b"a", "5 bytes of data, its IDX header says 4"),
    "a size beyond all": (b"\0\0\x08\x03" + b"\xff" * 12, "has 0 bytes"),
    "half of a gzip file": (gzip.compress(LABELS)[:-9], "cannot be read"),
    "a gzip header alone": (b"\x1f\x8b garbage", "cannot be read"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_with_the_reason(tmp_path, content, reason):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_idx(tmp_path / "broken")
