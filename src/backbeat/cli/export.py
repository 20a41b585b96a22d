"""`backbeat export`: a trained network for other programs, run and compared before it is said to be there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import AsJson, OwnModel, Quiet, RunFolder


def export(
    run: RunFolder,
    *,
    to: Annotated[str, Parameter(help="safetensors (weights), onnx or stablehlo (the network with its weights).")],
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="Where to write. Default: exported.<format> in the run's folder."),
    ] = None,
    model: OwnModel = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Writes a run's network for other programs, and runs the file on the examples that were held out."""
    from dataclasses import asdict

    from ..errors import choose
    from ..export import KINDS, about
    from ..export import export as write
    from ..saved import load_run
    from .console import bar, print_json, say, tell

    choose("to", to, KINDS)
    saved = load_run(run, model)
    with bar(quiet or json) as progress:
        progress.show(f"writing {to} and running it", 0.0)
        done = write(saved, to, output)
    for note in () if quiet else done.notes:
        say(note)
    if json:
        print_json({"run": saved.folder, **asdict(done)})
        return 0
    tell(
        f"checked on {done.checked_on}: its outputs differ from the network's own by at most {done.difference:.2g} "
        f"(the largest output is {done.largest:.3g})"
    )
    used = about(saved, to)
    inputs, outputs = used["inputs"], used["outputs"]
    shape = ", ".join(map(str, inputs["shape"]))
    what = f"{inputs['are']} ({done.beside or 'the header'} says how)" if used["preparation"] else inputs["are"]
    tell(f"inputs: {inputs['dtype']} [{shape}], {what}; outputs: {outputs['are']}")
    for path in (done.path, done.beside):
        if path is not None:
            print(path)
    return 0
