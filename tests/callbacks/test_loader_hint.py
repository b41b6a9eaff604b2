"""One hint if the loader is the bottleneck, with what can be changed; no hint if it is not."""

import time
from pathlib import Path
from typing import Any

import pytest

from resnext.callbacks import loader_hint as module
from resnext.callbacks.loader_hint import find_remedies
from resnext.data.dataset import TrainImages
from resnext.task.classification import ClassificationTask
from resnext.training.fit import fit
from support.small_run import make_run, small_config


@pytest.mark.parametrize("slow", [(TrainImages, "__getitems__"), (ClassificationTask, "training_step")])
def test_a_hint_names_the_loader_only_if_it_is_the_bottleneck(
    digits: Path, slow: tuple[type, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Either reading a batch or computing a step takes 0.1 s more."""
    method = getattr(*slow)

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.1)
        return method(*arguments)

    monkeypatch.setattr(*slow, slowly)
    monkeypatch.setattr(module, "MIN_STEPS", 12)
    monkeypatch.setattr(module, "CHECK_EVERY", 1)
    monkeypatch.setattr(module, "count_cores", lambda: 6)
    fit(make_run(small_config(digits, recipe__batch_size=8, recipe__max_steps=13)))
    hints = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hint")]
    if slow[0] is ClassificationTask:
        assert hints == []
    else:
        (hint,) = hints
        assert "the training waits for data" in hint
        assert "data.workers=6 (now 0); or data.cache=ram" in hint
        assert "resnext prepare pack" in hint


def test_only_what_can_be_changed_is_named():
    assert find_remedies("none", 2, 8, is_packed=False)[0] == "data.workers=8 (now 2)"
    assert len(find_remedies("none", 2, 8, is_packed=False)) == 4
    assert not any("workers" in each for each in find_remedies("none", 8, 8, is_packed=False))
    (only,) = find_remedies("ram", 8, 8, is_packed=True)
    assert "--short-side" in only
