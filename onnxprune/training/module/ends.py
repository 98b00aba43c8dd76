"""Where the training graph ends: in front of what has no gradient, or no entry in the table of operators.

    ... weights -> boxes, scores -> NonMaxSuppression -> output    boxes and scores are trained instead of the output
    ... weights -> logits -> ArgMax -> output                      logits are trained as well
    text -> LabelEncoder -> Gather -> weights ...                  onnxruntime runs the front, see outside.py

What is left out is not changed in the model. An operator without an entry between weights cannot be left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.errors import OnnxPruneError, SettingError
from onnxprune.model.constants import constant_tensor
from onnxprune.model.endings import last_operator
from onnxprune.model.excerpt import bodies, reads
from onnxprune.model.names import name_of
from onnxprune.model.operands import is_read
from onnxprune.model.reading import source
from onnxprune.model.slots import slots
from onnxprune.training.module.norms import restored_norms
from onnxprune.training.module.ops import Lowering
from onnxprune.training.module.ops.types import torch_dtype

FIX = "prune without --data, which does not fine-tune"
# Names of operators that compute in integers begin or end so.
INTEGERS = re.compile(r"QLinear|QGemm|QAttention|.*Integer(ToFloat)?$")
FLOATS = (
    "integers have no gradient; fine-tune the model in floats with --quantize int8, or a model of QuantizeLinear and "
    "DequantizeLinear (--quantize-form qdq)"
)
CLOSE_NAMES = 3


class UnsupportedOperatorError(OnnxPruneError):
    """The model has an operator, or a use of one, that cannot be fine-tuned."""


def unsupported(node: ir.Node, reason: str, fix: str = FIX) -> UnsupportedOperatorError:
    """The error for a node that cannot be fine-tuned."""
    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
    reason = FLOATS if INTEGERS.match(node.op_type) else reason
    return UnsupportedOperatorError(
        f"{operator} (node {name_of(node)!r}) cannot be fine-tuned: {reason}; {fix}"
    )


@dataclass(frozen=True)
class Ends:
    """What a training graph gives: the names of its outputs, and the type of the operator that each of them ends in.

    `stand_ins`: for each output of the model that has no gradient the outputs of the training graph that lead to it, if
    there are any; `left_out`: the operators that cannot be trained through.
    """

    names: tuple[str, ...]
    operators: tuple[str, ...]
    stand_ins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    weights_behind: bool = False
    """Whether there are weights that no output depends on."""

    @property
    def cut(self) -> bool:
        """Whether an output of the model is no output of the training graph."""
        return bool(set(self.stand_ins) - set(self.names))


class Flow:
    """What depends on trained weights, and what on inputs, noted node by node while a training graph is built."""

    def __init__(
        self, trained: Collection[ir.Value], inputs: Iterable[ir.Value], names: Collection[str | None]
    ):
        """`names`: of nodes and values that --train-until can name."""
        self._trained = trained
        self._names = names
        self._fed = set(inputs)
        self._flowing: set[ir.Value] = set()
        self._blocked: dict[ir.Value, UnsupportedOperatorError] = {}
        self._left_out: list[ir.Node] = []
        self._apart: set[ir.Value] = set()

    def blocking(self, node: ir.Node) -> UnsupportedOperatorError | None:
        """Why a node cannot be built, as it reads what could not be; else None."""
        return next((self._blocked[value] for value in _all_reads(node) if value in self._blocked), None)

    def is_front(self, node: ir.Node) -> bool:
        """Whether no weight leads to a node and it has none, so that onnxruntime can run it."""
        return not _holds_weight(node) and not any(map(self._leads, _all_reads(node)))

    def note(self, node: ir.Node, lowering: Lowering | None, *, apart: bool = False) -> None:
        """Note the outputs of a node that was built; `apart`: onnxruntime runs it."""
        self._apart.update(node.outputs if apart else ())
        read = list(_all_reads(node))
        if any(value in self._fed for value in read):
            self._fed.update(node.outputs)
        if any(map(self._leads, read)):
            flowing = range(len(node.outputs)) if lowering is None else _with_gradient(node, lowering)
            self._flowing.update(node.outputs[index] for index in flowing)

    def block(self, node: ir.Node, error: UnsupportedOperatorError) -> None:
        """Leave out a node that cannot be built, or that reads what could not be.

        Raises:
            UnsupportedOperatorError: it has a weight, so it is not at the end of the model.
        """
        read = list(_all_reads(node))
        if _holds_weight(node) or any(self._leads(value) and value not in self._fed for value in read):
            before = next((value for value in self._before(read) if value in self._flowing), None)
            raise UnsupportedOperatorError(self._advised(str(error), before)) from error
        if self.blocking(node) is None:
            self._left_out.append(node)
        self._blocked.update(dict.fromkeys(node.outputs, error))

    def ends(self, named: Mapping[ir.Value, str]) -> tuple[list[ir.Value], Ends]:
        """The values that a training graph of these outputs of the model gives; `named`: each with its name there.

        Raises:
            UnsupportedOperatorError: no weight leads to an output with a gradient.
        """
        kept = [value for value in named if value not in self._blocked and value not in self._apart]
        flowing = [value for value in kept if value in self._flowing]
        behind = {value: _ancestors(value) for value in flowing}
        found: dict[ir.Value, list[ir.Value]] = {}
        for value in named:
            if value in self._flowing:
                continue
            fronts = [before for before in self._before([value]) if before in self._flowing]
            found[value] = [
                end
                for front in fronts
                for end in ([each for each in flowing if front in behind[each]] or [front])
            ]
        added = dict.fromkeys(end for ends in found.values() for end in ends if end not in kept)
        given = [*kept, *added]
        if not flowing and not added:
            error = next(iter(self._blocked.values()), None)
            raise error or UnsupportedOperatorError(
                f"no weight leads to an output with a gradient, so nothing can be fine-tuned: {FIX}"
            )
        names = {value: named.get(value) or value.name or "" for value in given}
        return given, Ends(
            tuple(names.values()),
            tuple(map(last_operator, given)),
            {
                named[value]: tuple(dict.fromkeys(names[end] for end in ends))
                for value, ends in found.items()
                if ends or value not in kept
            },
            tuple(f"{node.op_type} ({name_of(node)})" for node in self._left_out),
        )

    def _leads(self, value: ir.Value) -> bool:
        """Whether a value is a trained weight or depends on one."""
        return value in self._flowing or value in self._trained

    def _before(self, values: Iterable[ir.Value]) -> Iterator[ir.Value]:
        """Values and what they are made of, back to those that depend on a weight with a gradient."""
        waiting, seen = list(values), set()
        while waiting:
            value = waiting.pop(0)
            if value in seen:
                continue
            seen.add(value)
            yield value
            maker = value.producer()
            if value not in self._flowing and maker is not None:
                waiting += _all_reads(maker)

    def _advised(self, message: str, before: ir.Value | None) -> str:
        """The message of an error with --train-until as the way on, where there is something to train before it."""
        maker = None if before is None else before.producer()
        names = [maker.name if maker is not None else None, None if before is None else before.name]
        name = next((name for name in names if name and name in self._names), None)
        if name is None:
            return message
        return f"{message.removesuffix(FIX)}give --train-until {name} to train what is before it, or {FIX}"


def until(model: ir.Model, name: str) -> list[ir.Value]:
    """The values that --train-until names: a value, or the outputs of a node that anything reads.

    Raises:
        SettingError: there is no such node or value.
    """
    node = next((node for node in model.graph if node.name == name), None)
    values = {value.name: value for node in model.graph for value in node.outputs if value.name}
    # The result of a layer is that of the norm that was put back behind it.
    behind = {norm.layer.result: norm.node.outputs[0] for norm in restored_norms(model)}
    if node is not None and constant_tensor(node.outputs[0]) is None:
        used = [value for value in node.outputs if is_read(value)]
        return [behind.get(value, value) for value in used]
    if name in values and constant_tensor(values[name]) is None:
        return [behind.get(values[name], values[name])]
    known = [*(node.name for node in model.graph if node.name), *(value or "" for value in values)]
    close = difflib.get_close_matches(name, known, CLOSE_NAMES) or known[-CLOSE_NAMES:]
    raise SettingError(
        f"--train-until {name}: the model has no node and no value of this name: give one, such as "
        f"{', '.join(dict.fromkeys(close))}"
    )


def needed(outputs: Iterable[ir.Value]) -> set[ir.Node]:
    """The nodes that outputs depend on."""
    waiting, found = list(outputs), set()
    while waiting:
        maker = waiting.pop().producer()
        if maker is not None and maker not in found:
            found.add(maker)
            waiting += _all_reads(maker)
    return found


def _ancestors(value: ir.Value) -> set[ir.Value]:
    """A value, and all that it is made of."""
    waiting, found = [value], set()
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        maker = value.producer()
        if maker is not None:
            waiting += _all_reads(maker)
    return found


def _all_reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, and what its bodies read and hold."""
    yield from reads(node)
    for body in bodies(node).values():
        for inner in body.all_nodes():
            yield from (value for value in inner.inputs if value is not None)


def _holds_weight(node: ir.Node) -> bool:
    """Whether a node, or one of its bodies, has a weight that can be pruned."""
    nodes = [node, *(inner for body in bodies(node).values() for inner in body.all_nodes())]
    return any(
        tensor is not None and len(tensor.shape) > 1 and tensor.size
        for each in nodes
        for slot in slots(each)
        if slot.input_index < len(each.inputs)
        for tensor in (constant_tensor(source(each.inputs[slot.input_index])),)
    )


def _with_gradient(node: ir.Node, lowering: Lowering) -> Sequence[int]:
    """The outputs of a node that have a gradient."""
    if node.op_type == "Cast" and not torch_dtype(node.attributes.get_int("to", 1)).is_floating_point:
        return ()
    found = range(len(node.outputs)) if lowering.gradients is None else lowering.gradients
    return [index for index in found if index < len(node.outputs)]
