"""What a run gets wrong: who is taken for whom, and the examples with the greatest losses, as pictures where they are.

Worked out of the held-out part (of the training part where nothing is held out) at the end of a recorded run, and on
its way after an evaluation, where all of that takes at most a hundredth of the time. The weights do not depend on it.
What was found lies in the run's folder, in mistakes.json, for its pages.
"""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .clock import Clock
from .config import Job
from .errors import SettingsError, out_of_memory
from .evaluate import block_for
from .events import Diverged, Evaluated, Event, Finished
from .folder import write_json
from .losses import Loss
from .models import Model
from .record import not_written
from .recorded import MISTAKES

SHOWN = 24  # examples
MOST_CLASSES = 40  # whose counts are told one by one; of more, those mistaken most often
_MOST = 10_000  # examples looked at
_SECONDS, _SHARE = 5.0, 0.01  # on the way: first after so long, and never more of the time than that
_ROWS = 256  # at once, at most
_MOST_NUMBERS = 8  # outputs of one example that a table has room for
_PIXELS = 96  # of the longer side of a picture; a larger one is brought to that


class _Block(NamedTuple):
    """Of each example: what was predicted, how probable it was held, the mean loss, what is right and what counts."""

    guess: Any
    probability: Any
    loss: Any
    truth: Any
    counts: Any


class Mistakes:
    """Looks for what a run gets wrong: a consumer of events.

    Args:
        run: the run's folder.
        job: what is trained.
    """

    def __init__(self, run: Path, job: Job) -> None:
        self._run, self._job = run, job
        self._started, self._spent, self._newest = time.perf_counter(), 0.0, 0.0

    def __call__(self, event: Event) -> None:
        """Looks, if it is time, and at the end.

        Raises:
            StorageError: what was found cannot be written.
        """
        if isinstance(event, (Finished, Diverged)):
            self._look(event.state.params, event.clock)
        elif isinstance(event, Evaluated) and event.snapshot is not None and self._due():
            self._look(event.snapshot.state.params, event.clock)

    def _due(self) -> bool:
        passed = time.perf_counter() - self._started
        return passed >= _SECONDS and self._spent + self._newest <= _SHARE * passed

    def _look(self, params: Any, clock: Clock) -> None:
        start = time.perf_counter()
        try:
            found = found_mistakes(self._job, params)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not out_of_memory(error):
                raise
            found = {"left_out": "memory was too short to look for what it gets wrong"}
        about = {"updates": clock.updates, "examples": clock.examples, "epochs": clock.epochs}
        try:
            write_json(self._run / MISTAKES, {"format": 1, **about, **found})
        except SettingsError as error:
            raise not_written(self._run, error) from None
        self._newest = time.perf_counter() - start
        self._spent += self._newest


def found_mistakes(job: Job, params: Any) -> dict[str, Any]:
    """Returns what a network gets wrong, as JSON has it.

    `part`, and `n` of its `of` examples, evenly spread, were looked at. For classes `confusion` counts `[true,
    predicted]` labels, or `confused` has the most frequent [true, predicted, count] of many classes. `worst` are the
    examples with the greatest mean loss, for classes only those with a wrong label: `number` (from 0, in the data),
    `loss`, `label`, `prediction`, its `probability`, and a `picture` (a PNG as a data address) of image-like inputs.

    Args:
        job: what was trained.
        params: θ.

    Example:
        >>> from backbeat.config import Settings, resolve
        >>> job = resolve("mlp:8", "digits", Settings())
        >>> found = found_mistakes(job, job.model.init(jax.random.key(0)))
        >>> found["part"], found["n"], sum(map(sum, found["confusion"])), len(found["worst"])
        ('held-out', 359, 359, 24)
    """
    part, whole = ("held-out", job.split.held_out) if len(job.split.held_out) else ("training", job.split.train)
    indices = whole[np.unique(np.linspace(0, len(whole) - 1, min(_MOST, len(whole)), dtype=np.int64))]
    rows = min(_ROWS, block_for(job.example_floats))
    counted, worst = Counter(), []
    for start in range(0, len(indices), rows):
        here = indices[start : start + rows]
        block = _outcome(job, params, here, rows)
        if job.loss.kind in ("classification", "binary"):
            right = block.truth[block.counts], block.guess[block.counts]
            counted.update(zip(*(side.tolist() for side in right), strict=True))
        worst = _greatest(worst, block, here, classes=job.loss.kind in ("classification", "binary"))
    names = _names(job)
    found = {"part": part, "n": len(indices), "of": len(whole), "kind": job.loss.kind, "names": names}
    if job.loss.kind in ("classification", "binary"):
        found |= _confusion(counted, None if _several(job) else len(names))
    pictures = _pictures(np.asarray(job.dataset.x[np.array([number for _, number, *_ in worst], np.int64)]))
    found["worst"] = [
        {"number": int(number), "loss": float(loss), **_said(job, names, block, k), "picture": picture}
        for (loss, number, block, k), picture in zip(worst, pictures, strict=True)
    ]
    return found


