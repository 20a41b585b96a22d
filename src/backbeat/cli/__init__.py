"""The command line: `backbeat train`, `compare`, `predict` and the others; typed functions are the commands.

Nothing heavy is imported for `--help`: each command imports what it needs when it runs. Exit codes: 0 done; 2 the
input or the settings are wrong, or a target was not reached; 3 the run diverged; 130 interrupted and 143 terminated
(SIGINT, SIGTERM), and saved.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from types import FrameType
from typing import Any

from cyclopts import App, CycloptsError

from ..errors import ENDED, BackbeatError, Terminated, out_of_memory
from .options import fill_from_settings
from .processes import with_others

_COMPUTES = ("compare", "advise", "verify", "train", "resume", "predict", "evaluate", "export", "explain")

app = App(
    name="backbeat",
    help="After how many examples should a network's weights change? Measure it on your own model, data and machine, "
    "then train that way.",
    version=lambda: version("backbeat"),
    help_format="plaintext",
    default_parameter=None,
    suppress_keyboard_interrupt=False,
)
app.command(
    "backbeat.cli.compare:compare", name="compare", help="Compare cadences: one example, batches, the whole data set."
)
app.command(
    "backbeat.cli.advise:advise", name="advise", help="Which batch size, which learning rate, how long, how sure."
)
app.command(
    "backbeat.cli.verify:verify", name="verify", help="Is the update the mean of per-example gradients? If not, why."
)
app.command("backbeat.cli.train:train", name="train", help="Train one network at one cadence.")
app.command("backbeat.cli.resume:resume", name="resume", help="Go on with a run that was cut off, to the same bits.")
app.command("backbeat.cli.predict:predict", name="predict", help="Predict new data with a run's network.")
app.command("backbeat.cli.evaluate:evaluate", name="evaluate", help="Score a run's network, class by class.")
app.command("backbeat.cli.export:export", name="export", help="Write a run's network for other programs, checked.")
app.command("backbeat.cli.report:report", name="report", help="Write the report page of a run, comparison or advice.")
app.command("backbeat.cli.watch:watch", name="watch", help="Show runs as they go on, on a page of this machine.")
app.command("backbeat.cli.explain:explain", name="explain", help="See what happens inside an update, on a page.")
app.command("backbeat.cli.runs:runs", name="runs", help="List runs, comparisons and advice.")
app.register_install_completion_command(help="Install completion for the shell in use.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.unraisablehook = _unraisable
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
    code = run(sys.argv[1:] if arguments is None else arguments, keeps=True)
    if code in ENDED.values():
        # XLA's own threads may still compute; a tidy end of Python would pull the data away under them, and crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


_again: set[int] = set()  # the signals that are being sent again


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, or Terminated on SIGTERM.

    A moment later where it would be swallowed: in JAX's hook of the garbage collector, and where an interrupt that was
    swallowed is being sent again.
    """
    while frame is not None:  # the whole stack: a moment later the hook may be waiting in the line below
        if frame.f_code.co_name in ("_xla_gc_callback", "_unraisable"):
            _send_again(number)
            return
        frame = frame.f_back
    _again.discard(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _send_again(number: int) -> None:
    """Sends a signal until it is seen: one that comes just as the main thread falls asleep does not wake it."""

    def send() -> None:
        time.sleep(0.01)
        while number in _again and signal.getsignal(number) is interrupt:
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    if number not in _again:
        _again.add(number)
        threading.Thread(target=send, daemon=True).start()


def _unraisable(error: sys.UnraisableHookArgs) -> None:
    """Shows what went wrong where nothing can catch it, but for two things.

    An interrupt that came while an object was being finalized is sent again: Python drops it there. And what Orbax
    leaves of a write that failed is not shown: that write is told in a sentence; a dozen tracebacks of its threads,
    which come later, add nothing.
    """
    if issubclass(error.exc_type, KeyboardInterrupt):
        _send_again(signal.SIGTERM if issubclass(error.exc_type, Terminated) else signal.SIGINT)
    elif "Event loop is closed" not in str(error.exc_value):
        sys.__unraisablehook__(error)


def run(arguments: Sequence[str], *, keeps: bool = False) -> int:
    """Returns the exit code of one command; an error of the user's is one sentence on standard error.

    Args:
        arguments: the command line.
        keeps: whether compiled programs are kept for the next process (`backbeat.programs`).
    """
    try:
        command, given, _ = app.parse_args(list(arguments), exit_on_error=False, print_error=False)
        if given.arguments.get("settings") is not None:
            fill_from_settings(given)
        call = partial(command, *given.args, **given.kwargs)
        if keeps and command.__name__ in _COMPUTES:  # the others, and --help, start faster without JAX
            call = partial(_keeping, call)
        several = "processes" in given.signature.parameters
        code = with_others(call, given.arguments, arguments) if several else call()
        sys.stdout.flush()
    except BackbeatError as error:
        return _complain(str(error), error.exit_code)
    except CycloptsError as error:
        command = " ".join(["backbeat", *(error.command_chain or ())])
        text = " ".join(str(error).split())
        return _complain(f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} See {command} --help.", 2)
    except Terminated:
        return _complain("terminated.", ENDED["terminated"])
    except KeyboardInterrupt:
        return _complain("interrupted.", ENDED["interrupted"])
    except (MemoryError, RuntimeError) as error:  # JAX's own is a RuntimeError
        if not out_of_memory(error):
            raise
        return _complain(
            "memory is too short for this; give it more memory or a smaller batch (--every), and data that is large a "
            'limit (--memory "2 GB"), so that it is read from files as it is needed.',
            2,
        )
    except BrokenPipeError:  # the reader of standard output has gone, as in `backbeat runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush finds a reader
        return 0
    return code if isinstance(code, int) else 0


def _keeping(call: Callable[[], Any]) -> Any:
    # of a kept program XLA logs an error where it does not know the name of a feature of the processor, and goes on
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from ..programs import keep_programs

    keep_programs()
    return call()


def _complain(sentence: str, code: int) -> int:
    print(f"backbeat: {sentence}", file=sys.stderr)
    return code
