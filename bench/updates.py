"""Times one update in backbeat, in a bare JAX scan, in PyTorch and in scikit-learn, against each other.

    python bench/updates.py                                  # everything: about half an hour on two cores
    python bench/updates.py --quick --networks 64-32-10 --batch 1,32
    python bench/updates.py --json > updates.json

All of them train the same network on the same data, alternately in one process; `bench/README.md` says how each is
written and what counts. Compilation is left out everywhere and reported for backbeat.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import backbeat as bb

NETWORKS = ("64-32-10", "784-128-10", "784-512-512-10")
BATCHES = (1, 8, 32, 256, 2048)
RATE, HELD_OUT = 0.01, 0.2
N_EXAMPLES = {64: 20480, 784: 10240}  # a fifth is held out; what is left is a multiple of every batch size

Timing = Callable[[], float]


class Data(NamedTuple):
    """Random float32 inputs and labels 0 to 9; `x`, `y` are all, `n_train` how many of them the peers train on."""

    x: np.ndarray
    y: np.ndarray
    n_train: int


def make_data(inputs: int) -> Data:
    generator = np.random.default_rng(0)
    n = N_EXAMPLES[inputs]
    x = generator.standard_normal((n, inputs), dtype=np.float32)
    return Data(x, np.arange(n, dtype=np.int32) % 10, n - round(n * HELD_OUT))


# --- backbeat, as its users call it


class Bar:
    """A consumer of events that draws the progress bar of the command line, eight times a second, into nothing."""

    def __init__(self, n_updates: int) -> None:
        self.file = open(os.devnull, "w")  # noqa: SIM115 closed by `stop`
        columns = TextColumn("{task.completed:,.0f} updates"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}")
        console = Console(file=self.file, force_terminal=True)
        self.progress = Progress(*columns, console=console, transient=True, refresh_per_second=8)
        self.task = self.progress.add_task("", total=n_updates, loss=float("nan"))
        self.progress.start()

    def __call__(self, event: Any) -> None:
        if hasattr(event, "loss_mean"):
            self.progress.update(self.task, completed=event.clock.updates, loss=event.loss_mean)

    def stop(self) -> None:
        self.progress.stop()
        self.file.close()


class Fit:
    """`backbeat.fit`: the whole call, evaluations and progress bar included, and the updates alone beside it."""

    def __init__(self, sizes: tuple[int, ...], data: Data, batch: int, n_updates: int) -> None:
        self.sizes, self.data, self.batch, self.n_updates = sizes, data, batch, n_updates
        self.updates_alone: list[float] = []
        self.evaluations = 0
        self.compile_seconds = self._run().compile_seconds

    def _run(self) -> bb.Run:
        bar = Bar(self.n_updates)
        run = bb.fit(
            bb.mlp(hidden=self.sizes[1:-1]), (self.data.x, self.data.y), every=self.batch, learning_rate=RATE,
            loss="cross_entropy", duration=f"{self.n_updates} updates", held_out=HELD_OUT, on_event=bar,
        )  # fmt: skip
        bar.stop()
        return run

    def __call__(self) -> float:
        start = time.perf_counter()
        run = self._run()
        seconds = time.perf_counter() - start
        self.updates_alone.append(run.history["update_seconds"][-1] / self.n_updates)
        self.evaluations = int(np.isfinite(run.history["train_loss_mean"]).sum())
        return seconds / self.n_updates


# --- a bare scan, as somebody who knows JAX writes it for this one network


def bare_params(sizes: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(jax.random.key(0), len(sizes))
    pairs = zip(keys, pairwise(sizes), strict=False)
    return [(jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, jnp.zeros(b)) for k, (a, b) in pairs]


def bare_loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    logits = x @ params[-1][0] + params[-1][1]
    return (jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]).mean()


def bare_update(params: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
    value, gradient = jax.value_and_grad(bare_loss)(params, x, y)
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), value


@partial(jax.jit, static_argnums=4)
def bare_gathered(params: Any, x: jax.Array, y: jax.Array, order: jax.Array, unroll: int) -> tuple[Any, jax.Array]:
    """One epoch, its examples gathered at once, then one scan over them."""
    return jax.lax.scan(lambda p, batch: bare_update(p, *batch), params, (x[order], y[order]), unroll=unroll)


@partial(jax.jit, static_argnums=4)
def bare_indexed(params: Any, x: jax.Array, y: jax.Array, order: jax.Array, unroll: int) -> tuple[Any, jax.Array]:
    """One epoch, each update gathering its own examples."""
    return jax.lax.scan(lambda p, row: bare_update(p, x[row], y[row]), params, order, unroll=unroll)


def bare(epoch: Callable, sizes: tuple[int, ...], data: Data, batch: int, n_updates: int, *, unroll: int = 1) -> Timing:
    n = data.n_train
    x, y = jnp.asarray(data.x[:n]), jnp.asarray(data.y[:n])
    generator, rows = np.random.default_rng(0), n // batch
    n_epochs = max(1, round(n_updates / rows))

    def run() -> float:
        params = bare_params(sizes)
        jax.block_until_ready(params)
        start = time.perf_counter()
        for _ in range(n_epochs):
            order = generator.permutation(n).astype(np.int32)[: rows * batch].reshape(rows, batch)
            params, losses = epoch(params, x, y, order, unroll)
            assert np.isfinite(np.asarray(losses).mean())
        jax.block_until_ready(params)
        return (time.perf_counter() - start) / (n_epochs * rows)

    return run


# --- PyTorch and scikit-learn


def torch_loop(fused: bool, sizes: tuple[int, ...], data: Data, batch: int, n_updates: int) -> Timing:
    """The loop of PyTorch's tutorials without its data loader, which costs more: indices of a shuffled epoch."""
    torch = importlib.import_module("torch")  # installed apart, so its types may not be there to check against
    nn = torch.nn

    n = data.n_train
    x, y = torch.from_numpy(data.x[:n].copy()), torch.from_numpy(data.y[:n].astype(np.int64))
    layers: list[Any] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model, loss_of = nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss()
    rule = torch.optim.SGD(model.parameters(), lr=RATE, fused=fused)

    def run() -> float:
        losses, start = [], time.perf_counter()
        while True:
            for row in torch.randperm(n).split(batch):
                rule.zero_grad(set_to_none=True)
                loss = loss_of(model(x[row]), y[row])
                loss.backward()
                rule.step()
                losses.append(loss.detach())
                if len(losses) == n_updates:
                    assert torch.stack(losses).mean().isfinite()
                    return (time.perf_counter() - start) / n_updates

    return run


