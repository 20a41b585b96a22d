"""What a terminal shows: tables that fit it, names as they are, colours only where wanted; completion by shell."""

import json
import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from backbeat.cli import run
from backbeat.cli.compare import equal_table, rate_table, target_table
from backbeat.cli.console import results
from backbeat.cli.table import Table, fitted, unbroken, wrapped


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def printed(what, width: int) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(what)
    return out.getvalue().splitlines()


def cadence(every: str, batch: int, reached: bool = True) -> dict:
    counts = {"median": 11504.0, "low": 10504.0, "high": 25884.0}
    spans: dict[str, dict[str, float]] = {"updates": counts, "examples": counts}
    spans["epochs"] = {"median": 8.0, "low": 7.3, "high": 18.0}
    spans["seconds"] = {"median": 0.0112, "low": 0.0112, "high": 0.0252}
    return {
        "every": every, "batch_size": batch, "learning_rate": 0.0312, "on_edge": False, "diverged_share": 0.0,
        "to_target": spans if reached else None,
        "runs": [{"reached": {} if reached else None}] * 3, "seconds_per_update": {"median": 53.6e-6},
        "compile_seconds": 0.806, "final_score": {"median": 0.964, "low": 0.950, "high": 0.975},
        "gradient_norm": {"median": 0.954, "spread": 1.76},
    }  # fmt: skip


@pytest.fixture
def record() -> dict:
    cadences = [cadence("1", 1), cadence("32", 32, reached=False), cadence("dataset", 1438)]
    loss, score = {"median": 0.00184}, {"median": 0.989}
    rows = [{"train_loss_mean": loss, "score": score}] * 3
    equal = {clock: {"at": 55992, "rows": rows} for clock in ("examples", "updates", "seconds")}
    return {"target": "held-out accuracy>=0.95", "score": "accuracy", "cadences": cadences, "equal": equal}


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("table", [target_table, rate_table, equal_table])
def test_no_table_is_cut_off_or_broken_within_a_word(record, table, width):
    lines = printed(table(record), width)
    text = "\n".join(lines)
    assert max(len(line) for line in lines) <= width
    assert "…" not in text
    for word in {
        target_table: ["(10,504–25,884)", "(11.2 ms–25.2 ms)", "reached", "(1,438)"],
        rate_table: ["53.6 µs", "806 ms", "(0.950–0.975)", "176%", "compiling", "diverged"],
        equal_table: ["0.00184 / 0.989", "(1,438)"],
    }[table]:
        assert word in text


@pytest.mark.parametrize("width", [46, 60])  # 46: eight columns of four letters and the gaps between them
def test_a_narrow_terminal_breaks_words_and_loses_no_letter(record, width):
    whole, narrow = ("".join(printed(rate_table(record), columns)[1:]) for columns in (200, width))
    assert max(len(line) for line in printed(rate_table(record), width)) <= width
    assert sorted("".join(narrow.split())) == sorted("".join(whole.split()))


def test_widths_are_those_of_the_cells_and_then_of_the_words():
    rows = [("name", "a long head"), ("dataset (1,438)", "1")]
    assert fitted(rows, 80) == [15, 11]
    assert fitted(rows, 20) == [9, 9]
    assert fitted(rows, 13) == [7, 4]
    assert wrapped(f"1 {unbroken('2 ms')} 3", 4) == "1\n2 ms\n3"


def test_texts_stand_left_and_numbers_right():
    table = Table("name", "kind", "updates", n_texts=2)
    table.add_row("a", "run", "5")
    assert [line.rstrip() for line in printed(table, 80)] == ["name  kind  updates", "a     run         5"]


def in_terminal(*arguments, columns=80, **environment) -> bytes:
    """Returns all that a command writes to a terminal of this width."""
    mine, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "backbeat", *arguments], stdout=theirs, stderr=theirs, stdin=theirs,
        env={**env, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(mine, 4096):
            seen += chunk
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(mine)
    assert process.wait(timeout=180) == 0, seen
    return seen


def test_names_with_brackets_and_colons_are_shown_as_they_are(capsys):
    name = "[bold] größe :smile: [1].npz"
    np.savez(name, x=np.eye(10, dtype=np.float32), y=np.arange(10) % 2)
    assert run(["train", name, "--model", "linear", "--for", "2 epochs", "--every", "5", "--run", "[red] ö"]) == 0
    out = capsys.readouterr().out
    assert f"{name}: 8 examples to train on, 2 held out" in out
    assert "runs/[red] ö" in out
    assert "updated after every 5 examples" in out
    assert run(["runs"]) == 0
    out = capsys.readouterr().out
    assert name in out
    assert "[red] ö" in out
    seen = in_terminal("runs", NO_COLOR="1").decode()
    assert "\x1b[3" not in seen, "no colours"
    assert "…" not in seen
    words = ["[red]", "ö", "finished", "[bold]", "größe", ":smile:", "[1].npz"]
    assert all(word in seen for word in words)


def test_without_a_terminal_a_sentence_is_one_line(capsys):
    assert run(["train", "--model", "linear", "--for", "1 epoch", "--every", "dataset"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("digits:")]
    assert line.endswith("updated after the whole data set")


def test_json_in_a_terminal_is_one_object(tmp_path):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("")
    assert json.loads(in_terminal("runs", "--json"))["runs"][0]["name"] == "one"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_commands_and_options(shell, tmp_path):
    env = {**os.environ, "HOME": str(tmp_path), "SHELL": f"/bin/{shell}"}
    env.pop("XDG_CONFIG_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "backbeat", "--install-completion", "--shell", shell],
        capture_output=True, text=True, env=env, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scripts = [path for path in tmp_path.rglob("*") if path.is_file() and "compare" in path.read_text()]
    assert len(scripts) == 1
    text = scripts[0].read_text()
    for word in ("compare", "train", "report", "runs", "every", "repeat-until", "learning-rate", "no-open"):
        assert word in text
    assert "Traceback" not in text


def test_a_reader_of_results_who_has_gone_is_no_exit_with_code_1(monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):  # which the command line turns into exit code 0
        results().print("a line")


@pytest.mark.parametrize(
    "swallowing",
    [
        "gc.callbacks.append(_xla_gc_callback)",  # JAX has a hook in the garbage collector
        "Finalized()",
    ],
)
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_that_python_drops_is_not_lost(swallowing, number, code):
    """Python drops what is raised in a hook of the garbage collector and where an object is finalized."""
    program = f"""
import gc, os, signal, time
from backbeat import cli
from backbeat.errors import Terminated

done = []
def _xla_gc_callback(phase, info):  # the name of JAX's own
    if not done:
        done.append(os.kill(os.getpid(), signal.{number}))

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.{number})
        for _ in range(10):  # the signal is seen here, not after
            pass

def busy(arguments, keeps):
    try:
        {swallowing}
        gc.collect()
        time.sleep(300)
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    return 0

cli.run = busy
cli.main([])
"""
    started = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert started.returncode == code
