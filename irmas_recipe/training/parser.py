"""transformers' parser of dataclasses, with errors of one sentence and recipes as its input."""

import argparse
import copy
import difflib
import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from transformers import HfArgumentParser

from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import UNUSABLE, check_numbers
from irmas_recipe.training.recipe_file import read_recipe, run_name

NULL = "null"
"""None on the shell, as `--help` shows it and a recipe writes it."""


class RecipeParser(HfArgumentParser):
    """transformers' parser of dataclasses, whose errors are one sentence."""

    def error(self, message: str) -> None:
        message = " ".join(message.split())
        raise UserError(f"{message[0].upper()}{message[1:]} (`irmas RECIPE --help` lists the fields).")

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field) -> None:
        """Hand over the help alone, as argparse does not know bounds; let `null` stand for None where the type has it."""
        plain = copy.copy(field)
        plain.metadata = MappingProxyType({name: value for name, value in field.metadata.items() if name != "bounds"})
        HfArgumentParser._parse_dataclass_field(parser, plain)
        action = parser._option_string_actions[f"--{field.name}"]
        is_optional = type(None) in get_args(field.type)
        action.type = or_null(action.type, is_optional)
        if is_optional and action.choices is not None:
            action.choices = [*action.choices, None]


def or_null(convert: Callable[[str], Any], is_optional: bool) -> Callable[[str], Any]:
    """Return what converts the text of a value: `null` to None, or refused where the field cannot be empty."""

    @functools.wraps(convert, updated=())
    def converted(text: str) -> Any:
        if text != NULL:
            return convert(text)
        if not is_optional:
            raise argparse.ArgumentTypeError("it cannot be null: give it a value, or remove it for its default")
        return None

    return converted


def fill(path: Path, given: list[str], parts: Iterable[type]) -> tuple[list, dict[str, Any]]:
    """Return the dataclasses `parts`, filled from a recipe and the command line, and the fields that were set.

    The recipe's values become defaults, the command line wins, and `output_dir` is runs/<recipe> unless one of them
    says otherwise.

    Raises:
        UserError: an unknown field (the nearest known one is named), a wrong value, or a number out of its bounds.
    """
    parser = RecipeParser(tuple(parts), prog="irmas RECIPE", allow_abbrev=False)
    known = {action.dest: action for action in parser._actions}
    names = set()
    for item in given:
        name = item[2:].split("=")[0].replace("-", "_").removeprefix("no_") if item.startswith("--") else None
        if name is not None and name not in known:
            raise UserError(f"Unknown recipe field --{name}{nearest(name, known)}")
        names.add(name)
    replaced = {"global_train_batch_size"} & known.keys() if "per_device_train_batch_size" in names else set()
    default_output = ["--output_dir", str(Path("runs", run_name(path)))]
    untouched = vars(parser.parse_args([]))
    values = vars(parser.parse_args([*default_output, *as_arguments(path, known, replaced), *given]))
    values = {name: None if value == [None] else value for name, value in values.items()}  # a list that is null
    if broken := [name for name, value in values.items() if isinstance(value, list) and None in value]:
        raise UserError(f"--{broken[0]} has null in its list: remove it.")
    values["output_dir"] = values["output_dir"] or default_output[1]
    chosen = {name: value for name, value in values.items() if value != untouched[name]}
    if unusable := [name for name in chosen if name in UNUSABLE]:
        raise UserError(f"--{unusable[0]} {UNUSABLE[unusable[0]]}: remove it from the recipe.")
    filled = [part_of(part, values) for part in parts]
    for part in filled:
        check_numbers(part)
    return filled, chosen


def as_arguments(path: Path, known: dict[str, argparse.Action], replaced: set[str]) -> list[str]:
    """Return a recipe as command-line arguments, so that argparse converts and checks both in the same way.

    replaced: fields to leave out, because one on the command line takes their place.
    """
    arguments = []
    for name, value in read_recipe(path).items():
        if name not in known:
            raise UserError(f"{path}: unknown recipe field `{name}`{nearest(str(name), known)}")
        if name in replaced:
            continue
        if isinstance(value, dict) or (isinstance(value, list) and known[name].nargs != "+"):
            arguments.append(f"--{name}={json.dumps(value)}")
        elif isinstance(value, list):
            arguments += [f"--{name}", *(NULL if item is None else str(item) for item in value)]
        else:
            arguments.append(f"--{name}={NULL if value is None else value}")
    return arguments


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of the sentence about an unknown field: the nearest known one, if any is near."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{matches[0]}`?" if matches else "; `irmas RECIPE --help` lists them all."


def part_of(part: type, values: dict[str, Any]) -> Any:
    """Return one dataclass of the recipe; transformers checks its own fields, each in its own way."""
    try:
        return part(**{item.name: values[item.name] for item in fields(part) if item.init})
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"The recipe's fields do not go together, say transformers: {said.rstrip('.')}.") from error


def from_json(name: str, value: Any) -> Any:
    """Return a mapping or list given as JSON (on the shell) or already parsed (None stays None)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise UserError(f"--{name} is not valid JSON: {error}") from error
