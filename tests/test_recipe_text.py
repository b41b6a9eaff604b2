"""A recipe in words."""

import pytest

from conftest import small_config
from resnext.recipe_text import describe_recipe


@pytest.mark.parametrize(
    ("name", "text"),
    [("cross_entropy", "cross-entropy"), ("binary_cross_entropy", "BCE"), ("focal", "focal")],
)
def test_a_loss_is_announced_by_its_name(tmp_path, name: str, text: str):
    recipe = small_config(tmp_path).recipe
    object.__setattr__(recipe.loss, "name", name)  # also one that the schema does not have yet
    assert describe_recipe(recipe)["loss"] == text
