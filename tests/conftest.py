"""What several test modules share."""

import pytest

from tests.runtime_pool import Pool


@pytest.fixture(scope="session")
def pool():
    """Four processes in which the runtime's tests run their ranks; they start when first used."""
    pool = Pool(4)
    yield pool
    pool.close()
