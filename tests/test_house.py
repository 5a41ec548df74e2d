"""The house rules that a linter does not know: quick start, layers, what may be imported, files
that fit together.
"""

from __future__ import annotations

import ast
import json
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "maskfree"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted(PACKAGE.rglob("*.py"))
# Packages that run any method and know none.
RUNNING = ("cli", "distillation", "engine", "evaluation", "hub", "inference", "label")
HEAVY = ("torch", "transformers", "lightning", "tensorboard", "webdataset")


def imports(path: Path) -> Iterator[str]:
    """Every module that PATH imports, wherever in the file; `from a import b` gives "a.b"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def best_seconds(code: str) -> float:
    """Processor time of a fresh Python, the best of a few: wall time would be that of whatever else
    runs here.
    """
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


HELP = """
import sys
from maskfree.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
"""
MODELS = HELP.replace("--help", "models")


@pytest.mark.parametrize(
    "code", ["import maskfree", HELP, MODELS], ids=["import", "help", "models"]
)
def test_start_is_quick_and_imports_nothing_heavy(code: str):
    report = (
        f"{code}\nimport sys; sys.stderr.write(' '.join(m for m in {HEAVY} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", report], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert best_seconds(code) - best_seconds("pass") < 0.5


def test_the_main_job_imports_only_what_it_uses(tmp_path: Path):
    """Each of these takes a cold command as long as the photo itself, or longer."""
    unused = (
        *("transformers", "huggingface_hub", "torch._dynamo", "sympy", "scipy", "sklearn"),
        *("lightning_fabric", "webdataset", "matplotlib", "pandas", "faiss", "skimage", "timm"),
    )
    photo = Path(__file__).parents[1] / "examples" / "pagoda.jpg"
    job = MODELS.replace(
        '"models"', f'"segment", {str(photo)!r}, "--words", "sky", "tree", "--out", "."'
    )
    report = f"import sys\n{job}\nprint(*(name for name in {unused} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", report], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    summary, imported, *rest = done.stdout.split("\n")
    assert "sky" in summary and not any(rest)
    assert imported == ""


def test_torchvision_is_no_dependency():
    required = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    assert not [r for r in required if r.startswith("torchvision")]
    assert not [
        (path.name, name)
        for path in MODULES
        for name in imports(path)
        if name.startswith("torchvision")
    ]


def test_nothing_inside_imports_the_package_root():
    submodules = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in MODULES}
    names = {f"maskfree.{name}" for name in submodules}
    offenders = [
        (path.name, name)
        for path in MODULES
        if path != PACKAGE / "__init__.py"
        for name in imports(path)
        if re.fullmatch(r"maskfree(\.\w+)?", name) and name not in names
    ]
    assert not offenders


def test_no_method_is_named_where_methods_run():
    """Neither "ViLSegConfig" nor isinstance(config, ViLSegConfig): a method states what it can."""
    methods = {each.name for each in (PACKAGE / "methods").iterdir() if each.is_dir()}
    names = {
        node.name
        for method in methods
        for path in (PACKAGE / "methods" / method).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    offenders = []
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] not in RUNNING:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Constant) and node.value in names
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "cast"):
                named = any(ast.unparse(part).split(".")[-1] in names for part in ast.walk(node))
            if named:
                offenders.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert names and not offenders


def test_imports_go_down_the_layers():
    pytest.importorskip("importlinter", reason="import-linter is in the extra 'dev'")
    code = (
        "import sys; from importlinter.cli import lint_imports_command as run; "
        "sys.exit(run(['--no-cache']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_results_say_which_command_made_them():
    for path in (ROOT / "results").glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name.startswith("history-"):
            assert content["source"].startswith("Copied by hand") and "command" not in content, (
                path.name
            )
        else:
            assert content["command"].split()[0] in {"maskfree", "python", "torchrun"}, path.name


def strings(content: object) -> Iterator[str]:
    if isinstance(content, dict):
        yield from (text for item in content.items() for part in item for text in strings(part))
    elif isinstance(content, list):
        yield from (text for item in content for text in strings(item))
    elif isinstance(content, str):
        yield content


def test_no_published_file_names_a_place_on_the_machine_that_made_it():
    for path in [*(ROOT / "results").glob("*.json"), *PACKAGE.glob("*/run.json")]:
        named = [
            t
            for t in strings(json.loads(path.read_text(encoding="utf-8")))
            if re.search(r"(^|[\s=])[/~]\w", t)
        ]
        assert not named, f"{path.name}: {named}"


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {PROJECT['version']}" in citation


_WRITES = {
    "write_text",
    "write_bytes",
    "savefig",
    "savez",
    "write_table",
    "save_file",
    "ParquetWriter",
}
# functions that are given a file or folder of `maskfree.files.leftovers`, or write a log
_UNFINISHED = {
    "files/atomic.py replace_bytes",
    "results/saving.py save_result",
    "hub/checkpoint.py save",
    "engine/run_state.py save_state",
    "data/entities/shard_parts.py _write_rows",
    "data/entities/merging.py merge",
    "data/entities/merging.py _pairs_writer",
    "data/shapes.py _write",
    "data/clip_files.py _write_video",
    "evaluation/reporting/chart_style.py save",
    "evaluation/probes/linear.py add",
    "evaluation/result_cache.py __init__",
    "engine/logger.py __init__",
    "text/tokenize.py save",
    "serve/exports.py zip_file",
    "label/formats/json_stream.py text_file",
}


def _writes(node: ast.AST) -> bool:
    """Whether NODE calls what writes a file by its name."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "open":
        modes = [
            each.value
            for each in (*node.args, *(key.value for key in node.keywords))
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax") for mode in modes)
    return name in _WRITES


def test_files_are_written_where_nothing_half_can_stay():
    """Others go through `files.replace_bytes` and its like.

    What is drawn into memory first is no file.
    """
    found = set()
    for path in MODULES:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and any(map(_writes, ast.walk(function))):
                found.add(f"{path.relative_to(PACKAGE).as_posix()} {function.name}")
    assert found <= _UNFINISHED, (
        f"these write a file that a kill may leave half: {sorted(found - _UNFINISHED)}"
    )


def test_make_without_arguments_lists_every_recipe():
    recipes = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    listed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == recipes


def test_ci_runs_on_every_python_that_is_supported():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert re.findall(r'"(3\.\d+)"', workflow.split("matrix:")[1].split("steps:")[0]) == versions
    assert "bash .ci/run" in workflow and "make docs" in workflow


def test_no_folder_of_tests_hides_a_module():
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")} - {"tests"}
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert not folders & scripts
