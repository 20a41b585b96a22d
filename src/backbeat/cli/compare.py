"""`backbeat compare`: several cadences on the same model, data and machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .options import (
    AsJson,
    Block,
    ClassWeight,
    Clip,
    DataName,
    HeldOut,
    Inputs,
    Label,
    Log,
    LossName,
    Memory,
    Missing,
    Model,
    On,
    OptimizerName,
    OrderName,
    Prepare,
    Quiet,
    Resize,
    RunName,
    Seed,
    SettingsFile,
    ShortBatch,
    SkipBad,
    Task,
    Weight,
    WeightDecay,
    column_and_target,
)  # fmt: skip
from .watch import Open, Port, Watch, shown_beside

if TYPE_CHECKING:
    from ..compare import Comparison


def compare(
    data: DataName = "digits",
    *,
    every: Annotated[str, Parameter(help="Cadences, separated by commas.")] = "1,32,64,128,256,dataset",
    target: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="accuracy>=0.95, loss<=0.1, none; default: accuracy>=0.95 for classes; or the column to predict, as "
            "--label.",
        ),
    ] = None,
    seeds: Annotated[int, Parameter(help="Runs of each cadence, from 3 to 100.")] = 3,
    budget: Annotated[str, Parameter(help='How long it may take: "60 s", "5 min".')] = "60 s",
    lr: Annotated[
        str,
        Parameter(
            name=["--lr", "--learning-rates"],
            help="Learning rates to try, separated by commas; auto: a grid that widens.",
        ),
    ] = "auto",
    model: Model = "mlp",
    loss: LossName = "auto",
    optimizer: OptimizerName = "sgd",
    order: OrderName = "reshuffled",
    short_batch: ShortBatch = "keep",
    held_out: HeldOut = 0.2,
    class_weight: ClassWeight = None,
    label: Label = None,
    inputs: Inputs = None,
    task: Task = "auto",
    weight: Weight = None,
    prepare: Prepare = "auto",
    missing: Missing = "auto",
    skip_bad: SkipBad = False,
    resize: Resize = None,
    memory: Memory = None,
    seed: Seed = 0,
    weight_decay: WeightDecay = 0.0,
    clip: Clip = None,
    block: Block = None,
    on: On = None,
    run: RunName = None,
    settings: SettingsFile = None,  # read before the call: options.fill_from_settings
    log: Log = None,
    watch: Watch = False,
    port: Port = None,
    open_page: Open = True,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Tunes the learning rate of each cadence, then measures what each needs to reach the target, on three clocks.

    With no DATA: scikit-learn's 1,797 handwritten digits. Writes a report page and a picture.
    """
    from ..compare import compare as compare_cadences
    from ..folder import named_folder
    from ..report import comparison_figure, save_figure, write_page
    from .console import bar, print_json

    label, score = column_and_target(label, target)
    given: dict[str, Any] = {
        "every": every, "target": score or "auto", "seeds": seeds, "budget": budget, "learning_rates": lr, "loss": loss,
        "optimizer": optimizer, "order": order, "short_batch": short_batch, "held_out": held_out, "seed": seed,
        "weight_decay": weight_decay, "clip": clip, "block": block,
        "class_weight": class_weight, "label": label, "inputs": inputs, "task": task, "weight": weight,
        "prepare": prepare, "missing": missing, "skip_bad": skip_bad, "resize": resize, "memory": memory, "on": on,
    }  # fmt: skip
    folder = named_folder(run)
    with shown_beside(folder, watch, port, open_page) as stay:
        with bar(quiet or json) as progress:

            def show_progress(at: Any) -> None:
                every = "" if at.stage == "timing" or not at.every else f"every {at.every}"
                progress.show(at.stage, at.overall, every)

            found = compare_cadences(model, data, **given, run=folder, log=log, on_progress=show_progress)
        assert found.folder is not None
        write_page(found.record, found.folder / "report.html")
        for name in ("comparison.png", "comparison.svg"):
            save_figure(comparison_figure(found.record), found.folder / name)
        if json:
            print_json({**found.record, "folder": found.folder})
        else:
            show(found)
        return stay(outcome(found))


