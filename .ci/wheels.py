"""Builds the sdist, and from it the wheels of Linux, each twice, for one and the same file: `make wheels`.

A wheel is for every Python, and needs neither a compiler nor headers. The compiler is that of the package ziglang:
it builds for both architectures and for an old glibc on any machine. The result is in build/wheels.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "wheels"
ARCHITECTURES = ("x86_64", "aarch64")
# That of onnxruntime's own wheels.
GLIBC = "2.28"
# What a fresh clone and the sdist have in common; no file of a wheel is older (zip knows no year before 1980).
FALLBACK_DATE = "1735689600"
# Packages that the size is broken down to.
LARGEST = 6
# Behind a refusal, since the library's statics are made then: they must not outlive it, nor it the last session.
SMOKE = """
import importlib.util
import numpy
import onnxruntime
import onnxprune.runtime
from onnx import helper, numpy_helper
from onnxprune.sparse.encode import encode
from onnxprune.sparse.functions import DOMAIN

assert onnxprune.runtime.available(), onnxprune.runtime.available().reason
assert importlib.util.find_spec("torch") is None
parts = encode(numpy.eye(8, dtype=numpy.float32))._asdict()
parts["gaps"] = parts["gaps"] * 0
node = helper.make_node("SparseMatMul", ["x", *parts], ["y"], "broken", domain=DOMAIN, dtype=1)
x, y = (helper.make_tensor_value_info(name, 1, None) for name in "xy")
graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(a, n) for n, a in parts.items()])
opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
onnxprune.runtime.register(options)
try:
    session = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString(), options
    )
    session.run(None, {"x": numpy.zeros((3, 8), numpy.float32)})
except Exception as error:
    assert "node 'broken' cannot run" in str(error), error
else:
    raise AssertionError("a broken weight is not refused")
"""
FIND_HEADERS = """
include("{cmake}/FindHeaders.cmake")
find_onnxruntime_headers(found reason)
if(NOT found)
  message(FATAL_ERROR "${{reason}}")
endif()
file(COPY "${{found}}/" DESTINATION "{headers}")
"""


def main() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    headers = find_headers()
    environment = os.environ | {"SOURCE_DATE_EPOCH": date()}
    sdist = build(ROOT, "--sdist", environment, WORK)
    made = [sdist]
    for architecture in ARCHITECTURES:
        first, second = (wheel(sdist, architecture, headers, environment, WORK / turn) for turn in ("1", "2"))
        if sha256(first) != sha256(second):
            sys.exit(f"{first.name} is not the same when it is built again: compare {first} and {second}")
        made.append(Path(shutil.move(first, WORK)))
        check(made[-1], architecture)
    own = next((path for path in made if platform.machine() in path.name), None)
    if own is not None and sys.platform == "linux":
        install(own)
    for path in made:
        print(f"{sha256(path)}  {path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")


def find_headers() -> Path:
    """The headers of onnxruntime, whose archive's sum is checked: the only thing that is downloaded."""
    headers, script = WORK / "headers", WORK / "find.cmake"
    script.write_text(FIND_HEADERS.format(cmake=ROOT / "onnxprune" / "runtime" / "cmake", headers=headers))
    run("cmake", "-P", script, cwd=WORK)
    return headers


def date() -> str:
    """The date of the commit, in seconds of the epoch, which every file of the archives gets."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    git = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return git.stdout.strip() or FALLBACK_DATE


def build(source: Path, kind: str, environment: dict[str, str], to: Path, *arguments: str) -> Path:
    """The sdist or the wheel of `source`, made without network by the tools that are installed."""
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        kind,
        "--outdir",
        to,
        *arguments,
        source,
        env=environment,
    )
    return next(to.glob("*.tar.gz" if kind == "--sdist" else "*.whl"))


def wheel(sdist: Path, architecture: str, headers: Path, environment: dict[str, str], work: Path) -> Path:
    """The audited wheel of the sdist's sources, for one architecture."""
    shutil.rmtree(work, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    source = next(work.iterdir())
    environment = environment | {
        "ONNXPRUNE_TARGET": f"{architecture}-linux-gnu.{GLIBC}",
        "ZIG": str(zig()),
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture}",
    }
    defines = {
        "CMAKE_TOOLCHAIN_FILE": source / "onnxprune" / "runtime" / "cmake" / "zig.cmake",
        "ONNXRUNTIME_INCLUDE_DIR": headers,
    }
    arguments = [f"-Ccmake.define.{name}={value}" for name, value in defines.items()]
    # The compiler strips, for either architecture; this machine's strip knows its own alone.
    plain = build(source, "--wheel", environment, work / "plain", "-Cinstall.strip=false", *arguments)
    # The oldest platform whose glibc has what the library uses.
    run(
        "auditwheel",
        "repair",
        "--plat",
        "auto",
        "--only-plat",
        "-w",
        work / "audited",
        plain,
        env=environment,
    )
    return next((work / "audited").glob("*.whl"))


def zig() -> Path:
    import ziglang  # a tool of this script alone

    return Path(ziglang.__file__).with_name("zig")


def check(made: Path, architecture: str) -> None:
    """Have auditwheel say what the wheel needs, and see that it has the library."""
    run("auditwheel", "show", made)
    if not made.stem.endswith(architecture) or "manylinux" not in made.stem:
        sys.exit(f"{made.name} is not for {architecture}, or needs more than glibc")
    names = zipfile.ZipFile(made).namelist()
    if "onnxprune/runtime/libonnxprune_runtime.so" not in names:
        sys.exit(f"{made} has no library, so that sparse kernels do not run: see the output of CMake above")


def install(made: Path) -> None:
    """Install the wheel without extras into an empty environment, see that its kernels load and that a process which
    used them ends well, and print its size."""
    base = WORK / "base"
    run(sys.executable, "-m", "venv", "--without-pip", base)
    python = base / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--only-binary=:all:", made)
    run(python, "-I", "-c", SMOKE)
    packages = next((base / "lib").glob("python*/site-packages"))
    parts = sorted(((size(part), part.name) for part in packages.iterdir()), reverse=True)
    most = ", ".join(f"{name} {bytes_ / 1e6:.0f} MB" for bytes_, name in parts[:LARGEST])
    print(f"installed without extras: {size(packages) / 1e6:.0f} MB; most of it: {most}")


def size(folder: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(path.stat().st_size for path in [folder, *folder.rglob("*")] if path.is_file())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    tools = Path(sys.executable).parent
    env = (env or dict(os.environ)) | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    print("$", *command, flush=True)
    subprocess.run(list(map(str, command)), cwd=cwd, env=env, check=True)


if __name__ == "__main__":
    main()
