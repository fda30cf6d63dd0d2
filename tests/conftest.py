"""Fixtures for several folders."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """The inputs are small: threads would cost more than they save where cores are shared."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
