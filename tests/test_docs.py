"""What the pages say is so: their commands, flags, recipes, links and pictures are there, and their outputs can be renewed."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch.distributed.run
from accelerate.commands.launch import launch_command_parser

import run_irmas
from docs import outputs

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PAGES = sorted(name for name in TRACKED if re.fullmatch(r"README\.md|docs/(?!licences).*\.md", name))
LINKING = sorted(name for name in TRACKED if re.fullmatch(r"[A-Z]+\.md|docs/.*\.md", name))
RECIPES = sorted(
    path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
    for path in (ROOT / "recipes").rglob("*.yaml")
    if path.parent.name != "accelerate"
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^(irmas|make|python|accelerate|torchrun) ")
MAY_BE_ABSENT = {
    "LICENSE", "README.md", "pyproject.toml", "requirements-test.txt", "requirements.lock", "CHANGELOG.md", "CITATION.cff",
}  # fmt: skip
"""Files at the top that the README's tree need not name."""


def page_text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """Return the words of every command of ours in a page's blocks; what a command printed is no command."""
    found = []
    for kind, block in BLOCK.findall(text):
        if kind not in ("bash", "console"):
            continue
        lines = block.replace("\\\n", " ").splitlines()
        if kind == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [shlex.split(line, comments=True) for line in lines if PROGRAM.match(line)]
    return found


EVERY_COMMAND = [(page, words) for page in PAGES for words in commands(page_text(page))]
OF_EVERY_COMMAND = pytest.mark.parametrize(
    ("page", "words"), EVERY_COMMAND, ids=[f"{page}: {shlex.join(words)}" for page, words in EVERY_COMMAND]
)


def flags_of(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if word.startswith("--")]


def split_launcher(words: list[str]) -> tuple[list[str], list[str] | None]:
    """Return a command's launcher with its options, and our program's arguments; None where it runs another program."""
    if words[0] == "irmas":
        return ["irmas"], words[1:]
    if "run_irmas.py" in words:
        start = words.index("run_irmas.py")
        return words[:start], words[start + 1 :]
    return words, None


