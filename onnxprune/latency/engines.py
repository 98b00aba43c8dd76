"""The inference engines that are compared, each in its own process."""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import OnnxPruneError, first_line
from onnxprune.system.cores import usable_cores
from onnxprune.system.trust import Trust, trust, trusted

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], list[np.ndarray]]

_PROCESS_STATUS = Path("/proc/self/status")


class EngineError(OnnxPruneError):
    """An engine cannot load or run a model; the message is that of the engine."""


@dataclass(frozen=True)
class Engine:
    """An inference engine.

    `opens(path, threads, feeds)` loads a model and returns a function that runs it; it needs the installed `package`.
    `own`: onnxprune's own engine, which runs sparse files, and whose wrong results stop the benchmark.
    """

    name: str
    opens: Callable[[str, int, Feeds], Run]
    package: str = "onnxruntime"
    own: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def missing(self) -> bool:
        return importlib.util.find_spec(self.package) is None


def _onnxruntime(path: str, threads: int, feeds: Feeds) -> Run:
    from onnxprune.model.files.sessions import open_session
    from onnxprune.runtime.timing import session_options

    session = open_session(Path(path), session_options(threads))
    return lambda inputs: session.run(None, dict(inputs))


def _onnxprune(path: str, threads: int, feeds: Feeds) -> Run:
    from onnxprune.model.files.sessions import open_session
    from onnxprune.runtime.timing import session_options

    session = open_session(Path(path), session_options(threads), kernels=True)
    return lambda inputs: session.run(None, dict(inputs))


def _openvino(path: str, threads: int, feeds: Feeds) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", settings)
    return lambda inputs: [np.asarray(array) for array in compiled(dict(inputs)).values()]


def _deepsparse(path: str, threads: int, feeds: Feeds) -> Run:
    os.environ["NM_DISABLE_BATCH_OVERRIDE"] = "1"
    cores = threads or usable_cores()
    engine = _deepsparse_library().deepsparse_engine(path, 1, cores, 1, "single_stream", None, None)
    names = engine.input_names()
    return lambda inputs: [
        _with_strides(array) for array in engine.execute_list_out([inputs[name] for name in names])
    ]


@functools.cache
def _deepsparse_library() -> Any:
    """DeepSparse's engine without its Python package, whose dependencies conflict."""
    spec = importlib.util.find_spec("deepsparse")
    assert spec is not None and spec.submodule_search_locations is not None
    bare = types.ModuleType("deepsparse")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["deepsparse"] = bare
    from deepsparse.lib import init_deepsparse_lib

    return init_deepsparse_lib()


def _with_strides(array: np.ndarray) -> np.ndarray:
    """The array with correct strides: the engine was built for NumPy 1, and its strides are 0 in NumPy 2."""
    strides = np.empty(array.shape, array.dtype).strides
    return np.lib.stride_tricks.as_strided(array, array.shape, strides)


DENSE = Engine("onnxruntime", _onnxruntime)
KERNELS = Engine("onnxprune", _onnxprune, own=True)
OTHERS = (Engine("DeepSparse", _deepsparse, "deepsparse"), Engine("OpenVINO", _openvino, "openvino"))


def forced(isa: str) -> Engine:
    """The engine with the kernels of one instruction set."""
    return Engine(f"onnxprune {isa}", _onnxprune, own=True, environment={"ONNXPRUNE_ISA": isa})


@dataclass(frozen=True)
class Memory:
    """Bytes of a process: current and peak resident memory; None where the system does not report them."""

    now: int | None
    peak: int | None


class Worker:
    """A process that runs one engine; it stops when it is closed or its owner ends.

    Raises (by every method):
        EngineError: the error of the engine.
    """

    def __init__(self, engine: Engine):
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, engine, trusted()), daemon=True)
        self._process.start()
        other_end.close()

    def load(self, path: Path, threads: int, feeds: Feeds) -> float:
        """Load a model, in place of the previous one, and run it once; returns the seconds to load it."""
        return self._ask("load", str(path), threads, dict(feeds))

    def outputs(self) -> list[np.ndarray]:
        return self._ask("outputs")

    def runs(self, seconds: float) -> list[float]:
        """Seconds of each run, for as many runs as fit into `seconds`, at least one."""
        return self._ask("runs", seconds)

    def memory(self) -> Memory:
        return self._ask("memory")

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def _ask(self, *message: Any) -> Any:
        try:
            self._pipe.send(message)
            ok, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineError("its process died") from error
        if not ok:
            raise EngineError(answer)
        return answer


class _Server:
    def __init__(self, engine: Engine):
        self._engine = engine
        self._run: Run | None = None
        self._feeds: Feeds = {}

    def load(self, path: str, threads: int, feeds: Feeds) -> float:
        # DeepSparse compares dtypes by address, and pickling creates new ones.
        feeds = {name: _with_own_dtype(array) for name, array in feeds.items()}
        self._run, self._feeds = None, feeds
        start = time.perf_counter()
        self._run = self._engine.opens(path, threads, feeds)
        seconds = time.perf_counter() - start
        self._run(feeds)
        return seconds

    def outputs(self) -> list[np.ndarray]:
        assert self._run is not None
        return [np.array(output) for output in self._run(self._feeds)]

    def runs(self, seconds: float) -> list[float]:
        assert self._run is not None
        times: list[float] = []
        while sum(times) < seconds or not times:
            start = time.perf_counter()
            self._run(self._feeds)
            times.append(time.perf_counter() - start)
        return times

    def memory(self) -> Memory:
        if not _PROCESS_STATUS.exists():
            return Memory(None, None)
        fields = dict(line.split(":", 1) for line in _PROCESS_STATUS.read_text().splitlines() if ":" in line)
        return Memory(*(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")))


def _with_own_dtype(array: np.ndarray) -> np.ndarray:
    fresh = np.empty(array.shape, array.dtype.type)
    fresh[...] = array
    return fresh


def _serve(pipe: Connection, engine: Engine, owner_trusts: Trust) -> None:
    trust(owner_trusts.folders, owner_trusts.libraries)
    os.environ.update(engine.environment)
    server = _Server(engine)
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(server, command)(*arguments)
        except Exception as error:
            answer = False, first_line(error)
        pipe.send(answer)