def sklearn_fit(sizes: tuple[int, ...], data: Data, batch: int, n_updates: int) -> Timing:
    """`MLPClassifier.fit` with plain SGD, on as many examples as make about `n_updates`, at least an epoch."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    n = min(data.n_train, max(batch, 10, n_updates * batch))
    n_epochs = max(1, round(n_updates / -(-n // batch)))
    rule: dict[str, Any] = {"solver": "sgd", "momentum": 0, "alpha": 0, "batch_size": batch, "learning_rate_init": RATE}
    model = MLPClassifier(sizes[1:-1], **rule, max_iter=n_epochs, tol=0, n_iter_no_change=n_epochs + 1)

    def run() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = time.perf_counter()
            model.fit(data.x[:n], data.y[:n])
            return (time.perf_counter() - start) / (n_epochs * -(-n // batch))

    return run


# --- measuring


@dataclass
class Case:
    """One network and batch size: seconds an update, for each of those timed, one entry a round."""

    network: str
    batch: int
    n_updates: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    compile_seconds: float = 0.0
    evaluations: int = 0

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def best(self, prefix: str) -> str:
        """Returns the name of the form that has the lowest median."""
        return min((name for name in self.seconds if name.startswith(prefix)), key=self.median)

    def ratio(self, prefix: str, of: str = "fit") -> float:
        """Returns how many times faster backbeat is: the median over rounds of the other's time by its own."""
        if not any(name.startswith(prefix) for name in self.seconds):
            return float("nan")
        return statistics.median(a / b for a, b in zip(self.seconds[self.best(prefix)], self.seconds[of], strict=True))


def speed(make: Callable[[int], Timing], first: int, seconds: float = 0.1) -> float:
    """Returns about how long an update takes, from more and more of them."""
    n = first
    while True:
        run = make(n)
        run()
        each = run()
        if each * n >= seconds or n >= 1 << 22:
            return each
        n = int(n * min(20, 1.5 * seconds / (each * n) + 1)) + 1


def peers(sizes: tuple[int, ...], data: Data, batch: int, against: list[str]) -> dict[str, Callable[[int], Timing]]:
    """Returns what backbeat is timed against: each from a number of updates to a timing of about as many."""
    made = {
        "bare gathered": partial(bare, bare_gathered, sizes, data, batch),
        "bare indexed": partial(bare, bare_indexed, sizes, data, batch),
        "torch plain": partial(torch_loop, False, sizes, data, batch),
        "torch fused": partial(torch_loop, True, sizes, data, batch),
        "sklearn": partial(sklearn_fit, sizes, data, batch),
    }
    if batch == 1:  # told beside the others: backbeat does not unroll, so that a resumed run has the same bits
        made["unrolled bare"] = partial(bare, bare_gathered, sizes, data, batch, unroll=4)
    return {name: make for name, make in made.items() if kind(name) in against}


def kind(name: str) -> str:
    """Returns what `--against` calls a form: "bare" for "bare gathered"."""
    return "bare" if name == "unrolled bare" else name.split()[0]


