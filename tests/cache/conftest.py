"""What the tests of the cache share."""

import pytest
from small_caches import make_recipe

from cache import Recipe


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe()
