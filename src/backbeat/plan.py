"""Which examples each update uses: a stretch of batches as indices, made from integers only.

The plan is a pure function of a cursor (where the run stands in the stream of examples), so that a run can be resumed
at any update and gives the same batches on any number of devices. It says what happened to every example:
used, how often, or set aside because a short last batch was dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np

from .cadence import Cadence
from .clock import Clock, Duration
from .errors import choose
from .order import Order

ShortBatch = Literal["keep", "drop", "carry"]
SHORT_BATCH: tuple[str, ...] = get_args(ShortBatch)


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: all that decides the batches to come.

    Attributes:
        epoch: the epoch that the next batch starts in, from 0.
        position: how many examples of that epoch are behind it.
        batches: batches served so far (equal to the updates, unless batches are repeated).
        examples: examples in those batches.
    """

    epoch: int = 0
    position: int = 0
    batches: int = 0
    examples: int = 0


class Batches(NamedTuple):
    """Shapes of the next batches, before any index is made; arrays of one entry a batch.

    Attributes:
        epoch: the epoch in which each starts.
        position: where in that epoch.
        size: how many examples it has.
        passed: positions of the stream behind each batch's end, those set aside included.
    """

    epoch: np.ndarray
    position: np.ndarray
    size: np.ndarray
    passed: np.ndarray


@dataclass(frozen=True)
class Stretch:
    """The batches of some consecutive updates.

    Attributes:
        indices: `[n, M]` int32 into the training part; a short batch is filled up with its own first example, which
            `sizes` tells to leave out. `[1, M]` where every batch is the whole data set in the same order.
        sizes: `[n]` int32, how many of a row's indices count.
        passed: `[n]` int64, positions of the stream behind each batch (epochs = passed / |D|).
        set_aside: indices of examples that were dropped during this stretch, in order.
        end: the cursor behind the last batch.
    """

    indices: np.ndarray
    sizes: np.ndarray
    passed: np.ndarray
    set_aside: np.ndarray
    end: Cursor

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def batch_size(self) -> int:
        """M, the width of a full batch."""
        return self.indices.shape[1]

    @property
    def weights(self) -> np.ndarray:
        """`[n, M]` float32: 1 for an example that counts, 0 for one that only fills up a short batch."""
        return (np.arange(self.batch_size) < self.sizes[:, None]).astype(np.float32)

    def uses(self, n_examples: int) -> np.ndarray:
        """Returns how often each example is used in this stretch, `[n_examples]`."""
        rows = np.broadcast_to(self.indices, (len(self), self.batch_size))
        return np.bincount(rows[self.weights > 0], minlength=n_examples)


