"""Arrays of files: small ones are read, rows of large ones when they are needed."""

import gc
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from onnxprune.data import rows
from onnxprune.data.rows import RowFile, open_npy, open_npz
from onnxprune.errors import DataError

ARRAY = np.random.default_rng(0).random((50, 3, 2), dtype=np.float32)
INDICES = (
    np.array([3, 4, 5, 40, 2, 2, 49]),
    slice(10, 20),
    np.arange(50),
    np.array([], int),
    np.array([-1]),
)


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    monkeypatch.setattr(rows, "KEPT_BYTES", 0)


def members(path):
    # A scalar, and Fortran's order, whose rows are not contiguous, are read whole.
    np.savez(path, x=ARRAY, labels=np.arange(50), rate=np.float32(3), turned=np.asfortranarray(ARRAY))
    return open_npz(path)


@pytest.mark.parametrize("index", INDICES, ids=["scattered", "a slice", "all", "none", "from the end"])
def test_rows_of_a_stored_npz_are_those_of_the_array(tmp_path, index):
    arrays = members(tmp_path / "d.npz")
    assert isinstance(arrays["x"], RowFile) and isinstance(arrays["turned"], np.ndarray)
    assert (arrays["x"][index] == ARRAY[index]).all() and arrays["x"][index].dtype == np.float32
    assert (arrays["labels"][index] == np.arange(50)[index]).all()
    assert arrays["rate"] == 3 and (arrays["turned"] == ARRAY).all()


def test_a_compressed_npz_is_decompressed_into_a_file_that_goes_with_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.savez_compressed(tmp_path / "d.npz", x=ARRAY)
    arrays = open_npz(tmp_path / "d.npz")
    copied = pickle.loads(pickle.dumps(arrays["x"]))
    assert (arrays["x"][INDICES[0]] == ARRAY[INDICES[0]]).all() and (copied[:] == ARRAY).all()
    assert len(os.listdir(tmp_path)) == 2
    del arrays, copied
    gc.collect()
    assert os.listdir(tmp_path) == ["d.npz"]


def test_npy_files_are_read_by_rows_and_cut_ones_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", ARRAY)
    assert (open_npy(tmp_path / "x.npy")[INDICES[0]] == ARRAY[INDICES[0]]).all()
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"cut\.npy cannot be read as \.npy: it is cut short"):
        open_npy(tmp_path / "cut.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="plain array"):
        open_npy(tmp_path / "objects.npy")


def test_a_file_that_shrinks_or_goes_is_named(tmp_path):
    np.save(tmp_path / "x.npy", ARRAY)
    array = open_npy(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", 200)
    with pytest.raises(DataError, match=r"x\.npy ends early"):
        array[:]
    Path(tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match=r"x\.npy cannot be read: No such file"):
        array[:]
