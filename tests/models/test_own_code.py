"""Models in a file of the user's own: found, made, kept apart from other files, and failures told with their line."""

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import jax
import numpy as np
import pytest

from backbeat.errors import MissingExtraError, SettingsError
from backbeat.models import Functions, model_for, parse_model
from backbeat.models.own_code import OwnCode
from backbeat.run import fit

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.int32)

PLAIN = """
    import jax, jax.numpy as jnp
    from backbeat.models import mlp, linear

    print("a file may print")

    def init(key):
        return {"w": jax.random.normal(key, (4, 2)) * 0.1}

    def apply(params, x):
        return x @ params["w"]

    pair = (init, apply)
    small = mlp(hidden=(3,))

    def make(n_outputs, input_shape, width=5):
        return mlp(hidden=(width,))

    class Nets:
        wide = mlp(hidden=(30,))

    def wrong():
        return 7

    def hungry(depth):
        return small

    def failing():
        return mlp(hidden=(1 // 0,))
"""
FAILS = next(f"(net.py, line {n})" for n, line in enumerate(PLAIN.splitlines(), 1) if "1 // 0" in line)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Returns what writes a file into the test's folder and gives its path."""

    def written(text: str, name: str = "net.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text))
        return path

    return written


def built(path: Path, name: str) -> Any:
    return model_for(parse_model(f"{path}:{name}"), (4,), 2)


@pytest.mark.parametrize(("name", "sizes"), [("small", (4, 3, 2)), ("make", (4, 5, 2)), ("Nets.wide", (4, 30, 2))])
def test_a_name_may_be_a_network_or_what_makes_one(write: Any, name: str, sizes: tuple[int, ...]):
    assert built(write(PLAIN), name).sizes == sizes


def test_a_pair_of_functions_trains(write: Any, capsys: pytest.CaptureFixture):
    path = write(PLAIN)
    run = fit(f"{path}:pair", (X, Y), every=4, duration="2 epochs", held_out=0.2)
    assert isinstance(run.job.model, Functions)
    assert run.params["w"].shape == (4, 2)
    out, err = capsys.readouterr()
    assert out == ""  # standard output is for what backbeat says
    assert err == "a file may print\n"


def test_its_text_has_the_whole_path(write: Any, monkeypatch: pytest.MonkeyPatch):
    path = write(PLAIN)
    monkeypatch.chdir(path.parent)
    code = parse_model("net.py:small")
    assert str(code) == f"{path}:small"
    assert parse_model(str(code)) == code
    assert str(parse_model(" net.py:Nets.wide ")) == f"{path}:Nets.wide"


def test_a_path_may_hold_colons():
    assert OwnCode.of(r"C:\nets\a.py:b.py:Net").name == "Net"
    assert OwnCode.of("C:/nets/net.py:make").path.name == "net.py"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smal", "has no 'smal'; did you mean 'small'?"),
        ("Nets.tall", "has no 'tall'; it has wide."),
        ("wrong", "made 7, which is no model"),
        ("hungry", "needs 'depth', which the data does not tell"),
        (
            "failing",
            f"failed to make a model: ZeroDivisionError: integer division or modulo by zero {FAILS}.",
        ),
        ("jnp", "is not a model"),
    ],
)
def test_a_name_that_is_no_model_is_one_sentence(write: Any, name: str, words: str):
    with pytest.raises(SettingsError, match=r"^[^\n]+[.?]$") as caught:
        built(write(PLAIN), name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import jax\n\nx = 1 / 0\n", "failed at net.py, line 3: ZeroDivisionError: division by zero."),
        ("def f(:\n", "failed at net.py, line 1: SyntaxError:"),
        ("from beside import missing\n", "failed at beside.py, line 2: KeyError: 'here'"),
        ("import sys\nsys.exit(3)\n", "failed at net.py, line 2: SystemExit: 3."),
        ("import not_installed_at_all\n", "failed at net.py, line 1: ModuleNotFoundError: No module named"),
        ("raise ValueError('two\\nlines')\n", "failed at net.py, line 1: ValueError: two."),
    ],
)
def test_a_file_that_fails_is_one_sentence_with_its_line(write: Any, text: str, words: str):
    write("here = {}\nhere['here']\n", "beside.py")
    path = write(text)
    before, modules = list(sys.path), set(sys.modules)
    with pytest.raises(SettingsError, match=r"^[^\n]+[.?]$") as caught:
        built(path, "net")
    assert words in str(caught.value)
    assert sys.path == before
    assert not {name for name in set(sys.modules) - modules if "beside" in name or "backbeat_own" in name}


