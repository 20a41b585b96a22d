"""`backbeat explain`: the page on which a newcomer drives the engine."""

from __future__ import annotations

from .options import Quiet
from .watch import Open, Port, told


def explain(*, port: Port = None, open_page: Open = True, quiet: Quiet = False) -> int:
    """Serves a page on this machine that shows what happens inside an update, until Ctrl-C.

    One example, a batch and the whole data set side by side: what goes forward and back, the gradient of each example,
    their mean, the moment the weights move, and the loss by examples, updates and time. All numbers are the library's
    own.
    """
    from ..web.explain import serve

    serve(port, told(open_page, quiet))
    return 0
