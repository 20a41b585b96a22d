"""The advice as a value: the record that a report shows, and what a program asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .confirm import Confirmed
from .wishes import Wish


@dataclass
class Advice:
    """Which batch size and learning rate serve three wishes, what they take, and how sure that is.

    Attributes:
        record: everything, as text, numbers and lists (what `record.json` holds and a report shows).
        wishes: "finish_first", "fewest_examples" and "fewest_updates"; empty where no size met the target.
        confirmed: real runs of the first wish and its neighbours.
        folder: where it is recorded, None for nowhere.
    """

    record: dict[str, Any] = field(repr=False)
    wishes: Mapping[str, Wish]
    confirmed: tuple[Confirmed, ...] = field(repr=False)
    folder: Path | None = None

    @property
    def answer(self) -> list[str]:
        """The advice in words, a sentence each."""
        return self.record["answer"]

    @property
    def reached(self) -> bool:
        """Whether some batch size met the target with every seed."""
        return bool(self.wishes)

    @property
    def settings(self) -> dict[str, Any]:
        """The setting that finishes first, as `fit` takes it: `fit(model, data, **advice.settings)`.

        Empty where no size met the target.
        """
        if not self.wishes:
            return {}
        best, rate = self.wishes["finish_first"], self.record["tunable"]
        return {"every": best.every, "target": self.record["target"], **self.record["kept"]} | (
            {"learning_rate": best.learning_rate} if rate else {}
        )

    def plot(self) -> Any:
        """Returns a matplotlib figure: hardware curve, updates and time to the target, noise scale."""
        from ..report import advice_figure

        return advice_figure(self.record)

    def _repr_html_(self) -> str:
        """Returns what a notebook shows of it."""
        from ..report import advice_fragment

        return advice_fragment(self.record, self.plot())

    def __str__(self) -> str:
        return "\n".join(self.answer)
