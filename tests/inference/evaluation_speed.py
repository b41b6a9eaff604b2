"""Images per second of an evaluation and of timm's validation loop, on the same images with the same network.

    python tests/inference/evaluation_speed.py IMAGES [NETWORK]

IMAGES holds CLASS/ folders. Both read the weights, use two DataLoader workers and batches of 64 images, and take turns;
the medians of five turns are printed.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import timm.data
import timm.utils
import torch

from resnext.config.augmentation import EvaluationConfig
from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata
from resnext.config.schema import ModelConfig, TrainerConfig
from resnext.data.scan import scan_class_folders
from resnext.inference.evaluate import evaluate
from resnext.inference.forward import EvaluationJob
from resnext.inference.image_sets import as_set
from resnext.models.factory import build_model

TURNS, BATCH, WORKERS, SIZE = 5, 64, 2, 224


def main(images: Path, name: str) -> None:
    index = scan_class_folders(images, images)
    evaluation = EvaluationConfig(image_size=SIZE, crop_pct=0.875, interpolation="bicubic")
    levels = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    metadata = CheckpointMetadata("speed", None, ModelConfig(name=name), index.classes, evaluation, *levels)
    network = build_model(metadata.model, len(index.classes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.pt")
        torch.save({"state_dict": network.state_dict(), METADATA: metadata.to_plain()}, path)
        trainer = TrainerConfig(accelerator="cpu", precision="32-true", channels_last=True)
        sets = [as_set(index, index.classes, "speed")]
        job = EvaluationJob(
            path,
            None,
            "raw",
            metadata,
            sets,
            trainer,
            metrics=(),
            batch_size=BATCH,
            flip=False,
            workers=WORKERS,
            worker_timeout=300.0,
        )
        ours, theirs = [], []
        for _ in range(TURNS):
            began = time.perf_counter()
            found = evaluate(job)[0].metrics["raw"].top1.value
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            expected = validate(path, metadata, images)
            theirs.append(time.perf_counter() - began)
    print(f"top-1 {100 * found:.3f} %, timm's {expected:.3f} %")
    rates = [len(index) / statistics.median(each) for each in (ours, theirs)]
    print(f"{rates[0]:.1f} images/s, timm's {rates[1]:.1f}, ratio {rates[0] / rates[1]:.2f}")


@torch.inference_mode()
def validate(path: Path, metadata: CheckpointMetadata, images: Path) -> float:
    """Top-1 in percent, as timm's validate.py computes it."""
    network = build_model(metadata.model, len(metadata.classes))
    network.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    network.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loader = timm.data.create_loader(
        timm.data.create_dataset("", str(images)),
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH,
        use_prefetcher=False,
        interpolation="bicubic",
        num_workers=WORKERS,
        crop_pct=0.875,
    )
    top1 = timm.utils.AverageMeter()
    for batch, targets in loader:
        logits = network(batch.contiguous(memory_format=torch.channels_last))
        torch.nn.functional.cross_entropy(logits, targets)
        top1.update(timm.utils.accuracy(logits, targets)[0].item(), len(batch))
    return top1.avg


if __name__ == "__main__":
    main(Path(sys.argv[1]), (sys.argv[2:] or ["timm/resnet18"])[0])
