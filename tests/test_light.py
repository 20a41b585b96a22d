"""No library of other people's data or models is loaded before its kind of data or model is used."""

import subprocess
import sys
from pathlib import Path

import pytest

# not pandas, which scikit-learn imports by itself where it is installed
HEAVY = (
    "polars", "PIL", "torch", "torchax", "flax", "equinox", "keras", "datasets", "skops", "onnx", "jax2onnx",
    "onnxruntime", "matplotlib", "tensorboardX", "mlflow",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Returns which of the libraries a process has loaded that ran some code."""
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    return set(found.stdout.split())


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import backbeat; backbeat.fit", set()),
        ("import backbeat as bb; bb.fit(bb.mlp((4,)), 'digits', duration='1 update', evaluate='never')", set()),
        (
            "import backbeat as bb, numpy as np; x = np.eye(4)\n"
            "bb.fit(bb.linear(), (x, x[0]), every=2, duration='1 update', evaluate='never').predict(x)",
            set(),
        ),
        ("import backbeat as bb; bb.fit(bb.linear(), 'iris', duration='1 update', evaluate='never')", {"polars"}),
    ],
    ids=["import", "digits", "arrays", "a table"],
)
def test_only_what_is_used_is_loaded(code: str, needed: set[str]):
    assert loaded_by(code) == needed


def test_the_live_page_starts_without_jax():
    code = "import backbeat.cli.watch, backbeat.web.server, sys; print('jax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["compare", "--help"]])
def test_what_computes_nothing_starts_without_jax(arguments: list[str], tmp_path: Path):
    code = (
        f"import atexit, sys; atexit.register(lambda: print('loaded:', *{{'jax', 'numpy'}} & {{*sys.modules}}))\n"
        f"from backbeat.cli import main; main({arguments})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True, cwd=tmp_path
    )
    assert found.stdout.endswith("loaded:\n")
