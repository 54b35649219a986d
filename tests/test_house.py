"""The house keeps its order: imports point one way, and the README tells what is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OURS = ("irmas_dataset", "irmas_metric", "models", "training", "baselines", "commands", "run_irmas")
MAY_IMPORT = {
    "irmas_dataset": {"irmas_dataset"},
    "irmas_metric": {"irmas_metric"},
    "training": {"irmas_dataset", "irmas_metric", "models", "training"},
    "baselines": {"irmas_dataset", "irmas_metric", "models", "training", "baselines"},
    "commands": {"irmas_dataset", "irmas_metric", "models", "training", "baselines", "commands"},
    "run_irmas.py": {"irmas_dataset", "training", "commands", "baselines"},
}
MODEL_LIBRARIES = {"torch", "torchaudio", "transformers", "numpy"} | set(sys.stdlib_module_names)


def imports(path: Path) -> set[tuple[int, str]]:
    """Return (dots, module) of every import in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.level, node.module or ""))
    return found


def python_files(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder):
    for path in python_files(folder):
        ours = {module.split(".")[0] for dots, module in imports(path) if dots == 0} & set(OURS)
        assert ours <= MAY_IMPORT[folder], f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[folder]}"


def test_what_travels_with_a_model_imports_only_its_own_folder():
    """Files that the Hub receives: one-dot relative imports and a few libraries, or a stranger cannot load them."""
    files = [path for path in (ROOT / "models").rglob("*.py") if path.parent != ROOT / "models"]
    files = [path for path in files if not path.name.startswith("convert_") and path.name != "__init__.py"]
    assert len(files) >= 9
    for path in files:
        for dots, module in imports(path):
            name = f"{path.relative_to(ROOT)} imports {'.' * dots}{module}"
            if dots:
                assert dots == 1 and module and "." not in module and not module.startswith("convert_"), name
            else:
                assert module.split(".")[0] in MODEL_LIBRARIES, name


def test_no_folder_is_named_after_a_library_that_we_import():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not folders & {
        "datasets",
        "evaluate",
        "transformers",
        "accelerate",
        "torch",
        "torchaudio",
        "audiomentations",
    }


def test_the_readmes_tree_is_the_repository():
    tree = re.search(r"```\n(run_irmas\.py.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    told = {line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    there = {name.split("/")[0] + ("/" if "/" in name else "") for name in tracked if name and not name.startswith(".")}
    small = {"LICENSE", "README.md", "pyproject.toml", "requirements-test.txt", "CITATION.cff"}
    assert told - small == there - small


def test_the_readmes_commands_name_what_there_is():
    readme = (ROOT / "README.md").read_text()
    verbs = {path.stem for path in (ROOT / "commands").glob("*.py") if not path.stem.startswith("_")}
    for recipe in re.findall(r"(?<![\w/])recipes/[\w/]+\.yaml", readme):
        assert (ROOT / recipe).is_file(), recipe
    used = set(re.findall(r"run_irmas\.py ([a-z_]+)(?= )", readme))
    assert used <= verbs, used - verbs
    assert verbs <= used, f"README.md does not show {verbs - used}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", readme)) <= targets


def test_every_requirement_is_pinned_and_has_a_reason():
    for name in ("requirements.txt", "requirements-test.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
        for line in lines:
            assert re.match(r"[\w.-]+==[\w.]+ +# \w", line), line
    pair = dict(re.findall(r"^(torch|torchaudio)==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert pair["torch"] == pair["torchaudio"] == "2.11.0"


def test_the_citation_and_licence_are_there():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "Apache-2.0" and citation["title"] and citation["authors"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_code_is_in_the_house_style():
    ruff = Path(sys.executable).parent / "ruff"
    for arguments in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run([str(ruff), *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]


def test_help_lists_every_verb_in_a_line_of_words(capsys):
    import run_irmas

    run_irmas.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    told = [line.split()[2] for line in lines if line.startswith("python")]
    assert told[0] == "RECIPE.yaml" and told[1:] == run_irmas.verbs()
    assert all(20 < len(line) < 120 for line in lines)