@lru_cache(maxsize=16)
def _program(model: Model, loss: Loss) -> Any:
    def outcome(params: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
        outputs = model.apply(params, x)
        total, count = loss(outputs, y)
        mean = total if count is None else total / count  # no label that counts: 0/0, not a number
        if loss.kind == "classification":
            return outputs.argmax(axis=-1), jax.nn.softmax(outputs, axis=-1).max(axis=-1), mean
        if loss.kind == "binary":
            likely = jax.nn.sigmoid(outputs)
            return outputs > 0, jnp.maximum(likely, 1 - likely), mean
        return outputs, jnp.zeros(0), mean

    return jax.jit(outcome)


def _outcome(job: Job, params: Any, indices: np.ndarray, rows: int) -> _Block:
    """Returns what the network makes of some examples; the last block is filled up, so that one program serves all."""
    filled = np.concatenate([indices, np.repeat(indices[-1:], rows - len(indices))])
    x, y = np.asarray(job.dataset.x[filled]), job.dataset.y[filled]
    found = jax.device_get(_program(job.model, job.loss)(params, x, y))
    guess, probability, loss = (np.asarray(column)[: len(indices)] for column in found)
    truth = y[: len(indices)]
    if job.loss.kind == "classification":
        truth = truth if truth.ndim == guess.ndim else truth.argmax(axis=-1)  # soft labels
    elif job.loss.kind == "binary":
        truth, guess = (truth.reshape(guess.shape) > 0.5).astype(np.int32), guess.astype(np.int32)
    counts = np.ones(np.shape(truth), bool) if job.loss.ignore is None else np.asarray(truth != job.loss.ignore)
    return _Block(guess, probability, loss, truth, counts)


def _greatest(worst: list, block: _Block, indices: np.ndarray, *, classes: bool) -> list:
    """Returns (loss, number, block, place in it) of the examples with the greatest losses so far."""
    wrong = np.isfinite(block.loss) | np.isposinf(block.loss)
    if classes:
        missed = (block.guess != block.truth) & block.counts
        wrong &= missed.reshape(len(missed), -1).any(axis=1)
    places = np.flatnonzero(wrong)
    places = places[np.argsort(-block.loss[places], kind="stable")[:SHOWN]]
    more = [(block.loss[k], indices[k], block, int(k)) for k in places]
    return sorted([*worst, *more], key=lambda each: -each[0])[:SHOWN]


def _several(job: Job) -> bool:
    """Returns whether an example has several labels of 0 or 1, each of its own kind."""
    return job.loss.kind == "binary" and int(np.prod(job.dataset.y.shape[1:])) > 1


def _names(job: Job) -> list[str]:
    """Returns the names of the classes, of the labels or of the outputs."""
    known = getattr(job.dataset.preparation, "label_names", ())
    if job.loss.kind in ("classification", "binary") and not _several(job):
        return list(job.dataset.classes or map(str, range(max(2, job.n_outputs))))
    return list(map(str, known or range(max(1, int(np.prod(job.dataset.y.shape[1:]))))))


def _confusion(counted: Counter, n: int | None) -> dict[str, Any]:
    """Returns the counts of labels, as a matrix where there are few classes; `n` None for labels of several kinds."""
    wrong = Counter({pair: count for pair, count in counted.items() if pair[0] != pair[1]})
    found: dict[str, Any] = {"n_labels": counted.total(), "n_wrong": wrong.total()}
    if n is None:
        return found
    if n > MOST_CLASSES:
        return found | {"confused": [[*pair, count] for pair, count in wrong.most_common(MOST_CLASSES)]}
    return found | {"confusion": [[counted[true, guess] for guess in range(n)] for true in range(n)]}


def _said(job: Job, names: list[str], block: _Block, k: int) -> dict[str, Any]:
    """Returns label and prediction of one example, in words or numbers; nothing where it has too many."""
    truth, guess = block.truth[k], block.guess[k]
    if job.loss.kind in ("classification", "binary"):
        if _several(job) and np.size(truth) <= _MOST_NUMBERS:
            on = ([name for name, is_on in zip(names, np.ravel(side), strict=True) if is_on] for side in (truth, guess))
            label, prediction = (", ".join(each) or "none" for each in on)
            return {"label": label, "prediction": prediction}
        if np.size(truth) == 1:
            pair = (names[int(np.ravel(side)[0])] for side in (truth, guess))
            probability = float(np.ravel(block.probability[k])[0])
            return {**dict(zip(("label", "prediction"), pair, strict=True)), "probability": probability}
        n, right = int(np.sum(block.counts[k])), int(np.sum((truth == guess) & block.counts[k]))
        return {"label": f"{n:,} labels", "prediction": f"{n - right:,} of them wrong"}
    if np.size(truth) != np.size(guess) or np.size(truth) > _MOST_NUMBERS:
        return {}
    labels = getattr(job.dataset.preparation, "labels_are", None)  # values as they were before they were scaled
    sides = (np.reshape(side, np.shape(job.dataset.y)[1:])[None] for side in (truth, guess))
    sides = (side if labels is None else labels.values(side) for side in sides)
    label, prediction = ([float(value) for value in np.ravel(side)] for side in sides)
    return {"label": label, "prediction": prediction}


def _pictures(x: np.ndarray) -> list[str | None]:
    """Returns each input `[n, height, width(, 1 or 3)]` as a PNG, the least value of all black and the greatest white.

    A picture with its channels first, as PyTorch has them, is turned; None for inputs that are no images.
    """
    from PIL import Image

    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
        x = np.moveaxis(x, 1, 3)
    x = x[..., 0] if x.ndim == 4 and x.shape[3] == 1 else x
    image_like = x.dtype.kind == "f" and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 3)) and min(x.shape[1:3]) > 3
    if not image_like or not len(x):
        return [None] * len(x)
    low, high = float(x.min()), float(x.max())
    grey = np.clip((x - low) / (high - low or 1.0) * 255 + 0.5, 0, 255).astype(np.uint8)
    pictures = []
    for each in grey:
        image, file = Image.fromarray(each), io.BytesIO()
        image.thumbnail((_PIXELS, _PIXELS), Image.Resampling.BOX)
        image.save(file, "PNG", optimize=True)
        pictures.append(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    return pictures
