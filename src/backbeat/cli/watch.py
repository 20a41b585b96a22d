"""`backbeat watch`: the live page of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import Quiet


def watch(
    run: Annotated[
        Path,
        Parameter(help="The folder of runs, or one run, comparison or advice: its folder or its name under runs/."),
    ] = Path("runs"),
    *,
    port: Annotated[int | None, Parameter(help="The port to use; any that is free where it is left out.")] = None,
    open_page: Annotated[
        bool, Parameter(name="--open", negative="--no-open", help="Open the page in the browser.")
    ] = True,
    quiet: Quiet = False,
) -> int:
    """Serves a page on this machine that shows runs as they go on, until Ctrl-C.

    The address holds a token: nobody without it can read the page. Nothing can be changed from there.
    """
    import sys

    from ..errors import DataError
    from ..recorded import found_folder
    from ..web.server import serve

    folder = run if run == Path("runs") else found_folder(run)
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; `backbeat train` makes runs, and `backbeat runs` lists them.")

    def tell(address: str) -> None:
        print(address, flush=True)
        if not quiet:
            print("backbeat: Ctrl-C ends the page.", file=sys.stderr)
        if open_page and sys.stdout.isatty():
            import webbrowser

            webbrowser.open(address)

    serve(folder, port, tell)
    return 0
