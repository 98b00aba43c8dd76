"""Parts of a job for `test_workers`, in a module that workers can import, and a loss that may end its process."""

import os
import signal
import time
from pathlib import Path

from onnxprune.errors import DataError, SettingError

# In the working folder: the process that finds it removes it, and is killed.
BOMB = Path("bomb")


def double(shared, item, progress):
    """The item times `shared`; the later ones are faster."""
    time.sleep(0.05 * (4 - item))
    return shared * item


def refuse(shared, item, progress):
    if item == 1:
        raise SettingError("the second one is refused")
    return item


def refuse_data(shared, item, progress):
    raise DataError("there is no data file x.npz")


def die_once(folder, item, progress):
    """Ends its process at the first attempt of item 1, and returns the number of attempts."""
    tries = folder / f"tries-{item}"
    count = len(tries.read_text()) + 1 if tries.exists() else 1
    tries.write_text("x" * count)
    if item == 1 and count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def die(shared, item, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def linger(folder, item, progress):
    """Item 0 ends at once; others only if they are stopped."""
    if item:
        (folder / f"process-{item}").write_text(str(os.getpid()))
        time.sleep(600)
    return item


def deadly(outputs, labels):
    """Cross-entropy; see `BOMB`."""
    from torch.nn.functional import cross_entropy

    try:
        BOMB.unlink()
    except FileNotFoundError:
        return cross_entropy(outputs[0], labels)
    os.kill(os.getpid(), signal.SIGKILL)
    return None
