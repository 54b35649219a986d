"""Run the commands of the pages and write what they print below them.

make quickstart && python docs/outputs.py [PAGE ...]

Each page runs from top to bottom in a new folder that looks like a clone in which only `make quickstart` has run: the
commands of its `console` blocks and the statements of its `pycon` blocks. Whatever else they read, the page has made.
The pictures that come from these runs are renewed as well.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from pprint import pformat

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(console|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INPUTS = {
    "console": re.compile(r"^\$ (?:.*\\\n)*.*$", re.MULTILINE),  # continues after a backslash
    "pycon": re.compile(r"^>>> .*(?:\n\.\.\. .*)*$", re.MULTILINE),
}
PROMPT = re.compile(r"^(?:\$|>>>|\.\.\.) ", re.MULTILINE)
FIRST_LINES = 16  # of an output that are kept, with its last one
WIDTH = 100
PICTURES = {
    "runs/quickstart/figures/per_class_f1.png": "docs/images/per_class_f1.png",
    "timelines/saxophone, then organ.wav.png": "docs/images/timeline.png",
}


def main(pages: list[Path]) -> None:
    """Renew the outputs on these pages, or on all of them."""
    if not (ROOT / "runs/quickstart/README.md").is_file():
        raise SystemExit("runs/quickstart is missing or unfinished: run `make quickstart` first.")
    os.environ |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": str(WIDTH)}
    sys.displayhook = show
    sys.path.insert(0, "")  # the working folder, as at Python's prompt
    for page in pages or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            imitate_clone(Path(folder))
            page.write_text(renewed(page.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")
            for made in filter(os.path.exists, PICTURES):
                shutil.copyfile(made, ROOT / PICTURES[made])


def imitate_clone(folder: Path) -> None:
    """Link the repository's files into a folder, with the music and the run of `make quickstart`."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    made = [path.relative_to(ROOT) for path in (*ROOT.glob("data/synthetic-*"), ROOT / "runs/quickstart")]
    for name in {name.split("/")[0] for name in listing.splitlines()} | {str(path) for path in made}:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)


def renewed(page: str, folder: Path) -> str:
    """Return the text of a page with the outputs that its inputs give in a folder."""
    namespace: dict = {}

    def renew(block: re.Match) -> str:
        kind, lines = block[1], []
        for given in INPUTS[kind].findall(block[2]):
            plain = PROMPT.sub("", given)
            output = run_command(plain) if kind == "console" else run_statement(plain, namespace)
            lines += [given, *shortened(output.replace(str(folder), "."))]
        return "\n".join([f"```{kind}", *lines, "```"])

    return BLOCK.sub(renew, page)


def run_command(command: str) -> str:
    """Return what a command of the shell prints; `irmas` is the program of this clone."""
    shell = ["bash", "-c", f'irmas() {{ python run_irmas.py "$@"; }}\n{command}']
    done = subprocess.run(shell, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"`{command}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def run_statement(statement: str, namespace: dict) -> str:
    """Return what a Python statement prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(statement + "\n", "<page>", "single"), namespace)
    return printed.getvalue()


def show(value: object) -> None:
    """Print a value as Python's prompt does, in lines of the pages' width."""
    if value is not None:
        print(pformat(value, width=WIDTH, sort_dicts=False))


def shortened(output: str) -> list[str]:
    """Return the lines of an output, without what lies between the first ones and the last of a long one."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    return lines if len(lines) <= FIRST_LINES + 1 else [*lines[:FIRST_LINES], "...", lines[-1]]


if __name__ == "__main__":
    main([Path(page).resolve() for page in sys.argv[1:]])
