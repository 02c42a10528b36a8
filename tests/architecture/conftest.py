"""The syntax trees of the whole project live as long as the tests that look at them."""

from collections.abc import Iterator

import pytest

from tests.architecture import tree


@pytest.fixture(scope="package", autouse=True)
def trees() -> Iterator[None]:
    """Parsed when the first test asks, gone with the last."""
    yield
    tree.forget()
