"""Writing examples into shards: `.npy` files of equally many examples, the last one shorter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

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
        self._file: Any = None
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
            if not place:
                self._begin()
            now, x = x[: self.per_shard - place], x[self.per_shard - place :]
            self._file.write(np.ascontiguousarray(now).reshape(-1).view(np.uint8).data)
            self.n += len(now)

    def _begin(self) -> None:
        """Closes a full shard and begins the next one."""
        if self._file is not None:
            self._file.close()
        self._file = (self._folder / f"x-{self.n // self.per_shard:05}.npy").open("wb", buffering=0)
        self._header(self.per_shard)

    def _header(self, n: int) -> None:
        about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (n, *self.example)}
        np.lib.format.write_array_header_1_0(self._file, about)

    def close(self) -> None:
        """Closes the last shard, whose header says how many examples it holds."""
        start = self._file.seek(0)
        self._header(self.n - (self.n - 1) // self.per_shard * self.per_shard)
        assert self._file.tell() > start
        self._file.close()
