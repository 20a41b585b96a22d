"""The rules of the house, checked on the files themselves: layers, file tree, sizes, paths, examples."""

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "backbeat"

# A file imports only from lower layers or from an earlier entry of its own; a folder is one entry.
LAYERS = (
    ("errors", "types", "places", "cores", "clock", "changes", "events"),  # words
    ("cadence", "order", "plan", "schedule"),  # when: no JAX
    (
        "models",
        "losses",
        "gradient",
        "norms",
        "noise",
        "optimizer",
        "operations",
        "follow",
        "update",
        "stretch",
        "tree",
        "shares",
        "repeat",
    ),  # mathematics: pure JAX
    (
        "data",
        "class_weight",
        "task",
        "trial",
        "join",
        "mesh",
        "programs",
        "allowed",
        "config",
        "folder",
        "history",
        "recorded",
        "wishes",
        "record",
        "snapshot",
        "checkpoint",
        "logs",
        "report",
        "notebook",
    ),  # the outside; a report draws records and knows no more
    (
        "evaluate",
        "room",
        "forms",
        "nonfinite",
        "advance",
        "rate_range",
        "way_back",
        "control",
        "train",
        "predictor",
        "resume",
        "mistakes",
        "done",
        "run",
        "saved",
        "assess",
        "measure",
        "scale",
        "compare",
        "verify",
        "advise",
    ),  # the work
    ("estimator", "export", "explain", "web"),  # faces
    ("cli",),
)
PLACE = {name: (layer, place) for layer, names in enumerate(LAYERS) for place, name in enumerate(names)}
EXEMPT = ("__init__", "__main__")  # the package's own: they stand above all layers

MODULES = sorted(PACKAGE.rglob("*.py"))

LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
WHY_LONG = f"Longer than {LONGEST_MODULE} lines because"
LONG_FUNCTIONS: dict[str, str] = {}  # "gradient.py:name": the reason; a last resort


