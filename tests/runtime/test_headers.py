"""Where the build finds onnxruntime's headers, and that what it downloads is what it was written for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND_HEADERS = ROOT / "onnxprune" / "runtime" / "cmake" / "FindHeaders.cmake"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def cmake(folder: Path, script: str, **definitions: object) -> str:
    """What a script says, behind the functions that find headers."""
    (folder / "script.cmake").write_text(f'include("{FIND_HEADERS}")\n{script}')
    command = ["cmake", *(f"-D{name}={value}" for name, value in definitions.items()), "-P", "script.cmake"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return " ".join(done.stdout.split())


def test_headers_that_are_given_are_taken_and_nothing_is_downloaded(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "onnxruntime_c_api.h").write_text("#define ORT_API_VERSION 29\n")
    script = 'find_onnxruntime_headers(found reason)\nmessage("found ${found}")'
    said = cmake(tmp_path, script, ONNXRUNTIME_INCLUDE_DIR=given)
    assert f"API version 29, named by ONNXRUNTIME_INCLUDE_DIR, in {given}" in said
    assert f"found {given}" in said
    assert "downloading" not in said


ARCHIVES = {
    "release": (
        "onnxruntime-linux-x64-${RELEASE_VERSION}",
        "onnxruntime-linux-x64-${RELEASE_VERSION}/include",
        "RELEASE_SHA256",
    ),
    "npm": ("npm/${NPM_PACKAGE}-${NPM_VERSION}", "package/Some.framework/Headers", "NPM_SHA256"),
}


@pytest.mark.parametrize("source", ARCHIVES)
def test_a_download_with_the_right_sum_is_unpacked_and_has_the_headers(source, tmp_path):
    archive, headers, expected = ARCHIVES[source]
    script = (
        "set(made ${CMAKE_CURRENT_BINARY_DIR}/made)\n"
        f'file(WRITE "${{made}}/{headers}/onnxruntime_c_api.h" "#define ORT_API_VERSION 29\\n")\n'
        f'file(MAKE_DIRECTORY "${{CMAKE_CURRENT_BINARY_DIR}}/npm")\n'
        f'execute_process(COMMAND "${{CMAKE_COMMAND}}" -E tar cz "${{CMAKE_CURRENT_BINARY_DIR}}/{archive}.tgz" .\n'
        '  WORKING_DIRECTORY "${made}")\n'
        f'file(SHA256 "${{CMAKE_CURRENT_BINARY_DIR}}/{archive}.tgz" {expected})\n'
        f"_headers_{source}(found origin refusal)\n"
        '_api_version("${found}" version)\n'
        'message("version <${version}> refusal <${refusal}>")'
    )
    assert "version <29> refusal <>" in cmake(tmp_path, script)


@pytest.mark.parametrize("source", ["release", "npm"])
def test_a_download_with_another_sum_is_refused_and_removed(source, tmp_path):
    names = {
        "release": "onnxruntime-linux-x64-${RELEASE_VERSION}.tgz",
        "npm": "npm/${NPM_PACKAGE}-${NPM_VERSION}.tgz",
    }
    script = (
        f'file(WRITE "${{CMAKE_CURRENT_BINARY_DIR}}/{names[source]}" "damaged")\n'
        f"_headers_{source}(found origin refusal)\n"
        'message("found <${found}> refusal <${refusal}>")'
    )
    said = cmake(tmp_path, script)
    assert "found <> refusal <" in said
    assert "was refused: its SHA-256 is" in said
    assert not [*tmp_path.rglob("*.tgz")]
