"""A PyTorch training step of the user's own: is what it hands to its optimizer the mean of per-example gradients?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from ..errors import SettingsError
from ..losses import loss_for
from ..models.own_code import OwnCode
from .accumulation import NEAR, Shares, clipped_mean, independent, mistake_of
from .result import Check, Comparison, Finding, Verification
from .rounding import Piece, Reference, nudged
from .subject import Drawn
from .torch_step import SMALL, TorchStep, Update, torch_module_of

_LOOKED_AT = 8  # examples in a batch of which one half gets other companions
_COORDINATES = 1 << 15  # of a gradient, in which shares are found
_PIECE_FLOATS = 1 << 23  # of gradients that are held at once
_FULL, _LEAST = 16, 6  # examples in a batch; in all


def verify_torch(step: Any, model: Any, drawn: Drawn, step_loss: Any, micro_batch: int) -> Verification:
    """Returns whether a PyTorch step's updates are the means of per-example gradients, and why not.

    Args:
        step: the function, or a text that names it, file.py:name.
        model: the module that it trains, or what makes it.
        drawn: examples.
        step_loss: the loss of one example on PyTorch's tensors; None for that of `drawn`.
        micro_batch: examples in each (x, y) that a step which loops is given.

    Raises:
        SettingsError: a step or a module that cannot be run.
        MissingExtraError: PyTorch is not installed.
    """
    if micro_batch < 1:
        raise SettingsError(f"micro_batch={micro_batch!r} must be 1 or more.")
    module = torch_module_of(model, drawn.dataset.input_shape, drawn.n_outputs, drawn.seed)
    code = OwnCode.of(step, "step") if isinstance(step, str) else None
    loaded: Any = step if code is None else code.load()
    name = getattr(step, "__name__", "the step") if code is None else f"{code.path.name}:{code.name}"
    loss = drawn.loss if step_loss is None else loss_for(step_loss)
    verified = TorchStep(loaded, module, drawn.x, drawn.y, loss, name)
    return _Proof(verified, f"PyTorch step {name} with {loss} on {drawn.dataset.name}", micro_batch).result()


@dataclass(frozen=True)
class _Taken:
    """An update with what it is called, at the scale at which it was made."""

    name: str
    update: Update
    scale: float

    @property
    def gradients(self) -> list[np.ndarray]:
        return [gradient / self.scale for gradient in self.update.gradients]


class _Proof:
    """All that is looked at, in turn, as long as nothing is found that makes the rest meaningless."""

    def __init__(self, verified: TorchStep, subject: str, micro_batch: int) -> None:
        self.step, self.subject, self.micro_batch = verified, subject, micro_batch
        self.checks: list[Check] = []

    def result(self) -> Verification:
        """Returns what was found."""
        finding = self._apart()
        if finding is None:
            calls = self._calls()
            runs = {scale: self.step.run(calls, scale) for scale in (SMALL, 1.0)}
            finding = self._stepping(calls, runs[SMALL])
            if finding is None:
                return self._compared(calls, runs)
        return self._verification((), (finding,), ())

    def _verification(
        self, comparisons: tuple[Comparison, ...], findings: tuple[Finding, ...], notes: tuple[str, ...]
    ) -> Verification:
        n_parameters = sum(p.numel() for p in self.step.parameters.values())
        if self.step.dropped:
            notes = (*notes, "dropout is off here: PyTorch draws it by the place in the batch, not by the example.")
        n = len(self.step.x)
        return Verification(self.subject, n, n_parameters, tuple(self.checks), comparisons, findings, notes)

    def _apart(self) -> Finding | None:
        """Returns why predictions depend on more than the example, if they do."""
        finding = _normalises(self.step) or _random(self.step) or _mixes(self.step)
        name = "an example's prediction depends on it alone"
        self.checks.append(Check(name, finding is None, "" if finding is None else finding.sentence))
        return finding

    @cached_property
    def _coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Some coordinates of all single gradients, `[n, size]`, and which examples are independent there."""
        n_parameters = sum(p.numel() for p in self.step.parameters.values())
        which = np.arange(n_parameters)
        if n_parameters > _COORDINATES:
            which = np.sort(np.random.default_rng(0).choice(n_parameters, _COORDINATES, replace=False))
        self._which = which
        rows = np.arange(len(self.step.x))
        found = [
            np.concatenate([gradient.reshape(len(part), -1) for gradient in self.step.single(part)[0]], axis=1)[
                :, which
            ]
            for part in self._pieces(rows)
        ]
        single = np.concatenate(found)
        return single, independent(single)

    def _pieces(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        n_parameters = sum(p.numel() for p in self.step.parameters.values())
        size = max(1, _PIECE_FLOATS // n_parameters)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _calls(self) -> list[list[np.ndarray]]:
        """Returns the examples of each call: batches of two sizes one after the other, or micro-batches, twice.

        Raises:
            SettingsError: too few examples whose gradients are independent.
        """
        rows = self._coordinates[1]
        if len(rows) < _LEAST:
            raise SettingsError(
                f"only {len(rows)} of {len(self.step.x)} examples have gradients that are independent of each other; a "
                f"step is verified with {_LEAST} or more: give more examples=, or a model with more parameters."
            )
        if self.step.loops:
            size = min(self.micro_batch, max(1, len(rows) // 4))
            rows = rows[:-1] if len(rows) % size == 0 and size > 1 else rows
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
            return [parts, parts]
        full = min(_FULL, len(rows) // 3)
        short = next((m for m in range(full - 1, full // 2, -1) if m % 2 and m % 3), max(1, full - 1))
        ends = np.cumsum([full, full, short])
        return [[part] for part in np.split(rows, ends)[:3]]

    def _stepping(self, calls: list[list[np.ndarray]], runs: list[list[Update]]) -> Finding | None:
        """Returns why the number of updates is wrong, if it is."""
        name, made = "a batch makes one update", [len(updates) for updates in runs]
        finding = None
        if not all(made):
            finding = Finding(
                "no update", None,
                f"{self.step.name} did not call step() on the optimizer that it was given, with "
                f"{sum(map(len, calls[0]))} examples: let it use its argument, not an optimizer of its own.",
            )  # fmt: skip
        elif not self.step.loops and max(made) > 1:
            finding = Finding(
                "update inside the loop", None,
                f"{self.step.name} calls optimizer.step() {max(made)} times for a batch of {len(calls[0][0])}: each "
                "micro-batch makes an update of its own; call it once, behind the loop.",
            )  # fmt: skip
        name = "updates are made by the optimizer" if self.step.loops else name
        self.checks.append(Check(name, finding is None, f"{sum(made)} in {len(made)} calls"))
        return finding

    def _compared(self, calls: list[list[np.ndarray]], runs: dict[float, list[list[Update]]]) -> Verification:
        small, full = (self._taken(runs[scale], scale) for scale in (SMALL, 1.0))
        single, rows = self._coordinates
        counts = self.step.single(rows)[1]
        shares = [self._shares(single[rows], rows.tolist(), taken, counts) for taken in small]
        scale = self._scale(shares[0].mean)
        weights = np.zeros((len(small), len(rows)))
        for k, taken in enumerate(small):
            np.add.at(weights[k], np.searchsorted(rows, taken.update.used), 1)
        reference = self._reference(rows, weights)
        comparisons = tuple(
            Comparison(taken.name, reference.compare([g / scale for g in taken.gradients], k))
            for k, taken in enumerate(small)
        )
        wrong = [k for k, comparison in enumerate(comparisons) if not comparison.passed]
        notes = () if scale == 1 else (f"the step's loss is {scale:.3g} times {self.step.loss}, which has ½ in it.",)
        if wrong:
            found = (mistake_of(shares[k], scale, small[k].name) for k in wrong)
            finding = next((each for each in found if each is not None), None)
            return self._verification(comparisons, (finding or _unexplained(comparisons[wrong[0]]),), notes)
        finding, more = self._clipping(small, full)
        notes = (*notes, *more, *_left_over(calls, runs[SMALL]))
        return self._verification(comparisons, () if finding is None else (finding,), notes)

    def _taken(self, runs: list[list[Update]], scale: float) -> list[_Taken]:
        updates = list(chain.from_iterable(runs))
        words = [f"{len(u.used)} example{'s' if len(u.used) != 1 else ''}" for u in updates]
        return [_Taken(f"update {k + 1}, of {words[k]}", u, scale) for k, u in enumerate(updates)]

    def _shares(self, single: np.ndarray, rows: list[int], taken: _Taken, counts: np.ndarray) -> Shares:
        found = np.concatenate([g.reshape(-1) for g in taken.gradients])[self._which]
        used = [rows.index(row) for row in dict.fromkeys(taken.update.used)]
        earlier = [rows.index(row) for row in dict.fromkeys(taken.update.earlier)]
        return Shares.of(single, found, used, earlier, counts)

    def _scale(self, first: float) -> float:
        """Returns what the step's loss is multiplied by, where that is a matter of definition: of squared errors.

        The first update tells: nothing can be left of one before it.
        """
        if self.step.loss.name != "squared_error" or self.step.loss.kind == "other":
            return 1.0
        outputs = max(1, int(np.prod(self.step.y.shape[1:])))
        known = [1.0, 2.0, 2.0 / outputs, 1.0 / outputs]
        return next((each for each in known if abs(first / each - 1) < NEAR), 1.0)

    def _reference(self, rows: np.ndarray, weights: np.ndarray) -> Reference:
        rng, step = np.random.default_rng(0), self.step

        def pieces() -> Iterator[Piece]:
            for part in self._pieces(rows):
                gradients, counts = step.single(part)
                with step.moved(lambda values: nudged(values, rng, step.epsilon)):
                    x = step.x[part]
                    moved, _ = step.single(part, nudged(x, rng, step.epsilon) if x.dtype.kind == "f" else None)
                yield Piece(gradients, moved, counts)

        return Reference.of(tuple(step.parameters), weights, pieces(), step.epsilon)

    def _clipping(self, small: list[_Taken], full: list[_Taken]) -> tuple[Finding | None, tuple[str, ...]]:
        """Returns whether gradients are clipped between micro-batches, and a note where their mean is."""
        name = "gradients are clipped after they are added up, if at all"
        pairs = [(a, b) for a, b in zip(small, full, strict=True) if not _alike(a.gradients, b.gradients)]
        wrong = next((b for a, b in pairs if not clipped_mean(b.gradients, a.gradients)), None)
        self.checks.append(Check(name, wrong is None, f"{len(small)} updates"))
        if wrong is not None:
            return Finding(
                "clipping between", None,
                f"{wrong.name} is the mean of its examples' gradients only while they are short: gradients are clipped "
                "between backward passes, or before the mean is taken; clip once, behind the last backward pass and "
                "before optimizer.step().",
            ), ()  # fmt: skip
        note = (
            f"the step clips the mean gradient ({len(pairs)} of {len(small)} updates here), which is as it should be."
        )
        return None, (note,) if pairs else ()


def _alike(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(np.linalg.norm(a - b) <= 1e-5 * (np.linalg.norm(a) or 1.0) for a, b in pairs)


def _left_over(calls: list[list[np.ndarray]], runs: list[list[Update]]) -> tuple[str, ...]:
    handed = sum(map(len, calls[0]))
    left = handed - sum(len(update.used) for update in runs[0])
    return () if left <= 0 else (f"the last {left} of {handed} examples that the step was handed made no update.",)


def _unexplained(comparison: Comparison) -> Finding:
    worst = comparison.worst
    assert worst is not None
    return Finding(
        "unexplained", worst.layer,
        f"{comparison.split}: the relative error is {worst.error:.2g} where rounding explains {worst.explained:.2g}, "
        "though each example counts as it should within 3 %; a loss that is slightly another one does this.",
    )  # fmt: skip


def _normalises(step: TorchStep) -> Finding | None:
    """Returns the first layer of batch normalisation that uses the batch."""
    kinds = step.torch.nn.modules.batchnorm._BatchNorm
    for path, layer in step.module.named_modules():
        if isinstance(layer, kinds) and (layer.training or layer.running_mean is None):
            return Finding(
                "batch normalisation", path or None,
                f"{path or 'the model'} ({type(layer).__name__}) normalises by the statistics of each micro-batch, so "
                "an accumulated gradient is not that of the whole batch; call .eval() on it, or use nn.GroupNorm or "
                "nn.LayerNorm.",
            )  # fmt: skip
    return None


def _random(step: TorchStep) -> Finding | None:
    """Returns the first layer that draws random numbers other than dropout's."""
    rows = np.arange(min(_LOOKED_AT, len(step.x)))
    one, other = step.predictions(rows), step.predictions(rows, seed=1)
    layer = _first_that_differs(one, other, np.ones(len(rows), bool))
    if layer is None:
        return None
    return Finding(
        "position-keyed dropout", layer or None,
        f"{layer or 'the model'} draws random numbers by the place in the batch, which are not those of a dropout that "
        "can be switched off here; verify the step without them, as with a setting of the model that leaves them out.",
    )  # fmt: skip


def _mixes(step: TorchStep) -> Finding | None:
    """Returns the first layer where an example's row changes when the others do."""
    n = min(_LOOKED_AT, len(step.x))
    rows, kept = np.arange(n), np.arange(n) % 2 == 0
    for mine in (kept, ~kept):
        around = np.where(mine, rows, (rows + 1) % n)
        layer = _first_that_differs(step.predictions(rows), step.predictions(around), mine)
        if layer is not None:
            return Finding(
                "mixed examples", layer or None,
                f"{layer or 'the model'} mixes the examples of a batch, so that there is no gradient of each example "
                "to average; compute along all dimensions but the first.",
            )  # fmt: skip
    return None


def _first_that_differs(one: dict[str, np.ndarray], other: dict[str, np.ndarray], rows: np.ndarray) -> str | None:
    """Returns the path of the first layer, in the order in which they ended, whose rows are not alike."""
    for path, values in one.items():
        if path in other and values.shape == other[path].shape:
            difference = np.linalg.norm(other[path][rows] - values[rows], axis=1)
            if (~(difference <= 1e-4 * np.linalg.norm(values[rows], axis=1) + 1e-12)).any():
                return path
    return None
