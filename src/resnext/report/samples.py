"""Sheets of training batches as the network sees them, and of validation crops."""

from resnext.config.schema import Config
from resnext.data.index import ImageIndex
from resnext.report.html import Html, join, tag
from resnext.report.record import RunRecord
from resnext.report.thumbnails import thumbnail
from resnext.training.samples import SHOWN, SeenBatch, crop_validation_images, describe_labels, see_batch, to_pixels

MAX_SIZES = 3  # whose first batch is shown


def training_sheets(record: RunRecord) -> Html:
    """The first batch of the first and of the last epoch, and of two other epochs at most that begin an image size."""
    config, train = record.config, record.images.train
    recipe = config.recipe
    begins = sorted({0, *(epoch - 1 for epoch, _ in recipe.image_size_schedule)})
    epochs = sorted({*begins[:MAX_SIZES], recipe.epochs - 1})
    world_size = record.starts[-1]["world_size"] if record.starts else 1
    sheets = []
    for epoch in epochs:
        step = round(epoch * record.steps_per_epoch)
        if recipe.max_steps is not None and step >= recipe.max_steps:
            continue
        batch = see_batch(config, train, epoch=epoch, step=step, world_size=world_size, shown=SHOWN)
        title = f"First batch of epoch {epoch + 1}, {recipe.train_image_size(epoch)} pixels"
        sheets += [tag("h3", title), _sheet(batch, config, train)]
    note = tag(
        "p",
        "The tensors that the network gets: after crop, flip, colours, erasing and mixing, with the seeds of the run.",
        class_="note",
    )
    return join([note, *sheets])


def validation_sheet(record: RunRecord) -> Html:
    """Validation images, evenly over the whole list, cropped as in every evaluation."""
    cells = []
    for name, pixels in crop_validation_images(record.config, record.images.val, SHOWN):
        if isinstance(pixels, ValueError):
            cells.append(tag("figure", tag("figcaption", pixels)))
        else:
            cells.append(thumbnail(pixels, tag("b", name), alt=f"validation image of {name}"))
    title = f"Validation crops, {record.config.recipe.eval_image_size} pixels"
    return join([tag("h3", title), tag("div", *cells, class_="sheet")])


def _sheet(batch: SeenBatch, config: Config, train: ImageIndex) -> Html:
    cells = []
    for pixels, words in zip(to_pixels(batch.images, config.data), describe_labels(batch, train.classes), strict=True):
        cells.append(thumbnail(pixels, tag("span", words), alt=f"training image of {words}"))
    return tag("div", *cells, class_="sheet")
