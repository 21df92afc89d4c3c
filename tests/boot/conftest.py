"""The image, once for all boots."""

from __future__ import annotations

import pytest

from tests.boot.image import Image, image


@pytest.fixture(scope="session")
def boot_image() -> Image:
    """Made if it isn't there. Where it can't be made, the tests fail and say what is missing: they are no
    extra.
    """
    return image()
