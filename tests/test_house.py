"""The house keeps its order: imports point one way, and the README tells what is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import run_irmas

ROOT = Path(__file__).parents[1]
RECIPE = "irmas_recipe"
MAY_IMPORT = {
    "irmas_dataset": ["irmas_dataset"],
    "irmas_metric": ["irmas_metric"],
    f"{RECIPE}/home.py": [],
    f"{RECIPE}/models": [
        f"{RECIPE}.models",
        "irmas_dataset.errors",
        "irmas_dataset.labels",
        "irmas_dataset.whole_file",
    ],
    f"{RECIPE}/training": ["irmas_dataset", "irmas_metric", f"{RECIPE}.home", f"{RECIPE}.models", f"{RECIPE}.training"],
    f"{RECIPE}/report": [
        "irmas_dataset",
        "irmas_metric",
        f"{RECIPE}.home",
        f"{RECIPE}.models",
        f"{RECIPE}.training",
        f"{RECIPE}.report",
    ],
    f"{RECIPE}/baselines": [
        "irmas_dataset",
        "irmas_metric",
        f"{RECIPE}.home",
        f"{RECIPE}.models",
        f"{RECIPE}.training",
        f"{RECIPE}.report",
        f"{RECIPE}.baselines",
    ],
    f"{RECIPE}/commands": ["irmas_dataset", "irmas_metric", RECIPE],
    "run_irmas.py": ["irmas_dataset", RECIPE],
}
"""Room -> the modules, and what lies below them, that it may name: as an import or in a string."""
PIPELINE_LIBRARIES = {"soundfile", "soxr", "librosa"}
MODEL_LIBRARIES = {"torch", "torchaudio", "transformers", "numpy"} | set(sys.stdlib_module_names)


OURS = re.compile(rf"^(?:irmas_dataset|irmas_metric|{RECIPE}|run_irmas)(?:\.\w+)*$")


def imports(path: Path) -> set[tuple[int, str]]:
    """Return (dots, module) of every import in a file; `from package import name` counts as package.name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                (node.level, f"{node.module}.{alias.name}" if node.module else alias.name) for alias in node.names
            }
    return found


def names_of_ours(path: Path) -> set[str]:
    """Return every module of ours that a file names: in an import, or as a dotted string that could be imported."""
    strings = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value
    }
    return {name for name in {module for dots, module in imports(path) if dots == 0} | strings if OURS.match(name)}


def tracked(pattern: str) -> list[str]:
    """Return the repository's files that match a pattern."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]


def python_files(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def is_allowed(name: str, allowed: list[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in allowed)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_and_dotted_strings_point_one_way(folder):
    files = python_files(folder)
    assert files
    for path in files:
        wrong = [name for name in names_of_ours(path) if not is_allowed(name, MAY_IMPORT[folder])]
        assert not wrong, f"{path.relative_to(ROOT)} names {wrong}"


def test_nothing_but_the_entrances_imports_commands():
    others = [ROOT / name for name in tracked("*.py") if not name.startswith(("tests/", f"{RECIPE}/commands/"))]
    for entrance in ("run_irmas.py", f"{RECIPE}/catalogue.py"):  # of the shell, and of DataTrove
        others.remove(ROOT / entrance)
    assert others
    for path in others:
        named = [name for name in names_of_ours(path) if is_allowed(name, [f"{RECIPE}.commands"])]
        assert not named, f"{path.relative_to(ROOT)} names {named}"


def test_the_layering_test_sees_dotted_strings(tmp_path):
    (tmp_path / "sly.py").write_text(
        "import sys\nTOOL = 'irmas_recipe.commands.predict'\nfrom irmas_dataset import errors\n"
    )
    assert names_of_ours(tmp_path / "sly.py") == {"irmas_recipe.commands.predict", "irmas_dataset.errors"}


def test_what_travels_with_a_model_imports_only_its_own_folder():
    """Files that the Hub receives: one-dot relative imports and a few libraries, or a stranger cannot load them."""
    models = ROOT / RECIPE / "models"
    files = [path for path in models.rglob("*.py") if path.parent != models]
    files = [path for path in files if not path.name.startswith("convert_") and path.name != "__init__.py"]
    assert len(files) >= 9
    for path in files:
        for dots, module in imports(path):
            name = f"{path.relative_to(ROOT)} imports {'.' * dots}{module}"
            if dots:
                assert dots == 1 and module.count(".") == 1 and not module.startswith("convert_"), name
            else:
                extra = PIPELINE_LIBRARIES if path.parent.name == "pipeline" else set()
                assert module.split(".")[0] in MODEL_LIBRARIES | extra, name


def test_no_function_is_longer_than_fifty_lines():
    long = [
        f"{name}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name in tracked("*.py")
        for node in functions(ROOT / name)
        if node.end_lineno - node.lineno >= 50
    ]
    assert not long, long


def test_nothing_is_imported_by_a_string_and_no_lambda_has_a_name():
    for name in tracked("*.py"):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not {"__import__", "import_module", "importlib.import_module"} & set(calls), name
        named = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Lambda)
            and isinstance(node.targets[0], ast.Name)
        ]
        assert not named, f"{name}: {named}"


def test_no_module_is_private():
    names = [Path(name).name for name in tracked("*.py")]
    assert not [name for name in names if name.startswith("_") and name != "__init__.py"]


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
    run_irmas.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    told = [line.split()[1] for line in lines if line.startswith("irmas ")]
    assert told[0] == "RECIPE" and told[1:] == list(run_irmas.VERBS)
    assert all(10 < len(line) < 120 for line in lines if line)
