"""What holds the packaging together: one dependency list, a lock that fits it, and a tree fit to be published."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = [text for name in ("app", "book", "test") for text in EXTRAS[name] if not text.startswith("sr-utils[")]
DECLARED = [Requirement(text) for text in [*PROJECT["dependencies"], *LOCKED]]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_conda_environment_installs_the_package_and_lists_nothing_twice():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["-e .[test]"]}
    assert environment["name"] == PROJECT["name"]


def test_lock_holds_every_dependency_within_its_range():
    pins = locked()
    for requirement in DECLARED:
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}"


def test_lock_holds_exact_versions_only():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


def test_every_import_of_the_package_is_declared():
    providers = packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in map(Requirement, PROJECT["dependencies"])}
    # These come with what is declared: the kernel machinery with papermill and JupyterLab, IPython with both.
    declared |= {"ipython", "jupyter-client", "nbclient", "nbformat"}
    for path in (ROOT / "sr_utils").glob("*.py"):
        for name in imported(path):
            if name in sys.stdlib_module_names or name == "sr_utils":
                continue
            distributions = {canonicalize_name(each) for each in providers.get(name, [])}
            assert distributions & declared, f"{path.name} imports {name}, which pyproject.toml does not declare"


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def own_imports(path: Path, names: set[str]) -> set[str]:
    """The package's modules that are imported along with one of it; not what a function imports when it is called."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "sr_utils":
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("sr_utils."):
            found.add(node.module.split(".")[1])
    return found & names


def test_imports_of_the_package_run_one_way():
    modules = {path.stem: path for path in (ROOT / "sr_utils").glob("*.py")}
    # Raises CycleError, which names the modules, if there is no such order.
    graph = {name: own_imports(path, set(modules)) for name, path in modules.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("images") < order.index("deflow") < order.index("training")


def test_no_module_is_longer_than_a_sitting():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "sr_utils").glob("*.py")}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_no_registry_host_and_no_path_of_a_machine_in_tracked_files():
    # Put together here, so that this file does not name them either.
    hosts = ["files." + "pythonhosted", "pypi." + "org", "registry." + "npmjs", "deb." + "debian"]
    folders = re.compile(r"(?<![\w.])/(?:" + "|".join(["work", "farm", "root", "home", "Users"]) + r")/\w")
    for path in tracked():
        if path.suffix in {".png", ".jpg", ".avi", ".safetensors"}:
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = re.sub(r'"image/png": "[^"]*"', "", text)
        assert not [host for host in hosts if host in text], path.name
        assert not folders.search(text), f"{path.name}: {folders.search(text).group()}"


def test_ruff_is_content():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_ci_calls_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


def test_readme_has_the_marks_of_the_headline_table_and_links_that_exist():
    text = (ROOT / "README.md").read_text()
    assert text.index("<!-- headline:start -->") < text.index("<!-- headline:end -->")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"
