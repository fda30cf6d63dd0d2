"""A module to export."""

import pytest

from models.statistics import randomize_statistics
from tests.exporter.modules import Block


@pytest.fixture
def block():
    module = Block()
    randomize_statistics(module, (8, 4, 8, 6))
    return module
