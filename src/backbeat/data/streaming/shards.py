"""Writing examples into shards: `.npy` files of equally many examples, the last one shorter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError

_SHARD_BYTES, _MOST_SHARDS = 1 << 28, 256


class Shards:
    """Writes examples into `x-00000.npy`, `x-00001.npy` and so on.

    Attributes:
        n: how many were written.
        per_shard: how many each file takes, known from the first ones on.
        example: the shape of one.
        dtype: of the numbers.
    """

    def __init__(self, folder: Path, n_bytes: int) -> None:
        """Begins; `n_bytes` is about how many there will be."""
        self._folder, self._most_bytes = folder, max(_SHARD_BYTES, n_bytes // _MOST_SHARDS)
        self.n = self.per_shard = 0
        self.example: tuple[int, ...] = ()
        self.dtype = np.dtype(np.float32)

    @property
    def shape(self) -> list[int]:
        """The shape of all that was written."""
        return [self.n, *self.example]

    def add(self, x: np.ndarray) -> None:
        """Writes some examples more."""
        if x.ndim == 1:
            raise DataError(
                f"the inputs have the shape {list(x.shape)}; give [examples, features], for one feature x[:, None]."
            )
        if not self.n:
            self.example, self.dtype = x.shape[1:], x.dtype
            self.per_shard = max(1, self._most_bytes // max(1, x[:1].nbytes))
        if x.shape[1:] != self.example:
            raise DataError(
                f"one example has the shape {list(self.example)}, that at {self.n} {list(x.shape[1:])}; give all the "
                "same shape."
            )
        while len(x):
            place = self.n % self.per_shard
            now, x = x[: self.per_shard - place], x[self.per_shard - place :]
            # Open only while it is written to: whatever the source raises between, no file stays open.
            with self._shard(self.n // self.per_shard).open("ab" if place else "wb", buffering=0) as file:
                if not place:
                    self._header(file, self.per_shard)
                file.write(np.ascontiguousarray(now).reshape(-1).view(np.uint8).data)
            self.n += len(now)

    def _shard(self, i: int) -> Path:
        return self._folder / f"x-{i:05}.npy"

    def _header(self, file: Any, n: int) -> None:
        about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (n, *self.example)}
        np.lib.format.write_array_header_1_0(file, about)

    def close(self) -> None:
        """Says in the header of the last shard how many examples it holds."""
        last = (self.n - 1) // self.per_shard
        with self._shard(last).open("r+b") as file:
            self._header(file, self.n - last * self.per_shard)
