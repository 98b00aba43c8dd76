"""The rooms of the package, and which may import which; `python -m tests.test_architecture` draws them."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnxprune"
# From the top down: a room imports those of the floors below it.
FLOORS = (
    ("plugins",),
    ("cli",),
    ("commands",),
    ("job",),
    ("latency", "calibration", "reports", "training", "evaluation"),
    ("surgery", "sparse", "quantization", "pruning", "data"),
    ("model", "config"),
    ("runtime", "system"),
    ("errors",),
)
# On one floor, as the way of the data needs it: calibration runs models, reports name their metrics.
BESIDE = {("calibration", "evaluation"), ("reports", "evaluation")}

Import = tuple[str, str, str]
"""The file, and the rooms that it is in and imports."""


def room_of(module: str) -> str:
    """onnxprune.model.files.io -> model; a module at the package's root is a room of its own."""
    return module.split(".")[1]


def imports(file: Path, *, typing: bool = True) -> list[str]:
    """Every module that a file imports, inside functions too, and for type checkers (`typing`)."""
    tree = ast.parse(file.read_text())
    unseen = {
        inner
        for node in ast.walk(tree)
        if not typing and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in (node for node in ast.walk(tree) if node not in unseen):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found += [f"{base}.{alias.name}" for alias in node.names] if base == "onnxprune" else [base]
    return found


def own_imports() -> list[Import]:
    """Imports from one room of the package to another."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        room = path.parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for module in imports(file):
            if module.startswith("onnxprune.") and room_of(module) != room:
                found.append((str(path), room, room_of(module)))
    return found


def floor(room: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_is_on_a_floor_and_every_import_leads_down():
    wrong = [
        f"{file}: {room} imports {other}"
        for file, room, other in own_imports()
        if floor(other) <= floor(room) and (room, other) not in BESIDE
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_lies_beside_the_rooms():
    names = {entry.name.removesuffix(".py") for entry in PACKAGE.iterdir()}
    rooms = {room for rooms in FLOORS for room in rooms}
    assert names - rooms <= {"__init__", "__main__", "__pycache__", "py.typed", "LICENSE"} | {
        name for name in names if name.endswith((".md", ".svg"))
    }


def test_every_module_of_our_own_that_is_imported_exists():
    for file in PACKAGE.rglob("*.py"):
        for module in imports(file):
            if module.startswith("onnxprune."):
                path = PACKAGE.joinpath(*module.split(".")[1:])
                assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), (
                    f"{file}: {module}"
                )


def test_only_training_imports_torch_but_for_functions_that_need_it():
    users: dict[bool, set[str]] = {False: set(), True: set()}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        outside = {
            alias.name for node in ast.parse(file.read_text()).body for alias in getattr(node, "names", ())
        }
        for module in imports(file, typing=False):
            if module.split(".")[0] == "torch":
                users[module in outside].add(room)
    assert users == {True: {"training"}, False: {"training", "data", "evaluation", "reports", "system"}}


def modules() -> dict[str, set[str]]:
    """The modules of the package, with those of it that each imports, inside functions and for type checkers too."""
    files = {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
    }
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found[name].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                given = (f"{base}.{alias.name}" for alias in node.names)
                # A name is a module or something in the one that it is imported from.
                found[name].update(each if each in files else base for each in given)
    return {name: {other for other in others if other in files} for name, others in found.items()}


def test_no_modules_import_each_other_in_a_circle():
    graph = modules()
    assert graph["onnxprune.data.axes"] >= {"onnxprune.data.padding", "onnxprune.data.specs"}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))


def test_what_is_told_of_progress_is_declared_in_one_file():
    declaring = [
        f"{file.relative_to(PACKAGE)}: {ast.unparse(node)}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).endswith("float], None]")
    ]
    assert declaring == [
        "system/progress.py: Progress = Callable[[float], None]",
        "system/progress.py: StageProgress = Callable[[str, float], None]",
    ]


def drawing() -> str:
    """The floors, each with the rooms and what they import, for README.md of the package."""
    seen = {(room, other) for _, room, other in own_imports()}
    lines = []
    for rooms in FLOORS:
        for room in rooms:
            below = [other for others in FLOORS for other in others if (room, other) in seen]
            lines.append(f"    {room:<13}" + (f"-> {', '.join(below)}" if below else ""))
        lines.append("")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    sys.stdout.write(drawing() + "\n")