def show(found: Comparison) -> None:
    """Prints the answer in words, the tables, and where the report is."""
    from .console import results, tell

    record, out = found.record, results()
    for sentence in [*record["answer"], *record["notes"], *record["data"].get("notes", [])]:
        tell(sentence)
    out.print()
    if record["target"] is not None:
        out.print(target_table(record))
        out.print()
    out.print(rate_table(record))
    out.print()
    out.print(equal_table(record))
    out.print()
    tell(f"{found.folder}/report.html", label="report ", whole=True)
    tell(f"{found.folder}/comparison.png", label="picture", whole=True)


def target_table(record: dict[str, Any]) -> Any:
    """Returns the table of what each cadence needs to reach the target: medians, and the range over the seeds."""
    from ..report.style import duration
    from .table import Table

    made = Table(
        "update after", "updates", "examples", "epochs", "seconds", title=f"To {record['target']}: median (range)"
    )
    for cadence in record["cadences"]:
        to, name = cadence["to_target"], row_name(cadence)
        if to is None:
            n_reached = sum(run["reached"] is not None for run in cadence["runs"])
            made.add_row(name, f"reached by {n_reached} of {len(cadence['runs'])}", "–", "–", "–")
            continue
        spans = [
            spread(to["updates"], "{:,.0f}".format), spread(to["examples"], "{:,.0f}".format),
            spread(to["epochs"], three_figures), spread(to["seconds"], duration),
        ]  # fmt: skip
        made.add_row(name, *spans)
    return made


def rate_table(record: dict[str, Any]) -> Any:
    """Returns the table of tuned learning rates, speed, final score and steadiness."""
    from ..report.style import duration
    from .table import Table, unbroken

    score = record["score"]
    title = "At the tuned learning rate"
    made = Table(
        "update after",
        "learning rate",
        "an update",
        "compiling",
        f"final {score}",
        "diverged",
        "|∇L|",
        "its spread",
        title=title,
    )
    for cadence in record["cadences"]:
        rate = f"{cadence['learning_rate']:.3g}" + (" (edge)" if cadence["on_edge"] else "")
        norm, final = cadence["gradient_norm"], cadence["final_score"]
        seconds, compiling = (
            unbroken(duration(value)) for value in (cadence["seconds_per_update"]["median"], cadence["compile_seconds"])
        )
        score_cell = spread(final, "{:.3f}".format) if final else "–"
        norms = ["–", "–"] if norm["median"] is None else [f"{norm['median']:.3g}", f"{norm['spread']:.0%}"]
        made.add_row(
            row_name(cadence), rate, seconds, compiling, score_cell, f"{cadence['diverged_share']:.0%}", *norms
        )
    return made


def equal_table(record: dict[str, Any]) -> Any:
    """Returns the table of training loss and score after the same examples, updates and seconds."""
    from ..compare.answer import amount
    from .table import Table, unbroken

    equal = record["equal"]
    heads = [f"after {amount(equal[clock]['at'], clock)}" for clock in ("examples", "updates", "seconds")]
    made = Table("update after", *heads, title=f"At equal budgets: training loss / {record['score']}, medians")
    for number, cadence in enumerate(record["cadences"]):
        cells = []
        for clock in ("examples", "updates", "seconds"):
            row = equal[clock]["rows"][number]
            loss, score = row["train_loss_mean"], row["score"]
            cells.append(unbroken(f"{loss['median']:.3g} / {score['median']:.3f}") if loss and score else "diverged")
        made.add_row(row_name(cadence), *cells)
    return made


def row_name(cadence: dict[str, Any]) -> str:
    """Returns a cadence's name for a table: "1", "32", "dataset (1,438)"."""
    return cadence["every"] if cadence["every"].isdigit() else f"{cadence['every']} ({cadence['batch_size']:,})"


def three_figures(value: float) -> str:
    """Returns "0.0123", "12.3", "12,346"."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def spread(values: dict[str, float], form: Any) -> str:
    """Returns "median (low–high)"."""
    from .table import unbroken

    median, low, high = (unbroken(form(values[name])) for name in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def outcome(found: Comparison) -> int:
    """Returns the exit code of a comparison, and says on standard error why it is not 0."""
    from .console import say

    if found.reached is False:
        say(f"{found.answer[0]} Raise --budget or choose another --target.")
        return 2
    return 0
