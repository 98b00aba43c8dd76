"""Opening model files in onnxruntime, with the links and the libraries of custom operators that the user trusts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError

from onnxprune import runtime
from onnxprune.errors import MissingOperatorError, ModelFileError, OnnxPruneError, SettingError, first_line
from onnxprune.model.files.protos import locations
from onnxprune.model.files.wire import NotProtobufError, with_data_apart
from onnxprune.system.trust import trusted

# The folder of external data, for a model that onnxruntime is given in memory.
DATA_FOLDER = "session.model_external_initializers_file_folder_path"
# In the errors of onnxruntime about operators that it does not have: custom ones, and those of another version or type.
NO_OPERATOR = ("is not a registered function/op", "No Op registered for", "Could not find an implementation")


Make = Callable[[str | bytes, ort.SessionOptions], ort.InferenceSession]


def _plain(content: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def open_session(
    model: Path | bytes,
    options: ort.SessionOptions,
    name: str = "the model",
    *,
    kernels: bool = False,
    make: Make = _plain,
) -> ort.InferenceSession:
    """A CPU session for a model file that `load` has checked, or for a serialized model.

    `name`: of the model in errors; `kernels`: whether it uses the sparse kernels, if they are available; `make`: of the
    path or content.

    Raises:
        SettingError: a library of --custom-ops cannot be loaded.
        MissingOperatorError: onnxruntime does not have an operator of the model.
        ModelFileError: onnxruntime refuses the model for another reason.
    """
    try:
        _add_libraries(options, kernels)
        if isinstance(model, Path) and _leads_away(model):
            return _with_data_of(onnx.load(model, load_external_data=False), model, options, make)
        content = model if isinstance(model, bytes) else str(model)
        return make(content, options)
    except OnnxPruneError:
        raise
    # The exceptions of onnxruntime have no common base class.
    except Exception as error:
        reason = f"onnxruntime cannot load {name}: {first_line(error)}"
        if not any(words in reason for words in NO_OPERATOR):
            raise ModelFileError(reason) from error
        raise MissingOperatorError(
            f"{reason}; give the library that has this operator by --custom-ops LIBRARY"
        ) from error


def open_mapped(
    proto: onnx.ModelProto, file: Path, options: ort.SessionOptions, make: Make = _plain
) -> ort.InferenceSession:
    """A CPU session whose weights are mapped; `proto`: the model of `with_data_apart(file)`, which is changed.

    Raises:
        Exception: onnxruntime refuses it.
    """
    _add_libraries(options, kernels=False)
    return _with_data_of(proto, file, options, make)


def _with_data_of(
    proto: onnx.ModelProto, file: Path, options: ort.SessionOptions, make: Make
) -> ort.InferenceSession:
    """A session for the model of a file without its external data, which is read wherever links lead.

    onnxruntime itself follows no link out of the model's folder. Those that there are have been checked.
    """
    places = [(entry, os.path.realpath(file.parent / entry.value)) for entry in locations(proto)]
    # A model that draws is opened in this way also where it has no external data.
    folder = os.path.commonpath(
        [os.path.dirname(place) for _, place in places] or [os.path.realpath(file.parent)]
    )
    for entry, place in places:
        entry.value = os.path.relpath(place, folder)
    options.add_session_config_entry(DATA_FOLDER, folder)
    return make(proto.SerializeToString(), options)


def _add_libraries(options: ort.SessionOptions, kernels: bool) -> None:
    """Register the libraries of --custom-ops, and that of the sparse kernels if there is one, each once.

    Raises:
        SettingError: onnxruntime cannot load one of them.
    """
    own = runtime.library_path() if kernels else None
    if own is not None:
        options.register_custom_ops_library(str(own))
    for library in dict.fromkeys(trusted().libraries):
        if own is not None and library.samefile(own):
            continue
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            raise SettingError(
                f"--custom-ops {library} cannot be loaded: {first_line(error)}; give a library of custom operators "
                f"that was built for onnxruntime {ort.__version__} or an earlier one"
            ) from None


def _leads_away(file: Path) -> bool:
    """Whether links lead from a model to external data outside of its folder."""
    try:
        proto = with_data_apart(file)
    # onnxruntime says what is wrong with it.
    except (OSError, ValueError, DecodeError, NotProtobufError):
        return False
    folder, named = os.path.realpath(file.parent), {entry.value for entry in locations(proto)}
    places = (Path(os.path.realpath(file.parent / name)) for name in named - {file.name})
    return not all(place.is_relative_to(folder) for place in places)
