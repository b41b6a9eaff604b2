"""Mixup and CutMix compared with timm's and torchvision's for the same random draws, and by their statistics."""

import numpy as np
import pytest
import torch
from timm.data import Mixup
from torchvision.transforms import v2

from resnext.config.augmentation import MixingConfig
from resnext.data.box import Box
from resnext.task.mixing import Mix, draw_mix, mix_images, mix_targets

CONFIGS = [
    MixingConfig(mixup_alpha=0.4),
    MixingConfig(cutmix_alpha=1.0),
    MixingConfig(mixup_alpha=0.2, cutmix_alpha=1.0),
    MixingConfig(mixup_alpha=0.2, cutmix_alpha=1.0, prob=0.5, switch_prob=0.3),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [5, 6])
def test_images_and_targets_equal_timms(config: MixingConfig, size: int):
    """Compares fifty draws. timm needs an even number of images; of an odd number, we leave the middle one as it is."""
    theirs = Mixup(config.mixup_alpha, config.cutmix_alpha, None, config.prob, config.switch_prob, label_smoothing=0)
    theirs.num_classes = 4
    kinds = set()
    for seed in range(50):
        torch.manual_seed(seed)
        images, targets = torch.randn(size, 3, 24, 17), torch.randint(4, (size,))
        mix = draw_mix(config, 24, 17, seed)
        ours, shares = mix_images(images.clone(), mix), mix_targets(targets, mix, 4)
        np.random.seed(seed)
        if size % 2 == 0:
            their_images, their_shares = theirs(images.clone(), targets)
            assert torch.equal(ours, their_images)
            torch.testing.assert_close(shares, their_shares, rtol=0, atol=1e-7)
        else:
            assert torch.allclose(ours[2], images[2], atol=1e-6)
        kinds.add("none" if mix.lam == 1 else "cutmix" if mix.box else "mixup")
    expected = {kind for kind, alpha in (("mixup", config.mixup_alpha), ("cutmix", config.cutmix_alpha)) if alpha}
    assert expected <= kinds <= expected | {"none"}


def test_mixup_of_each_image_equals_the_closed_form():
    images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 4, 4).clone()
    blended = mix_images(images.clone(), Mix(0.75))
    assert blended[0].unique().tolist() == [0.25]
    assert blended[1].unique().tolist() == [0.75]
    cut = mix_images(images.clone(), Mix(0.75, Box(top=0, left=1, bottom=2, right=3)))
    assert cut[0, 0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0] * 4, [0] * 4]
    assert cut[1, 0].tolist() == [[1, 0, 0, 1], [1, 0, 0, 1], [1] * 4, [1] * 4]
    assert mix_targets(torch.tensor([0, 2]), Mix(0.75), 3).tolist() == [[0.75, 0, 0.25], [0.25, 0, 0.75]]


def test_lam_of_cutmix_is_the_area_that_remains():
    for seed in range(200):
        mix = draw_mix(MixingConfig(cutmix_alpha=1.0), 32, 20, seed)
        if mix.box is not None:
            ours = mix_images(torch.stack([torch.zeros(3, 32, 20), torch.ones(3, 32, 20)]), mix)
            assert float(1 - ours[0].mean()) == pytest.approx(mix.lam, abs=1e-6)


def test_draws_follow_their_distributions():
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)); mixing and CutMix have the given probabilities."""
    config = MixingConfig(mixup_alpha=0.5, cutmix_alpha=1.0, prob=0.8, switch_prob=0.25)
    mixes = [draw_mix(config, 1000, 1000, seed) for seed in range(8000)]
    mixed = [mix for mix in mixes if mix.lam < 1]
    shares = np.array([mix.lam for mix in mixed if mix.box is None])
    assert len(mixed) / len(mixes) == pytest.approx(0.8, abs=0.02)
    assert len(shares) / len(mixed) == pytest.approx(0.75, abs=0.02)
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / 8, abs=0.005)


def test_mixed_images_equal_torchvisions(monkeypatch: pytest.MonkeyPatch):
    """For two images, the reversed batch equals torchvision's roll by one. Uses torchvision's random draws."""
    torch.manual_seed(0)
    images, targets = torch.randn(2, 3, 20, 30), torch.tensor([1, 3])
    share, box = 0.3, Box(top=2, left=4, bottom=17, right=25)
    cut_share = 1 - 15 * 21 / 600
    for kind, drawn, mix in (
        (v2.MixUp, {"lam": share}, Mix(share)),
        (v2.CutMix, {"box": (4, 2, 25, 17), "lam_adjusted": cut_share}, Mix(cut_share, box)),
    ):
        monkeypatch.setattr(kind, "make_params", lambda _self, _inputs, drawn=drawn: drawn)
        their_images, their_targets = kind(num_classes=5)(images, targets)
        torch.testing.assert_close(mix_images(images.clone(), mix), their_images)
        torch.testing.assert_close(mix_targets(targets, mix, 5), their_targets)
