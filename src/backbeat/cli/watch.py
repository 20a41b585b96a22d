"""`backbeat watch`: the live page of runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import Quiet

Port = Annotated[int | None, Parameter(help="The port to use; any that is free where it is left out.")]
Open = Annotated[bool, Parameter(name="--open", negative="--no-open", help="Open the page in the browser.")]


def watch(
    run: Annotated[
        Path,
        Parameter(help="The folder of runs, or one run, comparison or advice: its folder or its name under runs/."),
    ] = Path("runs"),
    *,
    port: Port = None,
    open_page: Open = True,
    quiet: Quiet = False,
) -> int:
    """Serves a page on this machine that shows runs as they go on, until Ctrl-C.

    The address holds a token: nobody without it can read the page. Nothing can be changed from there.
    """
    from ..errors import DataError
    from ..recorded import found_folder
    from ..web.server import serve

    folder = run if run == Path("runs") else found_folder(run)
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; `backbeat train` makes runs, and `backbeat runs` lists them.")

    serve(folder, port, told(open_page, quiet))
    return 0


def told(open_page: bool, quiet: bool) -> Callable[[str], None]:
    """Returns what prints a page's address, and opens it where somebody sits at a terminal."""
    import sys

    def tell(address: str) -> None:
        print(address, flush=True)
        if not quiet:
            print("backbeat: Ctrl-C ends the page.", file=sys.stderr)
        if open_page and sys.stdout.isatty():
            import webbrowser

            webbrowser.open(address)

    return tell