def test_what_is_not_there_is_one_sentence(write: Any):
    path = write(PLAIN)
    for text, words in (
        (f"{path.parent / 'nut.py'}:small", "does not exist; did you mean net.py?"),
        (f"{path.parent / 'elsewhere' / 'thing.py'}:small", "does not exist; check the path."),
        (f"{path}:", "names no model; write file.py:name"),
        (f"{path}", "is not known"),
    ):
        with pytest.raises(SettingsError, match=r"^[^\n]+[.?]$") as caught:
            model_for(parse_model(text), (4,), 2)
        assert words in str(caught.value)


def test_a_missing_library_names_its_extra(write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(MissingExtraError, match=r"^net.py needs equinox, .* pip install 'backbeat\[equinox\]'\.$"):
        built(write("import equinox\n"), "net")
    late = write("def make():\n    import equinox\n", "late.py")
    with pytest.raises(MissingExtraError, match=r"needs equinox, .* pip install 'backbeat\[equinox\]'\.$"):
        built(late, "make")


def test_a_file_is_run_once_while_it_stays_the_same(write: Any):
    path = write("from backbeat.models import mlp\nimport layers\nnet = mlp(hidden=(layers.WIDTH,))\nprint('run')\n")
    beside = write("WIDTH = 3\n", "layers.py")
    code = parse_model(f"{path}:net")
    assert code.load() is parse_model(f"{path}:net").load()
    beside.write_text("WIDTH = 12\n")
    assert built(path, "net").sizes == (4, 12, 2)


def test_two_files_have_their_own_modules_beside_them(write: Any):
    text = "from backbeat.models import mlp\nfrom layers import WIDTH\nnet = mlp(hidden=(WIDTH,))\n"
    for folder, width in (("one", 3), ("two", 4)):
        write(f"WIDTH = {width}\n", f"{folder}/layers.py")
        assert built(write(text, f"{folder}/net.py"), "net").sizes == (4, width, 2)
    assert "layers" not in sys.modules
    assert "net" not in sys.modules


def test_the_file_is_not_run_before_the_model_is_needed(write: Any, tmp_path: Path):
    parse_model(f"{write('raise SystemExit')}:net")
    assert list(tmp_path.iterdir()) == [tmp_path / "net.py"]


TORCH = """
    import torch

    class Net(torch.nn.Module):
        def __init__(self, n_outputs=2):
            super().__init__()
            self.linear = torch.nn.Linear(4, n_outputs)

        def forward(self, x):
            return self.linear(x)

    torch.manual_seed(0)
    net = Net()
"""


def test_a_torch_module_of_a_file(torch: Any, write: Any):
    path = write(TORCH)
    runs = [fit(f"{path}:net", (X, Y), every=4, duration="2 epochs", held_out=0.0) for _ in range(2)]
    assert runs[0].job.model == runs[1].job.model
    assert str(runs[0].job.model) == f"{path}:net"
    mine: Any = runs[0].job.model
    trained = mine.trained(runs[0].params)
    expected = trained(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(runs[0].predict_raw(X), expected, rtol=1e-5, atol=1e-6)
    again = fit(f"{path}:net", (X, Y), every=4, duration="2 epochs", held_out=0.0)  # starts where the file says
    np.testing.assert_array_equal(again.params["linear.weight"], runs[0].params["linear.weight"])


def test_a_class_of_a_file_makes_new_weights_for_each_seed(torch: Any, write: Any):
    model = built(write(TORCH), "Net")
    first, other = (model.init(jax.random.key(seed))["linear.weight"] for seed in (1, 2))
    assert np.abs(first - other).max() > 0.01
