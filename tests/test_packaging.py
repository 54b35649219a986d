"""The wheel holds everything and works from any directory; what is imported is listed and pinned."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from irmas_recipe.commands.demo.arguments import GRADIO

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = {"irmas_dataset", "irmas_metric", "irmas_recipe", "run_irmas", "experiments", "docs", "tests"}
PACKAGES = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
"""Name in an import -> name of the package, where they differ."""
OPTIONAL = {"trackio", "wandb", "torchcodec", "gradio-client"}
"""Used only where a user has installed them: trackers, the benchmark's opponent, and a client that comes with gradio."""
NOT_IMPORTED = {
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a program",
    "tensorboard": "transformers imports it",
    "hatchling": "builds the wheel",
    "hatch-requirements-txt": "builds the wheel",
}


def imported(folders: list[str]) -> set[str]:
    """Return the packages that the tracked Python files of these folders import."""
    names = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = set()
    for name in names.splitlines():
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))) if name.endswith(".py") else ():
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module)
    roots = {module.split(".")[0] for module in modules} - OURS - set(sys.stdlib_module_names)
    return {PACKAGES.get(root, root).replace("_", "-") for root in roots}


def listed() -> dict[str, str]:
    """Return the direct requirements as they are written, by name: those of every run, and of the extras."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    extras = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    return {Requirement(line).name.lower(): line for line in [*filter(None, lines), *extras]}


def test_everything_imported_is_listed_and_everything_listed_is_imported():
    product = imported(["irmas_dataset", "irmas_metric", "irmas_recipe", "experiments", "run_irmas.py"])
    everything = product | imported(["tests", "docs"])
    assert everything - OPTIONAL <= set(listed()), everything - OPTIONAL - set(listed())
    assert set(listed()) - set(NOT_IMPORTED) <= everything, set(listed()) - set(NOT_IMPORTED) - everything


def test_the_product_needs_no_package_of_the_tests():
    product = imported(["irmas_dataset", "irmas_metric", "irmas_recipe", "experiments", "run_irmas.py"])
    tests_only = {Requirement(line).name for line in PROJECT["project"]["optional-dependencies"]["test"]}
    assert not product & tests_only


def test_every_requirement_is_pinned_with_a_reason_and_the_lock_has_the_same_versions():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert not line or line.startswith("#") or re.match(r"[\w.-]+==[\w.]+ +# \w", line), line
    lock = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for name, line in listed().items():
        if name != "gradio":  # its many packages are the demo's own
            assert f"{name}=={lock[name]}" == line.lower().replace("_", "-")
    assert lock["torch"] == lock["torchaudio"] == "2.11.0"


def test_the_demos_gradio_is_that_of_the_extra():
    assert PROJECT["project"]["optional-dependencies"]["demo"] == [f"gradio=={GRADIO}"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the wheel's content, as an installation does."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, elsewhere: Path, code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run code in another directory with the installation first on the path."""
    start = f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)


def test_the_wheel_holds_the_packages_the_recipes_and_their_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = subprocess.run(["git", "ls-files", "recipes"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert recipes and {f"irmas_recipe/{recipe}" for recipe in recipes} <= names
    packaged = subprocess.run(
        ["git", "ls-files", "irmas_dataset", "irmas_metric", "irmas_recipe", "run_irmas.py"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert set(packaged) <= names, set(packaged) - names
    assert not any(name.startswith(("tests/", "docs/", "experiments/")) for name in names)


def test_the_command_answers_from_any_directory(installed, tmp_path):
    done = run(installed, tmp_path, "import run_irmas; run_irmas.run()", "--help")
    assert done.returncode == 0 and "irmas predict [MODEL] PATH..." in done.stdout
    entry_points = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "irmas = run_irmas:run" in entry_points.read_text()


def test_a_recipe_is_found_by_name_inside_the_installation(installed, tmp_path):
    code = "from irmas_recipe.training.recipe_file import find_recipe; print(find_recipe('ast/finetune'))"
    done = run(installed, tmp_path, code)
    assert Path(done.stdout.strip()) == installed / "irmas_recipe/recipes/ast/finetune.yaml"
    shown = run(installed, tmp_path, "import run_irmas; run_irmas.run()", "ast/finetune", "--help")
    assert shown.returncode == 0 and "--window_seconds 3.0" in shown.stdout


def test_the_data_the_metric_and_the_citation_come_with_it(installed, tmp_path):
    code = """
import evaluate
from irmas_dataset import load_index, load_irmas
from irmas_recipe.home import shipped
import irmas_dataset, irmas_metric
print(irmas_dataset.__file__)
assert callable(load_irmas) and len(load_index()) > 9000
assert shipped("CITATION.cff").is_file() and shipped("requirements.txt").is_file()
evaluate.load(irmas_metric.__path__[0])
"""
    done = run(installed, tmp_path, f"exec({code!r})")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(installed))


def test_an_editable_installation_copies_no_code(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel:editable", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as editable:
        assert not [name for name in editable.namelist() if name.endswith(".py")]
        assert editable.read("_irmas_recipe.pth").decode().strip() == str(ROOT)
