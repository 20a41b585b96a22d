"""`backbeat watch`: the live page of runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import ENDED, DataError, SettingsError
from .options import Quiet

Port = Annotated[int | None, Parameter(help="The port to use; any that is free where it is left out.")]
Open = Annotated[bool, Parameter(name="--open", negative="--no-open", help="Open the page in the browser.")]
Watch = Annotated[
    bool,
    Parameter(negative="", help="Show it on a page of this machine while it goes on; the page stays until Ctrl-C."),
]
Control = Annotated[
    bool, Parameter(negative="", help="Let the page pause, go on and stop a run, and change its learning rate.")
]


def watch(
    run: Annotated[
        Path,
        Parameter(help="The folder of runs, or one run, comparison or advice: its folder or its name under runs/."),
    ] = Path("runs"),
    *,
    port: Port = None,
    open_page: Open = True,
    control: Control = False,
    quiet: Quiet = False,
) -> int:
    """Serves a page on this machine that shows runs as they go on, until Ctrl-C.

    The address holds a token: nobody without it can read the page. Nothing can be changed from there without --control.
    """
    from ..recorded import found_folder
    from ..web.server import serve

    folder = run if run == Path("runs") else found_folder(run)
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; `backbeat train` makes runs, and `backbeat runs` lists them.")

    serve(folder, port, told(open_page, quiet), control=control)
    return 0


@contextmanager
def shown_beside(
    folder: Path, watch: bool, port: int | None, open_page: bool, control: bool = False
) -> Iterator[Callable[[int], int]]:
    """Shows what goes on in a folder on a page, if that is asked for, until the end of the block.

    Gives a function that takes the exit code and returns it, after Ctrl-C where there is a page to be looked at; of
    what was interrupted, at once.

    Args:
        folder: of the run, the comparison or the advice; need not be there yet.
        watch: whether it is asked for.
        port: of the page; None for any that is free.
        open_page: whether to open it in the browser, where somebody sits at a terminal.
        control: whether it may change the run.

    Raises:
        SettingsError: the port cannot be used, options that do not go together, or a run of several processes.
    """
    from .console import say

    if not watch:
        if port is not None or control or not open_page:
            given = "--control" if control else "--no-open" if port is None else f"--port {port}"
            raise SettingsError(f"{given} is for the page that --watch shows; give --watch too, or leave it out.")
        yield lambda code: code
        return
    from ..mesh import n_processes
    from ..web.beside import page_beside

    if n_processes() > 1:
        raise SettingsError(
            "--watch shows a run of one process; to see one of several, start `backbeat watch` beside it."
        )

    def stay(code: int) -> int:
        if code not in ENDED.values():
            with suppress(KeyboardInterrupt):
                say("the page stays until Ctrl-C.")
                while True:
                    time.sleep(3600)
        return code

    with page_beside(folder, port, control=control) as address:
        say(f"watch it at {address}")
        if open_page:
            open_at_terminal(address)
        yield stay


def open_at_terminal(address: str) -> None:
    """Opens a page in the browser, where somebody sits at a terminal."""
    if sys.stdout.isatty():
        import webbrowser

        webbrowser.open(address)


def told(open_page: bool, quiet: bool) -> Callable[[str], None]:
    """Returns what prints a page's address, and opens it where somebody sits at a terminal."""

    def tell(address: str) -> None:
        print(address, flush=True)
        if not quiet:
            print("backbeat: Ctrl-C ends the page.", file=sys.stderr)
        if open_page:
            open_at_terminal(address)

    return tell
