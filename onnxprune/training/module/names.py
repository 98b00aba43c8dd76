"""Attribute names in a torch module for ONNX names: the name itself, if torch allows it."""

from __future__ import annotations

import functools
import itertools
import keyword
from collections.abc import Iterator

from torch import fx, nn

# Characters that torch.fx cannot write into generated code.
_UNWRITABLE = frozenset("\"'\\\n\r")


class ModuleNames:
    """Assigns unique attribute paths in one module; the part before a dot is a submodule."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._parents: set[str] = set()

    def give(self, name: str) -> str:
        """The name, or a similar one that is free and that torch allows."""
        path = next(candidate for candidate in _candidates(name) if self._fits(candidate))
        self._paths.add(path)
        self._parents.update(_parents(path))
        return path

    def _fits(self, name: str) -> bool:
        free = name not in self._paths | self._parents and self._paths.isdisjoint(_parents(name))
        return free and _UNWRITABLE.isdisjoint(name) and not any(_reserved(part) for part in name.split("."))


def _reserved(part: str) -> bool:
    return not part or keyword.iskeyword(part) or hasattr(_empty_module(), part)


@functools.cache
def _empty_module() -> fx.GraphModule:
    """A module with the attributes that every GraphModule has."""
    return fx.GraphModule(nn.Module(), fx.Graph())


def _candidates(name: str) -> Iterator[str]:
    """For a.b: a.b, a.b#2, a_b#2, a.b#3, a_b#3, ..."""
    yield name
    plain = "".join("_" if letter in _UNWRITABLE or letter == "." else letter for letter in name)
    for count in itertools.count(2):
        yield f"{name}#{count}"
        yield f"{plain}#{count}"


def _parents(path: str) -> set[str]:
    """The modules on the way to an attribute.

    >>> sorted(_parents("a.b.c"))
    ['a', 'a.b']
    """
    parts = path.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}