def measure(network: str, batch: int, options: argparse.Namespace) -> Case:
    sizes = tuple(map(int, network.split("-")))
    data = make_data(sizes[0])
    rows = data.n_train // batch
    makers = peers(sizes, data, batch, options.against)
    each = {name: speed(make, rows if name.startswith("bare") else 2) for name, make in makers.items()}
    least = {of: min(each[name] for name in each if kind(name) == of) for of in options.against}
    makers = {name: make for name, make in makers.items() if each[name] < 1.5 * least[kind(name)]}
    known = [seconds for name, seconds in each.items() if name.startswith("bare")]
    epoch = rows * (min(known) if known else speed(partial(bare, bare_gathered, sizes, data, batch), rows))
    # 20 epochs, the default duration, where that takes neither less than is wanted nor very long
    n_updates = rows * max(1, round(max(2 * options.seconds, min(20 * epoch, 4 * options.seconds)) / epoch))
    fit = Fit(sizes, data, batch, n_updates)
    timings: dict[str, Timing] = {"fit": fit}
    if options.short:
        timings["short fit"] = Fit(sizes, Data(data.x[:-1], data.y[:-1], data.n_train - 1), batch, n_updates)
    for name, make in makers.items():
        timings[name] = make(max(2, round(options.seconds / each[name])))
    for timing in timings.values():
        timing()
    fit.updates_alone.clear()
    case = Case(network, batch, n_updates, interleaved(timings, options.rounds), fit.compile_seconds, fit.evaluations)
    case.seconds["updates alone"] = fit.updates_alone
    return case


def interleaved(timings: dict[str, Timing], rounds: int) -> dict[str, list[float]]:
    """Returns each one's times; every round runs all of them, and starts with another one."""
    names, seconds = list(timings), {name: [] for name in timings}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            time.sleep(0.05)  # the threads of the one before go to rest
            seconds[name].append(timings[name]())
    return seconds


# --- telling


HEADER = (
    f"{'network':15} {'M':>5} {'fit':>9} {'updates':>9} {'bare':>9} {'torch':>9} {'sklearn':>9} │ "
    f"{'bare':>6} {'torch':>7} {'sklearn':>7} │ forms"
)


def line(case: Case) -> str:
    def micro(prefix: str) -> str:
        known = any(name.startswith(prefix) for name in case.seconds)
        return f"{case.median(case.best(prefix)) * 1e6:9.2f}" if known else f"{'':9}"

    names = ("fit", "updates alone", "bare", "torch", "sklearn")
    forms = [case.best(prefix) for prefix in ("bare", "torch") if any(name.startswith(prefix) for name in case.seconds)]
    if "unrolled bare" in case.seconds:
        forms.append(f"unrolled bare {case.median('unrolled bare') * 1e6:.2f} (fit {case.ratio('unrolled bare'):.2f})")
    if "short fit" in case.seconds:
        forms.append(f"with short batches {1 / case.ratio('short fit'):.2f} × as fast")
    return (
        f"{case.network:15} {case.batch:5} {' '.join(map(micro, names))} │ {case.ratio('bare'):6.2f} "
        f"{case.ratio('torch'):7.2f} {case.ratio('sklearn'):7.1f} │ {', '.join(forms)}"
    )


def missed(case: Case) -> list[str]:
    """Returns where a case falls short of what is asked of backbeat."""
    torch_floor = {("64-32-10", 1): 80.0, ("784-128-10", 1): 7.0}.get((case.network, case.batch), 1.0)
    floors = {
        "bare": 0.9,
        "torch": 0.95 if case.batch == 2048 else torch_floor,
        "sklearn": 50.0 if case.batch == 1 and case.network == "64-32-10" else 0.0,
    }
    return [
        f"{case.network} at M = {case.batch}: {case.ratio(name):.2f} × {name}, asked for {floor:g}"
        for name, floor in floors.items()
        if case.ratio(name) < floor
    ]


def machine() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    def found(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    names = ("jax", "jaxlib", "optax", "numpy", "torch", "scikit-learn")
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "unknown"
    about = {"cores": os.cpu_count(), "processor": processor(), "load": load, "python": platform.python_version()}
    return about | {name: found(name) for name in names}


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(text.split(":")[1].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="widths of layers, separated by commas")
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)), help="batch sizes M, separated by commas")
    parser.add_argument("--against", default="bare,torch,sklearn", help="what to time beside backbeat")
    parser.add_argument("--rounds", type=int, help="how often each is timed (7; 3 with --quick)")
    parser.add_argument("--seconds", type=float, help="how long one timing takes, at least (1; 0.3 with --quick)")
    parser.add_argument("--short", action="store_true", help="also one example fewer: a short batch in every epoch")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter timings, for a first look")
    parser.add_argument("--json", action="store_true", help="every timing of every case, as JSON")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.seconds = options.seconds or (0.3 if options.quick else 1.0)
    options.against = options.against.split(",")
    return options


def main() -> None:
    options = parse()
    about = machine()
    tell = sys.stderr if options.json else sys.stdout
    print("µs an update (medians), then how many times faster fit is (median of the rounds' ratios)", file=tell)
    print(", ".join(f"{name} {value}" for name, value in about.items()), HEADER, sep="\n", file=tell, flush=True)
    cases = []
    for network in options.networks.split(","):
        for batch in map(int, options.batch.split(",")):
            cases.append(measure(network, batch, options))
            print(line(cases[-1]), file=tell, flush=True)
    for text in [text for case in cases for text in missed(case)] or ["everything asked for is met"]:
        print(text, file=tell)
    if options.json:
        result = {"machine": about, "rounds": options.rounds, "cases": [vars(case) for case in cases]}
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
