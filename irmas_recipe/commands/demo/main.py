"""`irmas demo MODEL`: a page on this machine that listens to music and shows its instruments, or a Space of it."""

import argparse
import shlex
import tempfile
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_recipe.commands.demo.arguments import GRADIO, LARGEST_FILE, parse_arguments


def main(argv: list[str]) -> None:
    """Open the page until it is stopped, or write it as a Space."""
    args = parse_arguments(argv)
    if args.export_space is None:
        open_page(args)
        return
    from irmas_recipe.commands.demo.space import export_space

    export_space(args.model, args.export_space)
    print(
        "Wrote a Space; upload it with: hf upload --repo-type space YOUR_NAME/instrument-recognition "
        f"{shlex.quote(str(args.export_space))} ."
    )


def open_page(args: argparse.Namespace) -> None:
    """Load the model and serve the page on this machine.

    Raises:
        UserError: Gradio is missing, the model cannot be loaded, or the port is taken.
    """
    try:
        import gradio  # noqa: F401  before torch, so that the missing package is reported at once
    except ModuleNotFoundError as error:
        raise UserError(f"demo needs Gradio, which is not installed: run `pip install gradio=={GRADIO}`.") from error
    from irmas_recipe.commands.demo.examples import write_examples
    from irmas_recipe.commands.demo.page import build_page
    from irmas_recipe.commands.system import load_system

    recognise = load_system(args.model, device=args.device, trust_remote_code=args.trust_remote_code)
    with tempfile.TemporaryDirectory(prefix="irmas-demo-") as folder:
        page = build_page(recognise, Path(args.model).name, write_examples(Path(folder), recognise.labels))
        try:
            page.launch(
                server_name="127.0.0.1",
                server_port=args.port,
                share=False,
                allowed_paths=[folder],
                max_file_size=LARGEST_FILE,
            )
        except OSError as error:
            raise UserError(f"Port {args.port} cannot be used; give another one with --port.") from error
