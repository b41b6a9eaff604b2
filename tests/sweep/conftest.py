"""Fixtures of the tests of sweeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.formula_runs import Curve, FormulaRuns, accuracy


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., FormulaRuns]:
    """Makes a sweep in a new folder. `space`: Hydra's text for lr."""

    def make(space: str = "0.01,0.1,1", epochs: int = 9, curve: Curve = accuracy, **settings: Any) -> FormulaRuns:
        folder = tmp_path / f"sweep{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return FormulaRuns(folder, {"space": {"lr": space}, **settings}, epochs, curve)

    return make
