"""`backbeat advise`: which batch size, which learning rate, how long, how sure."""

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
    from ..advise import Advice


def advise(
    data: DataName = "digits",
    *,
    target: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="accuracy>=0.95, train loss<=0.1; default: accuracy>=0.95 for classes, else a loss that a short "
            "tuning reaches; or the column to predict, as --label.",
        ),
    ] = None,
    within: Annotated[str, Parameter(help='How long it may take: "2 min", "30 s".')] = "2 min",
    devices: Annotated[
        int | None, Parameter(help="Plan also for so many devices like this one: computed, not measured.")
    ] = None,
    hardware: Annotated[
        str | None, Parameter(help='Plan also for another machine: "alpha=20us,beta=0.1us"; computed, not measured.')
    ] = None,
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
    watch: Watch = False,
    port: Port = None,
    open_page: Open = True,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Says after how many examples to update, with which learning rate, how long it takes, and how sure that is.

    With no DATA: scikit-learn's 1,797 handwritten digits. Writes a report page and a picture.
    """
    from ..advise import advise as advise_for
    from ..folder import named_folder
    from ..report import advice_figure, save_figure, write_page
    from .console import bar, print_json

    label, score = column_and_target(label, target)
    given: dict[str, Any] = {
        "target": score or "auto", "within": within, "devices": devices, "hardware": hardware, "loss": loss,
        "optimizer": optimizer, "order": order, "short_batch": short_batch, "held_out": held_out, "seed": seed,
        "weight_decay": weight_decay, "clip": clip, "block": block,
        "class_weight": class_weight, "label": label, "inputs": inputs, "task": task, "weight": weight,
        "prepare": prepare, "missing": missing, "skip_bad": skip_bad, "resize": resize, "memory": memory, "on": on,
    }  # fmt: skip
    folder = named_folder(run)
    with shown_beside(folder, watch, port, open_page) as stay:
        with bar(quiet or json) as progress:

            def show_progress(at: Any) -> None:
                progress.show(at.stage, at.overall, f"{at.every} examples" if at.every else "")

            found = advise_for(model, data, **given, run=folder, on_progress=show_progress)
        assert found.folder is not None
        write_page(found.record, found.folder / "report.html")
        for name in ("advice.png", "advice.svg"):
            save_figure(advice_figure(found.record), found.folder / name)
        if json:
            print_json({**found.record, "folder": found.folder})
        else:
            show(found)
        return stay(outcome(found))


def show(found: Advice) -> None:
    """Prints the advice in words, the table of sizes, what was seen beside what was predicted, and where it is."""
    from .console import results, tell

    record, out = found.record, results()
    for sentence in record["answer"]:
        tell(sentence)
    if record["next"]:
        tell(record["next"])
    out.print()
    out.print(size_table(record))
    if record["confirmed"]:
        out.print()
        out.print(confirmed_table(record))
    out.print()
    for sentence in [*record["notes"], *record["data"].get("notes", [])]:
        tell(sentence, "dim")
    out.print()
    tell(f"{found.folder}/report.html", label="report ", whole=True)
    tell(f"{found.folder}/advice.png", label="picture", whole=True)


def size_table(record: dict[str, Any]) -> Any:
    """Returns the table of the sizes measured: rate, updates, examples and seconds to the target."""
    from ..report.style import duration
    from .compare import three_figures
    from .table import Table, unbroken

    best = (record["finish_first"] or {}).get("batch_size")
    made = Table(
        "update after", "learning rate", "an update", "updates", "range", "seconds",
        title=f"To {record['target']}, {record['optimizer']}: medians",
    )  # fmt: skip
    for size in record["sizes"]:
        name = ("→ " if size["batch_size"] == best else "") + f"{size['batch_size']:,}"
        seconds = unbroken(duration(size["seconds_per_update"]))
        if not size["reached"]:
            made.add_row(name, "–", seconds, "not measured" if size["why_not"] else "not reached", "–", "–")
            continue
        seen = size["updates"]
        edge = " (edge)" if size["on_edge"] else ""
        made.add_row(
            name, f"{size['learning_rate']:.3g}{edge}", seconds, three_figures(size["updates_to_target"]),
            f"{min(seen):,}–{max(seen):,}", unbroken(duration(size["seconds_to_target"])),
        )  # fmt: skip
    return made


def confirmed_table(record: dict[str, Any]) -> Any:
    """Returns the table of what was predicted and what real runs took."""
    from ..report.style import duration
    from .table import Table, unbroken

    made = Table(
        "update after", "updates predicted", "seen", "seconds predicted", "seen", title="Real runs on other seeds"
    )
    for one in record["confirmed"]:
        updates, seconds = one["predicted_updates"], one["predicted_seconds"]
        spans = [
            f"{updates['value']:,.0f} ({updates['low']:,.0f}–{updates['high']:,.0f})",
            ", ".join("–" if u is None else f"{u:,}" for u in one["seen_updates"]) or "not measured",
            unbroken(duration(seconds["value"])),
            ", ".join("–" if s is None else unbroken(duration(s)) for s in one["seen_seconds"]) or "not measured",
        ]
        made.add_row(f"{one['batch_size']:,}", *spans)
    return made


def outcome(found: Advice) -> int:
    """Returns the exit code of advice, and says on standard error why it is not 0."""
    from .console import say

    if not found.reached:
        say(f"{found.answer[0]} {found.record['next']}")
        return 2
    return 0
