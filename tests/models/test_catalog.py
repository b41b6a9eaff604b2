"""The catalog of our networks: counts that timm publishes, the paper's errors, and logits of both libraries."""

import pytest
from torch import nn

from resnext.__main__ import run_verb
from resnext.config.model import VARIANTS
from resnext.models import catalog
from resnext.models.catalog import PAPER_ERRORS, compare_with_libraries, describe_variant
from resnext.models.resnext import ResNeXt

# millions of activations at 224 px, of the same networks in timm's results/benchmark tables
TIMM_ACTIVATIONS = {
    "resnext50_32x4d": 14.40,
    "resnext101_32x8d": 31.21,
    "resnext101_64x4d": 31.21,
    "resnext50_1x64d": 11.11,
}


@pytest.mark.parametrize(("name", "millions"), TIMM_ACTIVATIONS.items())
def test_activations_equal_timms(name: str, millions: float):
    assert describe_variant(name).activations / 1e6 == pytest.approx(millions, abs=0.006)


def test_more_cardinality_at_the_same_cost_has_less_error_in_the_paper():
    """The order of the rows of table 3: the error never rises with the cardinality."""
    for depth in (50, 101):
        errors = [PAPER_ERRORS[f"resnext{depth}_{size}"] for size in ("1x64d", "2x40d", "4x24d", "8x14d", "32x4d")]
        assert errors == sorted(errors, reverse=True)


def test_every_network_is_listed_with_its_cost(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["models"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == list(VARIANTS)
    assert max(map(len, [header, *rows])) <= 80
    row = next(row for row in rows if row.startswith("resnext50_32x4d"))
    assert row.split() == ["resnext50_32x4d", "32×4d", "224", "25,028,904", "4.230", "G", "14.40", "M", "22.2", "%"]
    assert run_verb(["models", "--filter", "29_8"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["resnext29_8x64d", "8×64d", "32"]


def test_the_check_prints_both_libraries_and_fails_at_a_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert run_verb(["models", "--check", "--filter", "50_32x4d"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["torchvision", "resnext50_32x4d", "equal:"],
        ["timm", "resnext50_32x4d", "equal:"],
    ]
    assert run_verb(["models", "--check", "--filter", "50_2x40d"]) == 0
    assert "in neither torchvision nor timm" in capsys.readouterr().out
    forward = ResNeXt.forward
    monkeypatch.setattr(ResNeXt, "forward", lambda self, x: 1.001 * forward(self, x))
    assert run_verb(["models", "--check", "--filter", "50_32x4d"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_other_weights_names_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "_builders", lambda _name: {"timm": lambda: nn.Linear(1, 1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        list(compare_with_libraries("resnext50_1x64d"))


def test_timms_networks_are_listed_by_a_filter(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["models", "--timm", "--filter", "convnext_ti"]) == 0
    assert "timm/convnext_tiny" in capsys.readouterr().out.splitlines()
    assert run_verb(["models", "--timm", "--filter", "convnxt"]) == 2
    assert run_verb(["models", "--filter", "99"]) == 2
