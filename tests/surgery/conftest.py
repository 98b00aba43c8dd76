import pytest

from tests.surgery.graphs import restart


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    restart()
