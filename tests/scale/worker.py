"""What the tests of this folder start: jobs by name, trained on some devices of some processes; prints what came of it.

    python worker.py '[["minibatch", {"devices": 2, "deterministic": true}]]'

One line of JSON: a list with the hash of the final θ, θ itself where it is short, and what was seen beside it. Which
process it is, and how many there are, is read from the environment, as `backbeat train` does.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import backbeat as bb
from backbeat.errors import DivergedError
from backbeat.events import StretchDone
from backbeat.join import join, leave, place_of
from backbeat.mesh import n_processes, process_index

RNG = np.random.default_rng(0)
X = RNG.normal(size=(77, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 77).astype(np.int32)
VALUES = RNG.normal(size=77).astype(np.float32)
WEIGHT = RNG.choice([0, 0.5, 1, 3], 77).astype(np.float32)
TOKENS = RNG.integers(-1, 3, (77, 2)).astype(np.int32)  # labels, of which -1 are left out


@dataclass(frozen=True)
class Dropped:
    """A network of two layers, of whose first each output is dropped with probability ½."""

    def init(self, key: Any) -> Any:
        one, two = jax.random.split(key)
        return {"a": jax.random.normal(one, (6, 8)), "b": jax.random.normal(two, (8,))}

    def apply(self, params: Any, x: Any) -> Any:
        return jnp.tanh(x @ params["a"]) @ params["b"]

    def apply_random(self, params: Any, x: Any, keys: Any) -> Any:
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (8,)))(keys).astype(x.dtype)
        return (jnp.tanh(x @ params["a"]) * 2 * kept) @ params["b"]


class Tokens:
    """Two labels for each example, by a recurrent network: a loop that begins with plain zeros."""

    def init(self, key: Any) -> Any:
        return {"w": jax.random.normal(key, (6, 4)), "u": jnp.eye(4) / 2, "out": jnp.ones((4, 6)) / 3}

    def apply(self, params: Any, x: Any) -> Any:
        def step(h: Any, _: Any) -> tuple:
            return jnp.tanh(h @ params["u"] + x @ params["w"]), None

        h, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], 4)), None, length=2)
        return (h @ params["out"]).reshape(-1, 2, 3)


GIVEN: dict[str, Any] = {"held_out": 0.2, "duration": "3 epochs", "learning_rate": 0.05, "seed": 3, "evaluate": "never"}
JOBS: dict[str, tuple[Any, tuple, dict[str, Any]]] = {
    "minibatch": (
        "mlp:5:tanh", (X, Y, WEIGHT),
        {"every": 25, "optimizer": "adam", "schedule": "cosine", "clip": 0.5, "watch_gradient": True},
    ),
    "single": ("mlp:5", (X, Y), {"every": 1, "duration": "20 updates", "optimizer": "momentum"}),
    "dataset": ("mlp:5", (X, VALUES), {"every": "dataset", "duration": "5 updates"}),
    "dropout": (Dropped(), (X, VALUES), {"every": 16, "optimizer": "adam"}),
    "tokens": (Tokens(), (X, TOKENS), {"every": 30, "loss": "cross_entropy:ignore=-1", "held_out": 0}),
    "noise": ("mlp:5", (X, Y), {"every": "noise 4 to 32", "duration": "5 epochs", "evaluate": "auto"}),
    "phases": ("mlp:5", (X, Y), {"every": "8 then 40 after 1 epochs", "evaluate": "1 epoch", "target": "loss<=1e-4"}),
    "images": ("cnn:3", (RNG.uniform(size=(40, 8, 8)).astype(np.float32), Y[:40]), {"every": 20}),
    "wide": ("mlp:300", (RNG.normal(size=(400, 900)).astype(np.float32), RNG.integers(0, 9, 400)), {"every": 250}),
    "rate": ("mlp:5", (X, Y), {"every": 8, "learning_rate": "auto"}),
    "seconds": ("mlp:5", (X, Y), {"every": 8, "duration": "0.6 s", "evaluate": "auto"}),
    "diverges": ("linear", (X, VALUES), {"every": 8, "learning_rate": 1e6, "duration": "60 epochs"}),
}  # fmt: skip


def trained(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what training a job with some settings more came to."""
    model, data, given = JOBS[name]
    if settings.pop("in_files", False):
        return in_files(model, data, {**GIVEN, **given, **settings})
    if settings.pop("interrupted", False):
        interrupted(model, data, {**GIVEN, **given, **settings, "duration": "300 s", "schedule": None})
    try:
        run = bb.fit(model, data, **{**GIVEN, **given, **settings})
    except DivergedError as error:
        run: Any = error.run
    return told(run)


def interrupted(model: Any, data: tuple, settings: dict[str, Any]) -> None:
    """Trains until the last process is interrupted, which ends all of them."""
    numbers = [number for number in (process_index(),) if number == n_processes() - 1]

    def interrupt(event: Any) -> None:
        if isinstance(event, StretchDone) and numbers:
            numbers.clear()
            signal.raise_signal(signal.SIGINT)

    try:
        bb.fit(model, data, **settings, on_event=interrupt)
    except KeyboardInterrupt:
        return
    raise AssertionError("it was not interrupted")


def told(run: Any) -> dict[str, Any]:
    """Returns what a test looks at of a run."""
    theta = np.asarray(run.theta)
    return {
        "theta": hashlib.sha256(theta.tobytes()).hexdigest(), "values": theta[:200].tolist(),
        "updates": run.clock.updates, "seconds": run.clock.seconds, "rate": run.job.learning_rate,
        "sizes": np.asarray(run.history.get("batch_size", [])).tolist(), "reason": run.reason,
        "loss": np.asarray(run.history["loss_mean"])[-1:].tolist(),
    }  # fmt: skip


def in_files(model: Any, data: tuple, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what training from files came to, with the examples that this process read of them while it trained."""
    import importlib

    from backbeat.data.streaming.packed import Packed

    folder = Path(os.environ["BACKBEAT_CACHE"])
    importlib.import_module("backbeat.data.load").larger_than_memory = lambda source, memory: True  # pyright: ignore
    np.savez(folder / f"{os.getpid()}.npz", x=data[0], y=data[1])
    read: list[int] = []
    take = Packed.take

    def counted(self: Packed, where: np.ndarray, out: np.ndarray) -> None:
        read.extend(np.asarray(where).reshape(-1).tolist())
        take(self, where, out)

    Packed.take = counted
    run = bb.fit(model, folder / f"{os.getpid()}.npz", **settings, prepare="none", memory="2 GB")
    return {**told(run), "read": len(read)}


if __name__ == "__main__":
    place = place_of(None, None, None)
    if place is not None:
        join(place)
    print(json.dumps([trained(name, settings) for name, settings in json.loads(sys.argv[1])]), flush=True)
    leave()
