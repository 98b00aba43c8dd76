import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.errors import ModelFileError
from onnxprune.model.files.io import load
from onnxprune.model.files.staging import staging
from tests.builders import cnn, initializer, mlp


def test_an_untouched_model_comes_out_as_it_went_in(tmp_path):
    proto = cnn()
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = (
        "maker",
        "1.2",
        "org.test",
        7,
    )
    proto.doc_string = proto.graph.doc_string = "what it is"
    onnx.helper.set_model_props(proto, {"author": "somebody"})
    proto.graph.node[0].doc_string = "the first"
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, ["N", 8, 6, 6]))
    onnx.save(proto, tmp_path / "in.onnx")
    model, source = load(tmp_path / "in.onnx")
    with staging(tmp_path / "out.onnx", source) as stage:
        stage.write(model, external=False)
        stage.commit()
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(tmp_path / "in.onnx")


def test_external_data_is_read_and_written_and_the_input_is_unchanged(tmp_path):
    onnx.save(
        mlp(64, 128), tmp_path / "in.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    model, source = load(tmp_path / "in.onnx")
    assert source.external and source.file_bytes > 4 * 64 * 128
    with staging(tmp_path / "out.onnx", source) as stage:
        stage.write(model, external=source.external)
        size = stage.file_bytes()
        stage.commit()
    assert size == sum((tmp_path / name).stat().st_size for name in ("out.onnx", "out.onnx.data"))
    expected = initializer(onnx.load(tmp_path / "in.onnx"), "fc1.weight")
    assert (initializer(onnx.load(tmp_path / "out.onnx"), "fc1.weight") == expected).all()


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_external_data_that_is_not_whole_is_refused(tmp_path, damage):
    onnx.save(
        mlp(64, 128), tmp_path / "in.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    data = tmp_path / "w.bin"
    if damage == "missing":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ModelFileError, match=rf"w\.bin.*{damage}"):
        load(tmp_path / "in.onnx")


def test_nothing_is_left_behind_when_the_work_fails(tmp_path):
    (tmp_path / "out.onnx").write_bytes(b"before")
    model, source = load(mlp())
    with pytest.raises(RuntimeError), staging(tmp_path / "out.onnx", source) as stage:
        stage.write(model, external=True)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_bytes() == b"before"


def test_annotations_are_added_without_touching_the_rest(tmp_path):
    model, source = load(mlp())
    with staging(tmp_path / "out.onnx", source) as stage:
        stage.write(model, external=False)
        stage.annotate({"onnxprune.version": "1"})
        stage.commit()
    written = onnx.load(tmp_path / "out.onnx")
    assert {prop.key: prop.value for prop in written.metadata_props} == {"onnxprune.version": "1"}
    del written.metadata_props[:]
    assert written == mlp()


def test_sparse_initializers_in_the_input_become_weights(tmp_path):
    proto = mlp()
    dense = initializer(proto, "fc1.weight") * (np.arange(128).reshape(16, 8) % 5 == 0)
    positions = np.flatnonzero(dense)
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(dense.ravel()[positions], "fc1.weight"),
        onnx.numpy_helper.from_array(positions.astype(np.int64)),
        dense.shape,
    )
    del proto.graph.initializer[0]
    proto.graph.sparse_initializer.append(sparse)
    onnx.save(proto, tmp_path / "in.onnx")
    model, _ = load(tmp_path / "in.onnx")
    assert (model.graph.initializers["fc1.weight"].const_value.numpy() == dense).all()


def test_a_model_in_memory_is_not_changed():
    proto = mlp()
    model, _ = load(proto)
    model.graph.initializers["fc1.weight"].const_value = ir.tensor(np.zeros((16, 8), np.float32))
    assert proto == mlp()
