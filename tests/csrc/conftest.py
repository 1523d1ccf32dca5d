from __future__ import annotations

import pytest
from cuda_emulation import Emulation


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    return Emulation(tmp_path_factory.mktemp("emulation"))