@dataclass(frozen=True)
class Plan:
    """What every update of a run uses.

    Attributes:
        order: the order of the examples.
        cadence: after how many examples to update.
        short_batch: what happens where |D| is not a multiple of M. "keep": the last batch of an epoch is short and is
            divided by its own weight. "drop": it is left out, and its examples are counted as set aside. "carry": it
            is filled up from the next epoch.

    Example:
        >>> from backbeat.cadence import every
        >>> plan = Plan(Order("as given", seed=0, n_examples=5), every(2))
        >>> stretch = plan.stretch(Cursor(), 3)
        >>> stretch.indices.tolist(), stretch.sizes.tolist()
        ([[0, 1], [2, 3], [4, 4]], [2, 2, 1])
    """

    order: Order
    cadence: Cadence
    short_batch: str = "keep"

    def __post_init__(self) -> None:
        choose("short_batch", self.short_batch, SHORT_BATCH)
        self.cadence.batch_sizes(self.n_examples)  # refuses a batch larger than the data, now rather than later

    @property
    def n_examples(self) -> int:
        """|D|."""
        return self.order.n_examples

    def clock(self, cursor: Cursor) -> Clock:
        """Returns the clock at a cursor for a run that makes one update a batch."""
        return Clock(
            cursor.batches, cursor.examples, (cursor.epoch * self.n_examples + cursor.position) / self.n_examples
        )

    def phase(self, cursor: Cursor) -> tuple[int, Duration | None]:
        """Returns (M, when the next phase starts or None) for the batch at the cursor."""
        sizes = self.cadence.batch_sizes(self.n_examples)
        clock = self.clock(cursor)
        current, start = sizes[0], None
        for size, phase in zip(sizes[1:], self.cadence.phases[1:], strict=True):
            start = phase.after
            assert start is not None
            if getattr(clock, start.unit) < start.amount:
                return current, start
            current = size
        return current, None

    def has_short_batches(self, batch_size: int) -> bool:
        """Returns whether batches of this size can be short: kept ones that do not divide the data, or a change."""
        divides = self.n_examples % batch_size == 0 and len(self.cadence.phases) == 1
        return self.short_batch == "keep" and not divides

    def batches(self, cursor: Cursor, n: int) -> Batches:
        """Returns the shapes of the next `n` batches, all of the size that holds at the cursor."""
        size = self.phase(cursor)[0]
        n_examples, j = self.n_examples, np.arange(n, dtype=np.int64)
        if self.short_batch == "carry":
            start = cursor.position + j * size
            epoch, position = cursor.epoch + start // n_examples, start % n_examples
            return Batches(epoch, position, np.full(n, size), epoch * n_examples + position + size)
        count = (lambda left: left // size) if self.short_batch == "drop" else (lambda left: -(-left // size))
        here, each = count(n_examples - cursor.position), count(n_examples)
        # the first batch of each epoch; divisions for every batch would cost more than all the rest
        first = np.concatenate([[0], np.arange(here, n, each)])
        start = np.concatenate([[cursor.position], np.zeros(len(first) - 1, np.int64)])
        n_batches = np.diff(np.minimum(np.append(first, n), n))
        epoch = np.repeat(cursor.epoch + np.arange(len(first)), n_batches)
        position = j * size + np.repeat(start - first * size, n_batches)
        counted = np.minimum(size, n_examples - position)
        end = position + counted
        if self.short_batch == "drop":  # what is set aside is passed as soon as no further full batch fits
            end = np.where(end + size > n_examples, n_examples, end)
        return Batches(epoch, position, counted, epoch * n_examples + end)

    def stretch(self, cursor: Cursor, n: int, limits: Iterable[Duration] = ()) -> Stretch:
        """Returns the next `n` batches, or fewer where a limit or a change of batch size comes first.

        Args:
            cursor: where the run stands.
            n: the most batches, 1 or more.
            limits: amounts from the start of the run; the last batch of the stretch is the first to reach one.
        """
        size, change = self.phase(cursor)
        limits = [*limits, *([change] if change else [])]
        batches = self.batches(cursor, self._enough(cursor, size, n, limits))
        n = self._cut(cursor, batches, limits)
        batches = Batches(*(column[:n] for column in batches))
        whole = size == self.n_examples and self.order.kind != "with replacement" and not batches.position.any()
        # the mean of all the examples does not depend on their order
        indices = np.arange(size, dtype=np.int32)[None] if whole else self._indices(batches, size)
        passed = int(batches.passed[-1])
        end = Cursor(*divmod(passed, self.n_examples), cursor.batches + n, cursor.examples + int(batches.size.sum()))
        return Stretch(indices, batches.size.astype(np.int32), batches.passed, self._set_aside(cursor, batches), end)

    def _enough(self, cursor: Cursor, size: int, n: int, limits: list[Duration]) -> int:
        """Returns at most `n` batches, and not many more than reach the first limit, so that no others are laid out."""
        passed = cursor.epoch * self.n_examples + cursor.position
        for limit in limits:
            if limit.unit == "updates":
                n = min(n, math.ceil(limit.amount) - cursor.batches)
            elif limit.unit != "seconds":
                epochs = limit.unit == "epochs"
                left = limit.amount * self.n_examples - passed if epochs else limit.amount - cursor.examples
                n = min(n, math.ceil(left / size + left / self.n_examples) + 2)  # an epoch has one short batch at most
        return max(1, n)

    def _cut(self, cursor: Cursor, batches: Batches, limits: list[Duration]) -> int:
        """Returns how many of the batches come up to the first limit that one of them reaches."""
        n = len(batches.size)
        clocks = {
            "updates": cursor.batches + np.arange(1, n + 1),
            "examples": cursor.examples + np.cumsum(batches.size),
            "epochs": batches.passed,
        }
        scale = {"updates": 1, "examples": 1, "epochs": self.n_examples}
        # positions are whole: 3 · 0.1 epochs, a little too large as a float, still means the third tenth
        ends = [
            int(np.searchsorted(clocks[limit.unit], limit.amount * scale[limit.unit] - 1e-6)) + 1
            for limit in limits
            if limit.unit in clocks
        ]
        return max(1, min([n, *ends]))

    def _indices(self, batches: Batches, size: int) -> np.ndarray:
        first, last = int(batches.epoch[0]), int(batches.epoch[-1]) + (self.short_batch == "carry")
        stream = self.order.epochs(first, last - first + 1).reshape(-1)
        ends = (batches.epoch[[0, -1]] - first) * self.n_examples + batches.position[[0, -1]]
        n = len(batches.size)
        if (batches.size == size).all() and ends[1] - ends[0] == (n - 1) * size:
            return stream[ends[0] : ends[0] + n * size].reshape(n, size)
        start, column = (batches.epoch - first) * self.n_examples + batches.position, np.arange(size)
        return stream[start[:, None] + np.where(column < batches.size[:, None], column, 0)]

    def _set_aside(self, cursor: Cursor, batches: Batches) -> np.ndarray:
        if self.short_batch != "drop":
            return np.empty(0, np.int32)
        full = batches.position + batches.size
        ended = np.flatnonzero(batches.passed - batches.epoch * self.n_examples > full)
        pieces = [self.order.epochs(int(batches.epoch[i]), 1)[0, full[i] :] for i in ended]
        if (
            cursor.position and batches.epoch[0] > cursor.epoch
        ):  # a change of batch size left no full batch in this epoch
            pieces.insert(0, self.order.epochs(cursor.epoch, 1)[0, cursor.position :])
        return np.concatenate([np.empty(0, np.int32), *pieces])


def start_of(cursor: Cursor, stretch: Stretch, n: int, n_examples: int) -> Cursor:
    """Returns the cursor after the first `n` batches of a stretch that began at `cursor`: a run may stop inside it.

    Example:
        >>> plan = Plan(Order("as given", 0, 4), __import__("backbeat").every(1))
        >>> start_of(Cursor(), plan.stretch(Cursor(), 4), 3, 4)
        Cursor(epoch=0, position=3, batches=3, examples=3)
    """
    if n == 0:
        return cursor
    epoch, position = divmod(int(stretch.passed[n - 1]), n_examples)
    return replace(
        cursor,
        epoch=epoch,
        position=position,
        batches=cursor.batches + n,
        examples=cursor.examples + int(stretch.sizes[:n].sum()),
    )


def whole_updates(duration: Duration, batch_size: int, n_examples: int) -> int:
    """Returns how many updates a duration takes at one batch size; used to size programs, not to stop runs.

    Example:
        >>> whole_updates(Duration.parse("2 epochs"), batch_size=32, n_examples=100)
        8
    """
    per_epoch = math.ceil(n_examples / batch_size)
    if duration.unit == "epochs":
        return math.ceil(duration.amount * per_epoch)
    return math.ceil(duration.amount / (batch_size if duration.unit == "examples" else 1))