@cache
def help_of(*arguments: str) -> str:
    """Return what our program prints for arguments that ask for help."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        run_irmas.main(list(arguments))
    return printed.getvalue()


@cache
def known_flags(name: str) -> set[str]:
    """Return every flag of a verb, or of a recipe named by its place in recipes/."""
    if name in run_irmas.VERBS:
        text = help_of(name, "--help")
        takes_fields = name == "benchmark"
        return set(re.findall(r"--\w+", text)) | (known_flags("ast/finetune") if takes_fields else set())
    path = f"recipes/{name}.yaml"
    text = help_of(path, "--help")
    if "--help_trainer" in text:
        text += help_of(path, "--help_trainer")
    return set(re.findall(r"--\w+", text)) | {"--help"}


def recipe_name(word: str) -> str:
    return word.removeprefix("recipes/").removesuffix(".yaml")


def check_ours(arguments: list[str]) -> None:
    """Assert that a command line of our program names a verb or a recipe, and flags that it knows."""
    name = recipe_name(arguments[0]) if not arguments[0].startswith("--") else "ast/finetune"
    assert name in run_irmas.VERBS or name in RECIPES, f"{arguments[0]} is neither a verb nor a recipe"
    if arguments == ["--help"]:
        return
    unknown = set(flags_of(arguments)) - known_flags(name)
    assert not unknown, f"{name} does not know {unknown}"
    for word in arguments[1:]:
        if recipe_name(word) != word or word in RECIPES:
            assert recipe_name(word) in RECIPES, word


def check_launcher(words: list[str]) -> None:
    """Assert that accelerate or torchrun know the options that a page gives them, and that the files are there."""
    if words[:2] == ["accelerate", "launch"]:
        known = launch_command_parser()._option_string_actions
    elif words[0] == "torchrun":
        known = torch.distributed.run.get_args_parser()._option_string_actions
    else:
        assert words in (["irmas"], ["python"]), words
        return
    assert not set(flags_of(words)) - set(known), words
    for word in words:
        if word.endswith(".yaml"):
            assert (ROOT / word).is_file(), word


@OF_EVERY_COMMAND
def test_a_command_names_what_there_is(page, words):
    launcher, arguments = split_launcher(words)
    if arguments is not None:
        check_launcher(launcher)
        check_ours(arguments)
    elif words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", page_text("Makefile"), re.MULTILINE))
        assert set(words[1:]) <= targets, words
    else:
        assert words[0] == "python"
        script = ROOT / (f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1])
        source = script.read_text(encoding="utf-8")
        assert all(f'"{flag}"' in source for flag in flags_of(words) if flag != "--help"), words


def test_the_pages_show_every_verb():
    shown = {arguments[0] for _, words in EVERY_COMMAND if (arguments := split_launcher(words)[1])}
    assert set(run_irmas.VERBS) - shown == set()


@pytest.mark.parametrize("page", PAGES)
def test_flags_and_recipes_in_a_pages_prose_are_known(page):
    prose = BLOCK.sub("", page_text(page))
    known = set().union(*(known_flags(verb) for verb in run_irmas.VERBS), *(known_flags(name) for name in RECIPES))
    named = {flag for code in re.findall(r"`([^`\n]+)`", prose) for flag in re.findall(r"(?<!\S)--\w+", code)}
    assert not named - known - {"--help"}
    for name in re.findall(r"`recipes/([\w/]+\.yaml)`", prose):
        assert (ROOT / "recipes" / name).is_file(), name


def test_the_page_of_recipes_lists_every_recipe_once():
    assert sorted(re.findall(r"^\| `([\w/]+)` \|", page_text("docs/recipes.md"), re.MULTILINE)) == RECIPES


def test_the_readmes_tree_is_the_repository():
    tree = re.search(r"```\n(run_irmas\.py.*?)```", page_text("README.md"), re.DOTALL)[1]
    told = {line.split()[0] for line in tree.splitlines()}
    there = {name.split("/")[0] + "/" * ("/" in name) for name in TRACKED if not name.startswith(".")}
    assert told - MAY_BE_ABSENT == there - MAY_BE_ABSENT


def test_the_readme_fits_on_160_lines_and_names_every_page():
    readme = page_text("README.md")
    assert len(readme.splitlines()) <= 160
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in readme, page


def test_figures_in_the_readme_are_those_of_results():
    figures = re.findall(r"[+-]?\.\d{3} \[[^\]]+\]", page_text("README.md"))
    assert figures
    for figure in figures:
        assert figure in page_text("RESULTS.md"), figure


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", LINKING)
def test_links_anchors_and_pictures_of_a_page_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page_text(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_picture_is_shown_on_some_page():
    shown = "".join(page_text(page) for page in LINKING)
    for picture in sorted((ROOT / "docs/images").iterdir()):
        assert f"images/{picture.name})" in shown, picture.name


def test_outputs_are_renewed_below_their_commands_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "displayhook", outputs.show)
    page = (
        "Text\n```console\n$ echo one \\\n    two\nold\n$ pwd\n$ seq 30\n```\n```bash\necho kept\nkept\n```\n"
        "```pycon\n>>> value = [1]\n>>> for n in value:\n...     print(n)\nold\n>>> value\nold\n```\nEnd\n"
    )
    new = outputs.renewed(page, tmp_path)
    first = "\n".join(str(number) for number in range(1, outputs.FIRST_LINES + 1))
    assert new == (
        f"Text\n```console\n$ echo one \\\n    two\none two\n$ pwd\n.\n$ seq 30\n{first}\n...\n30\n```\n"
        "```bash\necho kept\nkept\n```\n"
        "```pycon\n>>> value = [1]\n>>> for n in value:\n...     print(n)\n1\n>>> value\n[1]\n```\nEnd\n"
    )
    assert outputs.renewed(new, tmp_path) == new


def test_a_failing_command_stops_the_renewal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="`ls nowhere` failed"):
        outputs.renewed("```console\n$ ls nowhere\n```\n", tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_the_outputs_of_a_page_have_been_filled_in(page):
    """A console block begins with a command, and nothing on the page names a folder of the machine that ran it."""
    text = page_text(page)
    for kind, block in outputs.BLOCK.findall(text):
        assert block.startswith("$ " if kind == "console" else ">>> "), block
    assert not re.search(r"(?<![\w./])/(?:tmp|work|home|root)/", text)
