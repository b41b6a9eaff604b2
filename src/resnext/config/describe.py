"""A recipe in words: the first lines of a run, and the table of all recipes."""

from dataclasses import replace

from resnext.config.augmentation import AugmentationConfig, MixingConfig
from resnext.config.recipe import InitConfig, OptimizerConfig, RecipeConfig, TeacherConfig

OPTIMIZERS = {"sgd": "Nesterov SGD", "momentum": "SGD", "lamb": "LAMB", "adamw": "AdamW"}
NOT_DECAYED = {
    "all": "",
    "all_but_norms": ", not on norms",
    "all_but_norms_outside_shortcuts": ", not on norms except those of shortcuts",
    "all_but_norms_and_biases": ", not on norms and biases",
}


def describe_recipe(recipe: RecipeConfig) -> dict[str, str]:
    """Label → text, for each part of the recipe that has an effect."""
    scaled = f"{recipe.lr_scaling} from {recipe.optimizer.lr:g} at batches of {recipe.lr_batch_size}"
    lines = {
        "recipe": describe_optimizer(recipe.optimizer, recipe.lr),
        "lr": f"{recipe.lr:.6g} at batches of {recipe.batch_size}, {scaled}" if recipe.lr_factor != 1 else "",
        "schedule": describe_schedule(recipe),
        "loss": ", ".join([_loss(recipe), *describe_mixing(recipe.mixing)]),
        "init": ", ".join(_init(recipe.init)),
        "augment": ", ".join(describe_augmentation(recipe.augmentation)),
        "depth": f"stochastic, {recipe.drop_path_rate:g} at the last block" if recipe.drop_path_rate else "",
        "ema": _average(recipe),
        "teacher": _teacher(recipe.teacher),
        "stopping": f"if {recipe.early_stopping.words}" if recipe.early_stopping.monitor else "",
    }
    return {name: line for name, line in lines.items() if line}


def describe_optimizer(config: OptimizerConfig, lr: float) -> str:
    """`LAMB, lr 0.005, weight decay 0.01, not on norms and biases`."""
    momentum = [f"momentum {config.momentum:g}"] if config.momentum is not None else []
    layers = [f"layer decay {config.layer_decay:g}"] if config.layer_decay else []
    clipping = [f"gradient norm at most {config.clip_grad_norm:g}"] if config.clip_grad_norm else []
    decay = f"weight decay {config.weight_decay:.5g}" + (
        NOT_DECAYED[config.weight_decay_on] if config.weight_decay else ""
    )
    return ", ".join([optimizer_name(config), f"lr {lr:.6g}", *momentum, decay, *layers, *clipping])


def lr_warning(recipe: RecipeConfig) -> str | None:
    """A warning if the learning rate is for another batch size. This mistake has cost others 4 points of accuracy."""
    if recipe.lr_batch_size in (None, recipe.batch_size) or recipe.lr_scaling != "none":
        return None
    lr, meant_for = recipe.optimizer.lr, recipe.lr_batch_size
    linear, square_root = (replace(recipe, lr_scaling=scaling).lr for scaling in ("linear", "sqrt"))
    return (
        f"recipe.optimizer.lr={lr:g} is meant for batches of {meant_for}, not of {recipe.batch_size}: "
        f"recipe.lr_scaling=linear would make it {linear:.4g}, sqrt {square_root:.4g}"
    )


def describe_image_sizes(recipe: RecipeConfig) -> str:
    """`128 → 176 → 224`."""
    return " → ".join(map(str, recipe.train_image_sizes()))


def optimizer_name(config: OptimizerConfig) -> str:
    return OPTIMIZERS.get(config.name, config.name)


def describe_schedule(recipe: RecipeConfig) -> str:
    """`cosine, warm-up 5 epochs, constant within an epoch`."""
    schedule = recipe.schedule
    shape = {
        "step": f"× {schedule.decay_rate:g} every {_epochs(schedule.decay_epochs)}",
        "multistep": f"× {schedule.decay_rate:g} at epochs {', '.join(f'{epoch:g}' for epoch in schedule.milestones)}",
    }.get(schedule.name, schedule.name)
    named = {
        f"warm-up {_epochs(schedule.warmup_epochs)}": schedule.warmup_epochs,
        f"hold {_epochs(schedule.hold_epochs)}": schedule.hold_epochs,
        f"cool-down {_epochs(schedule.cooldown_epochs)}": schedule.cooldown_epochs,
        "constant within an epoch": schedule.every == "epoch",
    }
    return ", ".join([shape, *[name for name, on in named.items() if on]])


def describe_mixing(config: MixingConfig) -> list[str]:
    """`mixup 0.2` and `cutmix 1`, if they are on."""
    alphas = {"mixup": config.mixup_alpha, "cutmix": config.cutmix_alpha} if config.on else {}
    return [f"{name} {alpha:g}" for name, alpha in alphas.items() if alpha]


def describe_augmentation(config: AugmentationConfig) -> list[str]:
    """The transforms, in order."""
    crop = f"crop {config.scale[0]:g}-{config.scale[1]:g}" if config.pad is None else f"pad {config.pad}, crop"
    named = {
        "flip": bool(config.hflip),
        str(config.auto_augment): config.auto_augment is not None,
        f"jitter {config.color_jitter:g}": bool(config.color_jitter),
        f"lighting {config.lighting:g}": bool(config.lighting),
        f"erase {config.erasing:g}" + (f" × {config.erasing_count}" if config.erasing_count > 1 else ""): (
            bool(config.erasing)
        ),
        f"{config.repeats} repeats": config.repeats > 1,
    }
    return [crop, *[name for name, on in named.items() if on]]


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'' if count == 1 else 's'}"


def _loss(recipe: RecipeConfig) -> str:
    if recipe.teacher.name and recipe.teacher.weight == 1:
        return "the teacher's alone, without labels"
    return recipe.loss.words


def _init(config: InitConfig) -> list[str]:
    named = {
        f"convolutions from N(0, 2 / {config.conv})": config.conv is not None,
        f"last norm of each block at {0 if config.zero_init_last else 1}": config.zero_init_last is not None,
        "classifier's bias at 0": config.zero_classifier_bias,
    }
    return [name for name, on in named.items() if on]


def _teacher(config: TeacherConfig) -> str:
    if config.name is None or config.weight == 0:
        return ""
    softened = f", temperature {config.temperature:g}" if config.temperature != 1 else ""
    share = f", {config.weight:g} of the loss" if config.weight < 1 else ""
    return config.name + share + softened


def _average(recipe: RecipeConfig) -> str:
    config, decay = recipe.ema, recipe.ema_decay
    if decay is None:
        return ""
    steps = "every step" if config.every_steps == 1 else f"every {config.every_steps} steps"
    warmup = f", from epoch {config.warmup_epochs + 1:g} on" if config.warmup_epochs else ""
    return f"EMA, {decay:.6g} {steps}{warmup}; chooses best.ckpt"
