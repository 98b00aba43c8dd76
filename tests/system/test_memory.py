import gc
import weakref

from onnxprune.system.memory import free_memory


class Node:
    pass


def test_what_only_its_own_cycle_holds_is_freed():
    one, other = Node(), Node()
    one.next, other.next = other, one
    gc.disable()
    try:
        left = weakref.ref(one)
        del one, other
        assert left() is not None
        free_memory()
        assert left() is None
    finally:
        gc.enable()
