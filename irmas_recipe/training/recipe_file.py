"""A recipe's file: where it is, what it says, and the help on its fields. Imports nothing slow."""

import difflib
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

import yaml

from irmas_dataset.errors import UserError
from irmas_recipe.home import shipped
from irmas_recipe.training.fields import TRAINER_BOUNDS

SYSTEMS = ("network", "classical", "wavegan", "ensemble")
"""What a recipe can name as its `system`, a network being the default; run_irmas.py says what each runs."""

HELP_WIDTH = 100


def find_recipe(name: str, other_names: Sequence[str] = ()) -> Path:
    """Return the file of a recipe that is named by its path, or by its place in recipes/, such as `ast/finetune`.

    Raises:
        UserError: there is none; the nearest name is suggested, among them `other_names`.
    """
    known = {path.relative_to(shipped("recipes")).with_suffix("").as_posix(): path for path in shipped_recipes()}
    if Path(name).is_file():
        return Path(name)
    short = name.removeprefix("recipes/").removesuffix(".yaml")
    if short in known:
        return known[short]
    nearest = difflib.get_close_matches(short, [*known, *other_names], n=1)
    hint = (
        f"did you mean `{nearest[0]}`?" if nearest else "`irmas --help` lists the verbs, docs/recipes.md the recipes."
    )
    raise UserError(f"There is no recipe or verb `{name}`; {hint}")


def shipped_recipes() -> list[Path]:
    """Return the recipes that come with the program, without the hardware's configurations."""
    return sorted(path for path in shipped("recipes").rglob("*.yaml") if path.parent.name != "accelerate")


class RecipeLoader(yaml.SafeLoader):
    """YAML in which a field may stand once: of two values the first would be dropped without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(problem=f"`{twice[0]}` stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> dict[str, Any]:
    """Return a recipe's fields; raise UserError where the file is not a mapping of fields."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it must hold `field: value` lines.")
    return values


def system_of(arguments: list[str], other_names: Sequence[str] = ()) -> str:
    """Return the `system` that the recipe on the command line names; a recipe that names none is a network's.

    Raises:
        UserError: no recipe, or one of an unknown system.
    """
    if arguments[0].startswith("-"):
        raise UserError(f"Name a recipe or a verb before {arguments[0]}, for example `ast/finetune`.")
    path = find_recipe(arguments[0], other_names)
    system = read_recipe(path).get("system", "network")
    if system not in SYSTEMS:
        raise UserError(f"{path}: system {system} is not one of {', '.join(SYSTEMS[1:])}.")
    return system


def system_of_run(folder: Path) -> str:
    """Return the `system` of a run folder, by its recipe; a folder without one may hold a network."""
    recipe = folder / "recipe.yaml"
    return read_recipe(recipe).get("system", "network") if recipe.is_file() else "network"


def run_name(recipe: Path) -> str:
    """Return the name of a recipe's run folder: recipes/ast/finetune.yaml -> ast-finetune."""
    folders = recipe.resolve().parts
    inside = folders[folders.index("recipes") + 1 : -1] if "recipes" in folders else ()
    return "-".join([*inside, recipe.stem])


def asks_for_help(arguments: list[str]) -> bool:
    """Return whether the command line asks for the fields instead of a run."""
    return bool({"--help", "-h"} & set(arguments))


def show_help(name: str, parts: Sequence[type]) -> None:
    """Print every field of a recipe, with its value there, and end the program."""
    values = read_recipe(find_recipe(name))
    print(f"irmas {name} [--field value ...]")
    for part in parts:
        print(f"\n{part.__doc__.splitlines()[0]}\n")
        for item in fields(part):
            default = item.default_factory() if item.default is MISSING else item.default
            print(*field_lines(item, default, values.get(item.name, default)), sep="\n")
    if any("layer_decay" in part.__dataclass_fields__ for part in parts):
        print("\nEvery field of transformers' TrainingArguments works too: --help_trainer lists them.")
        ours = {item.name for part in parts for item in fields(part)}
        if of_trainer := [name for name in values if name not in ours]:
            print("This recipe sets:", *(f"  --{name} {shown(values[name])}" for name in of_trainer), sep="\n")
    sys.exit(0)


def field_lines(item: Any, default: Any, value: Any) -> list[str]:
    """Return what the help says about a field: its value in the recipe, its default if that differs, and its words."""
    changed = "" if value == default else f"  (default: {shown(default)})"
    bounds = item.metadata.get("bounds") or TRAINER_BOUNDS.get(item.name)
    choices = get_args(item.type) if str(item.type).startswith("typing.Literal") else ()
    words = item.metadata.get("help", "")
    words += f" One of {', '.join(choices)}." if choices else f" A number {bounds}." if bounds else ""
    return [f"  --{item.name} {shown(value)}{changed}", *textwrap.wrap(words, HELP_WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)]  # fmt: skip


def shown(value: Any) -> str:
    """Return a field's value as a recipe would hold it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
