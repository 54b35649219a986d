"""Recipes: the YAML sets defaults, the command line wins, and every mistake is one sentence."""

import pytest
import yaml

from irmas_dataset.errors import UserError
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.recipe_file import find_recipe, run_name, shipped_recipes, system_of


@pytest.fixture
def recipe(tmp_path):
    def write(**values):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"use_cpu": True, **values}))
        return str(path)

    return write


def test_the_command_line_wins_over_the_recipe(recipe):
    path = recipe(learning_rate="5e-5", window_seconds=1, mix_probability=0.5)
    parsed = parse_recipe([path, "--window_seconds", "2.5", "--mix_probability=0.25"])
    assert parsed.training.learning_rate == 5e-5  # a YAML reader leaves 5e-5 a string
    assert (parsed.data.window_seconds, parsed.augmentation.mix_probability) == (2.5, 0.25)


def test_a_field_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text in ("seed: 1\nuse_cpu: true\nseed: 2\n", "model_config: {seed: 1, seed: 2}\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"recipe\.yaml is not valid YAML: `seed` stands twice .*line 1"):
            parse_recipe([str(path)])


def test_mappings_and_lists_come_from_yaml_and_from_json(recipe):
    path = recipe(model_config={"hidden_size": 48}, audiomentations=[{"PitchShift": {"p": 0.5}}])
    parsed = parse_recipe([path, "--feature_extractor_config", '{"mean": 0.0}'])
    assert parsed.model.model_config == {"hidden_size": 48}
    assert parsed.model.feature_extractor_config == {"mean": 0.0}
    assert parsed.augmentation.audiomentations == [{"PitchShift": {"p": 0.5}}]


def test_the_resolved_recipe_can_be_run_again(recipe, tmp_path):
    parsed = parse_recipe([recipe(num_train_epochs=2, weight_decay=0.1), "--seed", "3", "--mix_probability", "1"])
    saved = tmp_path / "resolved.yaml"
    parsed.save(saved)
    assert parse_recipe([str(saved)]).values() == parsed.values()
    assert parsed.values()["seed"] == 3


NULLS = {"save_total_limit": None, "metric_for_best_model": None, "report_to": None, "soup": None, "output_dir": None}


@pytest.mark.parametrize("is_in_recipe", [True, False], ids=["in the recipe", "on the shell"])
def test_null_empties_a_field_whose_default_is_something_else(recipe, tmp_path, is_in_recipe):
    nulls = {**NULLS, "load_best_model_at_end": False}
    shell = [text for name in NULLS for text in (f"--{name}", "null")]
    path = recipe(**nulls) if is_in_recipe else recipe(load_best_model_at_end=False, save_total_limit=4)
    parsed = parse_recipe([path, *([] if is_in_recipe else shell)])
    training = parsed.training
    assert (training.save_total_limit, training.metric_for_best_model, training.report_to) == (None, None, [])
    assert parsed.model.soup is None and training.output_dir == "runs/recipe"
    parsed.save(tmp_path / "resolved.yaml")
    again = parse_recipe([str(tmp_path / "resolved.yaml")])
    assert again.training.save_total_limit is None and again.values() == parsed.values()
    assert parse_recipe([path, "--save_total_limit", "3"]).training.save_total_limit == 3


@pytest.mark.parametrize(
    "field", ["learning_rate", "seed", "window_seconds", "architecture", "eval_strategy", "use_cpu"]
)
def test_null_is_refused_by_name_where_a_field_cannot_be_empty(recipe, field):
    for values, shell in (({field: None}, []), ({}, [f"--{field}", "null"])):
        with pytest.raises(UserError, match=f"--{field}.* cannot be null: give it a value") as error:
            parse_recipe([recipe(**values), *shell])
        assert "\n" not in str(error.value)


def test_windows_per_evaluated_batch_are_chosen_for_the_device_and_no_part_of_the_recipe(recipe):
    chosen = parse_recipe([recipe()])
    assert chosen.training.per_device_eval_batch_size == chosen.training.eval_batch_size == 8
    assert "per_device_eval_batch_size" not in chosen.values()
    given = parse_recipe([recipe(per_device_eval_batch_size=64)])
    assert given.training.eval_batch_size == given.values()["per_device_eval_batch_size"] == 64


def test_by_default_nothing_is_sent_anywhere_and_the_cpu_neither_compiles(recipe):
    training = parse_recipe([recipe()]).training
    assert training.report_to == [] and not training.push_to_hub and not training.compile_model


def test_a_recipe_can_be_named_by_its_place():
    assert (
        parse_recipe(["ast/finetune", "--use_cpu"]).model.model_name_or_path
        == "MIT/ast-finetuned-audioset-10-10-0.4593"
    )
    assert find_recipe("recipes/quickstart.yaml").samefile(find_recipe("quickstart"))
    assert {run_name(path) for path in shipped_recipes()} >= {"ast-finetune", "quickstart", "classical-svm"}


@pytest.mark.parametrize(
    ("name", "nearest"), [("ast/finetun", "ast/finetune"), ("predit", "predict"), ("quikstart", "quickstart")]
)
def test_the_nearest_recipe_or_verb_is_suggested(name, nearest):
    with pytest.raises(UserError, match=f"no recipe or verb `{name}`; did you mean `{nearest}`"):
        system_of([name], ["predict", "compare"])


def test_a_flag_without_a_recipe_is_refused():
    with pytest.raises(UserError, match="Name a recipe or a verb before --use_cpu"):
        system_of(["--use_cpu"])


def test_help_shows_each_field_with_the_recipes_value_and_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_recipe(["ast/finetune", "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--mix_max_clips 3  (default: 2)" in printed and "between 2 and 5" in printed
    assert "One of none, backbone, feature_encoder, batch_norm, known_labels." in " ".join(printed.split())
    assert "--learning_rate 5" in printed.split("This recipe sets:")[1]
    assert max(map(len, printed.splitlines())) <= 110


@pytest.mark.parametrize(
    ("values", "arguments", "words"),
    [
        ({"learning_rat": 1}, [], ["learning_rat", "learning_rate"]),
        ({}, ["--lerning_rate", "1"], ["lerning_rate", "learning_rate"]),
        ({"num_train_epochs": "many"}, [], ["num_train_epochs"]),
        ({"bf16": "perhaps"}, [], ["bf16"]),
        ({"aggregation": "median"}, [], ["aggregation", "median"]),
        ({}, ["--model_config", "{"], ["model_config", "JSON"]),
        ({"window_seconds": 0}, [], ["window_seconds"]),
        ({"window_seconds": 1, "hop_seconds": 2}, [], ["hop_seconds"]),
        ({"mix_probability": 1.5}, [], ["mix_probability"]),
        ({"mix_max_clips": 9}, [], ["mix_max_clips"]),
        ({"min_gain_db": 3, "max_gain_db": -3}, [], ["min_gain_db", "max_gain_db"]),
        ({"patchout_time": -1}, [], ["patchout"]),
        ({"layer_decay": 0}, [], ["layer_decay"]),
        ({"initial_weight": 2}, [], ["initial_weight"]),
        ({"validation_fraction": 1}, [], ["validation_fraction"]),
        (
            {"metric_for_best_model": None, "load_best_model_at_end": False, "save_strategy": "best"},
            [],
            ["metric_for_best_model null", "map"],
        ),
        ({"soup": ["runs/a", None]}, [], ["soup", "null"]),
        ({}, ["--soup", "runs/a", "null"], ["soup", "null"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(recipe, values, arguments, words):
    with pytest.raises(UserError) as error:
        parse_recipe([recipe(**values), *arguments])
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_missing_or_broken_recipe_is_named(tmp_path):
    with pytest.raises(UserError, match="no recipe or verb"):
        parse_recipe([str(tmp_path / "absent.yaml")])
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        parse_recipe([str(broken)])


def test_the_global_batch_is_divided_and_a_batch_per_device_on_the_command_line_replaces_it(recipe):
    path = recipe(global_train_batch_size=32)
    divided = parse_recipe([path, "--gradient_accumulation_steps=4"])
    assert divided.training.per_device_train_batch_size == 8 and divided.values()["global_train_batch_size"] == 32
    replaced = parse_recipe([path, "--per_device_train_batch_size=5"])
    assert replaced.training.per_device_train_batch_size == 5 and "global_train_batch_size" not in replaced.values()
    with pytest.raises(UserError, match="cannot be divided by 3"):
        parse_recipe([path, "--gradient_accumulation_steps=3"])
