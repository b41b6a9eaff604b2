"""Draws the learning rate of a training as SVG."""

import math
from xml.sax.saxutils import escape

from resnext.config.recipe import RecipeConfig
from resnext.task.optimization import lr_at, total_steps
from resnext.terminal import pluralize

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 44, 48  # margins, in pixels
POINTS = 1500  # approximate maximum number of drawn steps
INK, GRID, LINE = "#222", "#ddd", "#1f6fb4"


def sample_lr(recipe: RecipeConfig, steps_per_epoch: int) -> dict[int, float]:
    """Step → learning rate, for at most POINTS + 2 steps, with the first, the last and the first after the warm-up."""
    total = total_steps(recipe, steps_per_epoch)
    count = min(POINTS, total)
    steps = {round(index * (total - 1) / count) for index in range(count + 1)}
    warmed_up = math.ceil(recipe.schedule.warmup_epochs * steps_per_epoch)
    steps |= {warmed_up} if warmed_up < total else set()
    return {step: lr_at(step, recipe, steps_per_epoch) for step in sorted(steps)}


def draw_lr_curve(recipe: RecipeConfig, steps_per_epoch: int, title: str) -> str:
    """An SVG image of the rate over the epochs."""
    rates = sample_lr(recipe, steps_per_epoch)
    epochs, highest = total_steps(recipe, steps_per_epoch) / steps_per_epoch, max(rates.values()) or 1.0

    def place(epoch: float, rate: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * epoch / epochs
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / highest

    points = [place(step / steps_per_epoch, rate) for step, rate in rates.items()]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        *(_horizontal(part * highest, place(0, part * highest)[1]) for part in (0, 0.25, 0.5, 0.75, 1)),
        *(_vertical(part * epochs, place(part * epochs, 0)[0]) for part in (0, 0.25, 0.5, 0.75, 1)),
        f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-width="2" stroke-linejoin="round"/>',
        _text(LEFT, 24, f"learning rate: {title}, batch {recipe.batch_size}", "start", 15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, f"epoch, of {pluralize(steps_per_epoch, 'step')}", "middle", 12),
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {size}>'
    return "\n".join([opening, f'<rect {size} fill="white"/>', *parts, "</svg>\n"])


def _horizontal(rate: float, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
    return line + _text(LEFT - 8, y + 4, f"{rate:.4g}", "end", 12)


def _vertical(epoch: float, x: float) -> str:
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{GRID}"/>'
    return line + _text(x, HEIGHT - BOTTOM + 18, f"{epoch:.4g}", "middle", 12)


def _text(x: float, y: float, text: str, anchor: str, size: int) -> str:
    style = f'font-family="sans-serif" font-size="{size}" fill="{INK}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
