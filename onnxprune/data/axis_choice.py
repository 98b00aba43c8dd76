"""What the batch axes of a model may be, by the names and sizes of its inputs' dims, and those that a user gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice, product

from onnxprune.data.axes import Axis, BatchAxes, Choice, is_nameless
from onnxprune.data.dataset import LABELS
from onnxprune.data.specs import Dim, InputSpec, dims_text
from onnxprune.errors import SettingError

# Names that exporters and people give to the batch axis.
_BATCH_NAME = re.compile(r"batch|^(n|b|bs|bsz|samples|num_samples)$", re.IGNORECASE)
# Ways to choose axes that are tried at most.
MOST_CANDIDATES = 32


def is_plain_batch(specs: Sequence[InputSpec]) -> bool:
    """Whether the inputs themselves say that their first axes are the batch: one name for it, or one input."""
    firsts = {spec.shape[0] for spec in specs if spec.shape}
    if len(firsts) != 1:
        return False
    (first,) = firsts
    if isinstance(first, int):
        return first == 1
    if any(spec.shape.count(first) > 1 for spec in specs if first is not None):
        return False
    alone = sum(bool(spec.shape) for spec in specs) == 1
    named = any(_is_batch(dim) for spec in specs for dim in spec.shape[1:])
    return _is_batch(first) or (alone and is_nameless(first) and not named)


def candidates(specs: Sequence[InputSpec], asked: Choice) -> list[BatchAxes]:
    """What the batch axes of the inputs may be, the likely ones first: by names of dims, by sizes, by place.

    `asked`: the axes that are known, by name.
    """
    axed = [spec for spec in specs if spec.shape]
    choices = [*_by_name(axed), *_by_size(axed), *_by_product(axed)][:MOST_CANDIDATES]
    found: list[dict[str, Axis]] = []
    for choice in [*choices, {}]:
        full = {spec.name: choice.get(spec.name) for spec in specs}
        full |= {name: axis for name, axis in asked.items() if name in full}
        if full not in found:
            found.append(full)
    return [axes for choice in found if (axes := _with_size(choice, specs)) is not None]


def declared_axes(
    specs: Sequence[InputSpec], asked: Mapping[str, Axis] = {}, outputs: Sequence[str] = ()
) -> BatchAxes:
    """The likeliest batch axes by the dims of the inputs alone, and those that are given; `outputs`: the names.

    Raises:
        SettingError: the given axes do not fit.
    """
    check_asked(asked, specs, outputs)
    return candidates(specs, asked)[0]


def _with_size(choice: dict[str, Axis], specs: Sequence[InputSpec]) -> BatchAxes | None:
    """The axes with the size that they have; None if they have several."""
    dims = {spec.shape[axis] for spec in specs if (axis := choice[spec.name]) is not None}
    sizes = {dim for dim in dims if isinstance(dim, int)}
    if len(sizes) > 1:
        return None
    return BatchAxes(choice, size=1 if not dims else next(iter(sizes), None))


def _is_batch(dim: Dim) -> bool:
    return isinstance(dim, str) and _BATCH_NAME.search(dim) is not None


def _by_name(specs: Sequence[InputSpec]) -> list[Choice]:
    """Open axes by their names: those of most inputs first; and the first axes, where all of them are open."""
    names = {
        dim: {spec.name: spec.shape.index(dim) for spec in specs if dim in spec.shape}
        for spec in specs
        for dim in spec.shape
        if isinstance(dim, str) and not is_nameless(dim)
    }
    once = {dim: places for dim, places in names.items() if all(s.shape.count(dim) < 2 for s in specs)}
    ranked = sorted(once, key=lambda dim: (not _is_batch(dim), -len(once[dim]), any(once[dim].values())))
    nameless = {spec.name: 0 for spec in specs if is_nameless(spec.shape[0])}
    found: list[Choice] = [nameless | once[dim] for dim in ranked]
    firsts = {spec.name: 0 for spec in specs if not isinstance(spec.shape[0], int)}
    dims = {spec.shape[0] for spec in specs}
    together = firsts and all(is_nameless(dim) or dim in once for dim in dims if not isinstance(dim, int))
    apart = all(once[dim].get(spec.name, 0) == 0 for dim in dims if dim in once for spec in specs)
    if together and apart:
        # Each first axis may have a name of its own.
        likely = len(dims) > 1 or not ranked or not _is_batch(ranked[0])
        found.insert(0 if likely else len(found), firsts)
    return found


def _by_size(specs: Sequence[InputSpec]) -> list[Choice]:
    """Fixed axes by their sizes: those of most inputs first, of equal ones the first axes; 1 fits many an axis."""
    sizes = {dim for spec in specs for dim in spec.shape if isinstance(dim, int)}
    places = {
        size: {spec.name: spec.shape.index(size) for spec in specs if size in spec.shape} for size in sizes
    }
    by_time = {spec.shape[1] for spec in specs if len(spec.shape) == 3}
    likely = [
        size
        for size in sizes
        if size == 1 or size in by_time or 0 in places[size].values() or len(places[size]) > 1
    ]
    ranked = sorted(
        likely, key=lambda size: (-len(places[size]), sum(places[size].values()), size == 1, size)
    )
    return [places[size] for size in ranked]


def _by_product(specs: Sequence[InputSpec]) -> list[Choice]:
    """Every way to choose among nameless axes."""
    open_axes = {
        spec.name: [axis for axis, dim in enumerate(spec.shape) if is_nameless(dim)] for spec in specs
    }
    ways = product(*([*axes, None] for axes in open_axes.values()))
    return [dict(zip(open_axes, way, strict=True)) for way in islice(ways, MOST_CANDIDATES)]


def check_asked(asked: Choice, specs: Sequence[InputSpec], outputs: Sequence[str]) -> None:
    """Check the axes of --batch-axis against the model.

    Raises:
        SettingError: there is no such input, output or axis, or axes of several sizes.
    """
    inputs = {spec.name: spec for spec in specs}
    for name, axis in asked.items():
        if name not in inputs and name not in outputs and name.split(".")[0] != LABELS:
            known = ", ".join((*inputs, *outputs))
            raise SettingError(
                f"--batch-axis {name}: the model has no such input or output; give one of {known}"
            )
        if name in inputs and axis is not None and axis >= len(inputs[name].shape):
            raise SettingError(
                f"--batch-axis {name}:{axis} does not fit the input, which has {len(inputs[name].shape)} axes "
                f"({dims_text(inputs[name])}): the first is 0"
            )
    sizes = {
        spec.shape[axis]: name
        for name, spec in inputs.items()
        if (axis := asked.get(name)) is not None and isinstance(spec.shape[axis], int)
    }
    if len(sizes) > 1:
        given = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise SettingError(f"the axes of --batch-axis have different sizes ({given}): give axes of one size")