def shown(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def dotted(path: Path) -> str:
    """Returns a file's name inside the package: 'models.mlp', 'models' for a folder's __init__, '' for the root."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Yields what a file imports of the package, as `dotted` names; deferred and type-checking imports count too."""
    known = {dotted(module) for module in MODULES}
    here = ["backbeat", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.removeprefix("backbeat").lstrip(".") for name in imports_of_ours(node))
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            if source.split(".")[0] == "backbeat":
                inside = source.removeprefix("backbeat").lstrip(".")
                names = [f"{inside}.{alias.name}".lstrip(".") for alias in node.names]
                yield from (name if name in known else inside for name in names)


def imports_of_ours(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names if alias.name.split(".")[0] == "backbeat"]


def entry(module: str) -> str:
    """Returns the entry of the table that a module belongs to."""
    return module.split(".")[0] or "__init__"


def tracked() -> list[Path]:
    """Returns the files that git tracks; skips, with the reason, where this is no clone."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip(f"git lists no files here: {listed.stderr.strip()}")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_file_has_a_place_in_the_table():
    homeless = [shown(path) for path in MODULES if entry(dotted(path)) not in (*PLACE, *EXEMPT)]
    assert not homeless, f"{', '.join(homeless)}: give it a place in the table (LAYERS)"


def test_imports_point_down():
    wrong = []
    for path in MODULES:
        here = entry(dotted(path))
        for module in imported(path) if here in PLACE else ():
            there = entry(module)
            if there != here and PLACE.get(there, (len(LAYERS), 0)) > PLACE[here]:
                wrong.append(f"{shown(path)} imports {module or 'the package root'}")
    assert not wrong, f"imports that point up: {'; '.join(wrong)}"


def test_imports_go_round_no_circle():
    graph = {dotted(path): set(imported(path)) - {dotted(path)} for path in MODULES if path != PACKAGE / "__init__.py"}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_importing_the_package_imports_nothing_heavy():
    """`import backbeat` stays quick, prints nothing, starts no device: what is heavy is imported where it is used."""
    heavy = {"jax", "numpy", "scipy", "sklearn", "matplotlib"}
    code = f"import sys, backbeat; print(','.join(sorted(sys.modules.keys() & {heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", f"import backbeat prints, or imports heavy modules: {done.stdout.strip()}"


def tree_of_readme() -> dict[str, str]:
    """Returns the paths of README's file tree with what it says of each.

    The tree is the fenced block with a line `src/backbeat/`; a deeper indentation is the inside of the folder above, a
    line is `name   what it is`, and folders end in a slash.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    trees = [block for block in blocks if re.search(r"^\W*src/backbeat/", block, flags=re.MULTILINE)]
    assert len(trees) == 1, f"README.md has {len(trees)} fenced blocks with a line `src/backbeat/`; one is wanted"
    said, open_folders = {}, []
    for line in filter(str.strip, trees[0].splitlines()):
        line = re.sub("[│├└─]", " ", line)
        indent = len(line) - len(line.lstrip())
        name, _, what = line.strip().partition(" ")
        while open_folders and open_folders[-1][0] >= indent:
            open_folders.pop()
        path = "".join(folder for _, folder in open_folders) + name
        said[path] = what.strip()
        if name.endswith("/"):
            open_folders.append((indent, name))
    return said


def test_readme_shows_the_files_that_there_are():
    said = tree_of_readme()
    top = {path.relative_to(ROOT).parts for path in tracked()}
    wanted = {parts[0] + "/" * (len(parts) > 1) for parts in top} - {"src/"} | {"src/backbeat/"}
    modules = [path for path in MODULES if path.name != "__init__.py" or path.parent == PACKAGE]
    wanted |= {f"src/backbeat/{shown(path)}" for path in modules}
    missing = sorted(wanted - said.keys())
    stale = sorted(path for path in said if not (ROOT / path).exists())
    silent = sorted(path for path, what in said.items() if not what and path != "src/backbeat/")
    assert not missing, f"README.md's tree lacks {', '.join(missing)}"
    assert not stale, f"README.md's tree has {', '.join(stale)}, which is not there"
    assert not silent, f"README.md's tree says nothing about {', '.join(silent)}"


def test_modules_are_short_or_say_why_not():
    long = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > LONGEST_MODULE and WHY_LONG not in (ast.get_docstring(ast.parse(text)) or ""):
            long.append(f"{shown(path)} ({lines} lines)")
    assert not long, f"cut it, or write {WHY_LONG!r} ... into its docstring: {', '.join(long)}"


def lines_of_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Returns the lines after the signature, docstring apart: a command's options are its signature, a line each."""
    first = function.body[1] if ast.get_docstring(function) is not None and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or first.lineno) - first.lineno + 1


def test_functions_are_short():
    sizes = {
        f"{shown(path)}:{node.name}": lines_of_body(node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: size for name, size in sizes.items() if size > LONGEST_FUNCTION}
    too_long = [f"{name} ({size} lines)" for name, size in long.items() if name not in LONG_FUNCTIONS]
    assert not too_long, (
        f"functions with a body of more than {LONGEST_FUNCTION} lines, docstring apart: {', '.join(too_long)}"
    )
    assert long.keys() >= LONG_FUNCTIONS.keys(), "LONG_FUNCTIONS names a function that is short by now"


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        pytest.param(
            "path of one machine", r"(?<![\w.)\]}*])/(?:(?:work|root|opt)(?![\w-])|(?:home|Users)/\w)", id="path"
        ),
        pytest.param(
            "registry's host", r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|deb\.debian\.org", id="host"
        ),
    ],
)
def test_no_file_names_a(what: str, pattern: str):
    named = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        named += [f"{path.relative_to(ROOT).as_posix()}: {found[0]}" for found in re.finditer(pattern, text)]
    assert not named, f"a committed file names a {what}: {'; '.join(named[:5])}"


def test_every_public_name_has_an_example():
    backbeat = importlib.import_module("backbeat")
    public = [name for name in getattr(backbeat, "__all__", ()) if not name.startswith("__")]
    assert public, "backbeat.__all__ is empty"
    bare = [name for name in public if ">>>" not in (inspect.getdoc(getattr(backbeat, name)) or "")]
    assert not bare, f"public names without a docstring that has an example (>>>): {', '.join(bare)}"
