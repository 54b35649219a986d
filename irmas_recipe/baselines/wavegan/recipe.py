"""The parameters of a generator, and how a recipe and the command line set them."""

from dataclasses import dataclass
from typing import Literal

from irmas_recipe.training.fields import COUNT, SEED, DataArguments, option
from irmas_recipe.training.recipe import ResolvedRecipe, parse_system


@dataclass
class WaveganArguments:
    """One generator of one class; `system: wavegan` tells such a recipe from a network's."""

    system: Literal["wavegan"] = option("wavegan", "A generator of clips.")
    instrument: str | None = option(None, "The class to learn, by its code: cel, cla, ...")
    steps: int = option(20_000, "Steps of the generator, each after five of the critic.", COUNT)
    generate: int = option(300, "Clips to write at the end.", COUNT)
    samples: int = option(16_384, "Length of a clip at 16 kHz: 16384 or 65536.")
    model_size: int = option(64, "Channels of the widest layer in time.", COUNT)
    batch_size: int = option(64, "Clips per step.", COUNT)
    save_steps: int = option(500, "Steps between checkpoints and samples.", COUNT)
    seed: int = option(0, "Seed of weights, cuts and noise.", SEED)
    output_dir: str | None = option(None, "Where everything is written. Default: runs/<recipe>.")


@dataclass
class WaveganRecipe(ResolvedRecipe):
    """The resolved parameters; `data` is the same as a network's, so that it never hears validation or test clips."""

    wavegan: WaveganArguments
    data: DataArguments


def parse_wavegan_recipe(arguments: list[str]) -> WaveganRecipe:
    """Read `RECIPE [--field value ...]`; raise UserError as `parse_recipe` does."""
    return WaveganRecipe(*parse_system(arguments, (WaveganArguments, DataArguments)))
