"""Inputs and labels from the columns of CSV and Parquet files."""

import gzip
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onnxprune.data import tables
from onnxprune.data.request import Request
from onnxprune.data.specs import InputSpec
from onnxprune.data.tables import ParquetSource, is_table, read_table
from onnxprune.errors import DataError

SUFFIXES = ("csv", "parquet")


def spec(name, *dims, dtype=np.float32):
    return InputSpec(name, np.dtype(dtype), ("N", *dims))


def write(folder, table, suffix, **options):
    """A table {column: values} as a file."""
    path = folder / f"table.{suffix}"
    if suffix == "parquet":
        pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    else:
        rows = zip(*table.values(), strict=True)
        cells = [list(table), *([("" if cell is None else str(cell)) for cell in row] for row in rows)]
        path.write_text("\n".join(",".join(row) for row in cells) + "\n")
    return str(path)


def opened(path, *specs):
    return read_table(path, Request(list(specs)))


def everything(source):
    return source.read(np.arange(len(source)))


FLOWERS = {
    "long": [1.5, 2.5, 3],
    "wide": [4, 5, 6],
    "kind": ["a", "b", "c"],
    "Class": ["rose", "lily", "rose"],
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_columns_of_numbers_make_the_only_input_and_names_become_classes(tmp_path, suffix):
    source = opened(write(tmp_path, FLOWERS, suffix), spec("x", 2))
    arrays = everything(source)
    assert arrays["x"].tolist() == [[1.5, 4], [2.5, 5], [3, 6]] and arrays["x"].dtype == np.float32
    assert arrays["labels"].tolist() == [1, 0, 1] and arrays["labels"].dtype == np.int64
    assert source.class_names == ("lily", "rose") and source.classes == 2
    notes = " ".join(source.notes)
    assert "column 'Class'" in notes and "lily is 0, rose is 1" in notes and "not used: kind" in notes


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_inputs_take_the_columns_of_their_names(tmp_path, suffix):
    table = {"y": [7, 8], "b": [0.5, 1.5], "a": [3, 4], "text": ["u", "v"]}
    arrays = everything(
        opened(
            write(tmp_path, table, suffix),
            spec("a", dtype=np.int64),
            spec("b", 1),
            spec("text", 1, dtype=object),
        )
    )
    assert arrays["a"].tolist() == [3, 4] and arrays["a"].dtype == np.int64
    assert arrays["b"].tolist() == [[0.5], [1.5]] and arrays["text"].tolist() == [["u"], ["v"]]
    assert arrays["labels"].tolist() == [7, 8]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_input_may_be_called_like_a_label(tmp_path, suffix):
    arrays = everything(opened(write(tmp_path, {"y": [1, 2], "target": [0.5, -2]}, suffix), spec("y", 1)))
    assert arrays["y"].tolist() == [[1], [2]] and arrays["labels"].tolist() == [0.5, -2]
    assert arrays["labels"].dtype == np.float32


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_of_a_later_output_are_kept_apart(tmp_path, suffix):
    arrays = everything(opened(write(tmp_path, {"x": [1, 2], "labels.box": [5, 6]}, suffix), spec("x", 1)))
    assert arrays["labels.box"].tolist() == [5, 6] and set(arrays) == {"x", "labels.box"}


@pytest.mark.parametrize(
    "list_type", [pa.list_(pa.float32()), pa.list_(pa.float32(), 4), pa.large_list(pa.float64())]
)
def test_lists_become_axes_and_get_the_shape_of_the_input(tmp_path, list_type):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    table = pa.table({"x": pa.array(rows.tolist(), list_type), "labels": pa.array([[1, 2], [3, 4], [5, 6]])})
    path = write(tmp_path, table, "parquet")
    for dims in ((4,), (1, 2, 2), ("w",)):
        arrays = everything(opened(path, spec("x", *dims)))
        assert arrays["x"].shape == (3, *(dims if dims != ("w",) else (4,)))
        assert arrays["x"].reshape(3, 4).tolist() == rows.tolist() and arrays["labels"].tolist() == [
            [1, 2],
            [3, 4],
            [5, 6],
        ]


def test_lists_of_lists_and_dictionaries_are_read(tmp_path):
    nested = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    names = pa.array(["b", "a"]).dictionary_encode()
    path = write(tmp_path, pa.table({"x": pa.array(nested), "label": names}), "parquet")
    arrays = everything(opened(path, spec("x", 2, 2)))
    assert arrays["x"].tolist() == nested and arrays["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_that_are_numbers_are_these_numbers(tmp_path, suffix):
    table = {"x": [1, 2, 3], "label": ["10", "9", "2"]}
    source = opened(write(tmp_path, table, suffix), spec("x", 1))
    assert (
        source.arrays["labels"].tolist() == [10, 9, 2] and source.classes == 11 and source.class_names == ()
    )


FORMS = {
    "semicolons": ("t.csv", b"a;label\n1,5;0\n2,5;1\n".replace(b",", b".")),
    "tabs": ("t.tsv", b"a\tlabel\n1.5\t0\n2.5\t1\n"),
    "gzip": ("t.csv.gz", gzip.compress(b"a,label\n1.5,0\n2.5,1\n")),
    "quotes and a byte order mark": ("t.CSV", b'\xef\xbb\xbf"a","label","text"\n1.5,0,"x\ny"\n2.5,1,z\n'),
}


@pytest.mark.parametrize(("name", "content"), FORMS.values(), ids=FORMS.keys())
def test_csv_may_be_written_in_several_forms(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert is_table(name)
    arrays = everything(opened(str(tmp_path / name), spec("a", 1)))
    assert arrays["a"].tolist() == [[1.5], [2.5]] and arrays["labels"].tolist() == [0, 1]


def test_a_label_may_be_a_name_after_many_numbers(tmp_path):
    count = 300_000
    table = {"x": range(count), "label": [*range(count - 1), "none"]}
    source = opened(write(tmp_path, table, "csv"), spec("x", 1))
    assert source.classes == count and source.arrays["x"][-1, 0] == count - 1


def large(folder, rows=50, groups=8):
    generator = np.random.default_rng(0)
    table = {"x": generator.random((rows, 3)).tolist(), "label": [f"c{row % 3}" for row in range(rows)]}
    return write(folder, table, "parquet", row_group_size=groups), np.array(table["x"], np.float32)


def test_a_file_larger_than_memory_is_read_by_row_groups(tmp_path, monkeypatch):
    path, expected = large(tmp_path)
    monkeypatch.setattr(tables, "MEMORY", 400)
    monkeypatch.setattr(tables, "CACHE", 300)
    source = opened(path, spec("x", 3))
    assert isinstance(source, ParquetSource) and len(source) == 50 and source.classes == 3
    assert "7 row groups" in source.notes[-1]
    index = np.random.default_rng(1).permutation(50)
    for reader in (source, pickle.loads(pickle.dumps(source))):
        arrays = reader.read(index)
        np.testing.assert_array_equal(arrays["x"], expected[index])
        assert arrays["labels"].tolist() == (index % 3).tolist()
        assert len(reader._groups) < 7
    scanned = np.concatenate([batch["x"] for batch in source.scan(np.arange(50), 7)])
    np.testing.assert_array_equal(scanned, expected)


def test_what_cannot_be_read_in_parts_is_refused(tmp_path, monkeypatch):
    path, _ = large(tmp_path)
    csv = write(tmp_path, FLOWERS, "csv")
    monkeypatch.setattr(tables, "MEMORY", 20)
    with pytest.raises(DataError, match=r"a row group of 8 rows, more than .* row_group_size=10000"):
        opened(path, spec("x", 3))
    with pytest.raises(DataError, match="write it as Parquet"):
        opened(csv, spec("x", 2))


def test_a_row_of_a_later_row_group_is_named_by_its_number(tmp_path, monkeypatch):
    table = {"x": [[1.0, 2]] * 20, "label": [0] * 20}
    table["x"][17] = [1.0, float("nan")]
    path = write(tmp_path, table, "parquet", row_group_size=5)
    monkeypatch.setattr(tables, "MEMORY", 100)
    source = opened(path, spec("x", 2))
    assert len(source.read(np.arange(15))["x"]) == 15
    with pytest.raises(DataError, match=r"'x' .* no finite number in row 18"):
        source.read(np.array([3, 16]))


X2 = (spec("x", 2),)
WRONG = {
    "too many columns": ({"a": [1], "b": [2], "c": [3], "label": [0]}, X2, r"3 columns of numbers .*\(a, b, c\)"),
    "too few": ({"a": [1], "label": [0]}, X2, "1 columns of numbers"),
    "a missing input": ({"a": [1], "c": [2]}, (spec("a", 1), spec("b", 1)), "no column b but a, c"),
    "two labels": ({"a": [1], "y": [2], "target": [0]}, (spec("a", 1),), r"labels \(y, target\): leave one"),
    "one value for two": ({"x": [1], "label": [0]}, X2, r"'x' .* has 1 values in a row, the input 'x' takes 2"),
    "no value": ({"a": [1, 2], "b": [2, None]}, X2, r"'b' .* has no value in row 2"),
    "no label": ({"a": [1, 2], "label": [None, "u"]}, (spec("a", 1),), r"'label' .* has no value in row 1"),
    "infinite": ({"a": [1, 2], "b": [2, float("inf")]}, X2, r"'b' .* no finite number in row 2"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("table", "specs", "words"), WRONG.values(), ids=WRONG.keys())
def test_tables_that_do_not_fit_are_refused_in_one_line(tmp_path, table, specs, words, suffix):
    with pytest.raises(DataError, match=words) as caught:
        opened(write(tmp_path, table, suffix), *specs)
    assert "\n" not in str(caught.value)


NAN = float("nan")
WRONG_PARQUET = {
    "not a number": ({"a": [1, NAN], "b": [2, 3]}, X2, r"'a' .* no finite number in row 2"),
    "lists of two lengths": ({"x": [[1, 2], [3]]}, X2, "lists of the lengths 2 and 1"),
    "a hole in a list": ({"x": [[1, 2], [3, None]]}, X2, r"'x' .* has no value in row 2"),
    "text for numbers": ({"x": ["a", "b"]}, (spec("x", 1),), "has the type string, the input 'x' takes float32"),
    "halves for whole ones": ({"x": [1.0, 1.5]}, (spec("x", 1, dtype=np.int64),), "no whole number in row 2"),
    "numbers for text": ({"x": [1.0]}, (spec("x", 1, dtype=object),), "the input 'x' takes string"),
    "labels that are none": ({"x": [1.0], "label": [{"a": 1}]}, (spec("x", 1),), "labels take numbers or texts"),
    "no rows": (pa.table({"x": pa.array([], pa.float32())}), (spec("x", 1),), "has no rows"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "specs", "words"), WRONG_PARQUET.values(), ids=WRONG_PARQUET.keys())
def test_parquet_that_does_not_fit_is_refused_in_one_line(tmp_path, table, specs, words):
    with pytest.raises(DataError, match=words) as caught:
        opened(write(tmp_path, table, "parquet"), *specs)
    assert "\n" not in str(caught.value)


WRONG_FILES = {
    "nothing": ("t.csv", b"", "cannot be read: Empty CSV file"),
    "a header alone": ("t.csv", b"a,b\n", "has no rows"),
    "no header": ("t.csv", b"1,2\n3,4\n", "no names of columns"),
    "a name twice": ("t.csv", b"a,a\n1,2\n", "several columns 'a'"),
    "text for numbers": ("t.csv", b"label,a,b\n0,1,2\n1,2,3\n1,word,1\n", "columns of numbers"),
    "rows of two lengths": ("t.csv", b"a,b\n1,2\n1\n", "cannot be read: .*Expected 2 columns, got 1"),
    "other bytes": ("t.csv", b"\xff\xfe\x00\x00\xd8", "t.csv"),
    "no Parquet": ("t.parquet", b"PAR1 no", "cannot be read"),
    "an empty Parquet file": ("t.parquet", b"", "cannot be read"),
}


@pytest.mark.parametrize(("name", "content", "words"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        opened(str(tmp_path / name), *X2)
    assert "\n" not in str(caught.value)


def test_a_word_after_many_numbers_is_named_by_its_column(tmp_path):
    values = [*range(300_000), "word"]
    path = write(tmp_path, {"label": values, "a": values}, "csv")
    with pytest.raises(DataError, match=r"column 'a'.*invalid value 'word'"):
        opened(path, spec("a", 1))


def test_only_the_first_columns_are_listed(tmp_path):
    path = write(tmp_path, {f"c{number}": [1, 2] for number in range(12)}, "csv")
    with pytest.raises(DataError, match=r"\(c0, .*, c9 and 2 more\), the input 'x' takes 2"):
        opened(path, *X2)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"no data file nothing\.csv"):
        opened("nothing.csv", *X2)
