import pytest
import yaml

from onnxprune.config.recipe import load_recipe, save_recipe
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError


def test_a_recipe_that_was_saved_gives_the_same_job(tmp_path):
    config = PruneConfig(
        rate=0.8, allocation="erk", exclude=["conv*"], layer_rate={"fc=1": 0.5}, data="a.npz", max_drop="0.5%"
    )
    save_recipe(tmp_path / "recipe.yaml", config)
    assert PruneConfig(**load_recipe(tmp_path / "recipe.yaml")) == config
    assert set(yaml.safe_load((tmp_path / "recipe.yaml").read_text())) == set(config.to_dict())


def test_a_pattern_of_two_numbers_is_none_in_base_60(tmp_path):
    (tmp_path / "recipe.yaml").write_text("rate: 0.5\npattern: 2:4\nepochs: 10\n")
    assert load_recipe(tmp_path / "recipe.yaml") == {"rate": 0.5, "pattern": "2:4", "epochs": 10}


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rate: 0.5\nlearning-rat: 0.1\n")
    with pytest.raises(SettingError, match=r"'learning-rat'; do you mean 'learning_rate'"):
        load_recipe(recipe)


@pytest.mark.parametrize("text", ["", "- rate", "rate: [", "\x00"])
def test_a_file_that_is_not_a_recipe_is_refused(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SettingError, match="write lines like"):
        load_recipe(tmp_path / "recipe.yaml")
