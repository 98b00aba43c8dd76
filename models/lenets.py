"""The two LeNets of Han et al. 2015 (arXiv 1506.02626), as torch modules that take pixels in [0, 1]."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

DROPOUT = 0.3
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081  # of the MNIST training images, pixels in [0, 1]


class LeNet300100(nn.Module):
    """784-300-100-10, ReLU between, with dropout while it is trained: 266,610 parameters.

    (N, 784) -> logits (N, 10).
    """

    input_shape = (784,)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - PIXEL_MEAN) / PIXEL_STD
        x = F.dropout(F.relu(self.fc1(x)), DROPOUT, self.training)
        x = F.dropout(F.relu(self.fc2(x)), DROPOUT, self.training)
        return self.fc3(x)


class LeNet5(nn.Module):
    """LeNet-5 of Caffe's examples, no ReLU after the convolutions: 431,080 parameters.

    (N, 1, 28, 28) -> logits (N, 10).
    """

    input_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - PIXEL_MEAN) / PIXEL_STD
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


LeNet = LeNet300100 | LeNet5
