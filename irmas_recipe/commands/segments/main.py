"""`irmas segments MODEL PATH... --output_dir D`: windows of music in class folders, to listen to, correct and train with."""

from irmas_recipe.commands.segments.arguments import parse_arguments


def main(argv: list[str]) -> None:
    """Score the windows of every file and cut out the chosen ones; exits with code 1 where some could not be read."""
    args = parse_arguments(argv)

    from irmas_recipe.commands.segments.listening import fill  # needs torch, which takes seconds

    if not fill(args):
        raise SystemExit(1)
