"""Peers: what else trains the same networks, one small module each, in the best form that its documentation gives.

Each module has `prepare(task) -> Trainer` (`task.py`), and says in its docstring which form was chosen and why. Each
runs in a process of its own (`bench/worker.py`), so that no library's threads or settings touch another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Peer(NamedTuple):
    """One peer: its module here, what it is called in tables, packages whose versions count, and its environment."""

    module: str
    title: str
    packages: tuple[str, ...]
    environment: Mapping[str, str] = MappingProxyType({})


PEERS: dict[str, Peer] = {
    "backbeat": Peer("backbeat_fit", "backbeat", ("backbeat", "jax", "jaxlib", "optax", "numpy")),
    "scan": Peer("bare_scan", "bare scan in JAX", ("jax", "optax")),
    "flax": Peer("flax_loop", "Flax + Optax loop", ("flax", "optax")),
    "torch": Peer("torch_eager", "PyTorch eager", ("torch",)),
    "compile": Peer("torch_compiled", "torch.compile", ("torch",)),
    "lightning": Peer("lightning_trainer", "Lightning", ("lightning",)),
    "skorch": Peer("skorch_net", "skorch", ("skorch",)),
    "keras-jax": Peer("keras_fit", "Keras (JAX)", ("keras",), {"KERAS_BACKEND": "jax"}),
    "keras-torch": Peer("keras_fit", "Keras (torch)", ("keras",), {"KERAS_BACKEND": "torch"}),
    "sklearn": Peer("scikit_learn", "scikit-learn", ("scikit-learn",)),
    "river": Peer("river_stream", "River", ("river",)),
    "vw": Peer("vowpal_wabbit", "Vowpal Wabbit", ("vowpalwabbit",)),
}
