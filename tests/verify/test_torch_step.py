"""Training steps in plain PyTorch with the usual mistakes of gradient accumulation: each is named, its twin passes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

from backbeat.data import from_arrays
from backbeat.errors import SettingsError
from backbeat.losses import cross_entropy, squared_error
from backbeat.verify import Verification
from backbeat.verify.accumulation import Shares, independent, mistake_of
from backbeat.verify.subject import Drawn
from backbeat.verify.torch_proof import verify_torch

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, F = torch.nn, torch.nn.functional
MICRO, CLIP = 4, 0.05


def net(*middle: Any) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 3))


class Noisy(nn.Module):
    def __init__(self, over: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lower, self.upper, self.over = nn.Linear(6, 8), nn.Linear(8, 3), over

    def forward(self, x: Any) -> Any:
        h = self.lower(x)
        if self.over == "noise":
            h = h + torch.randn_like(h)
        if self.over == "dropout":
            h = F.dropout(h, 0.5)
        if self.over == "batch":
            h = h - h.mean(0)
        return self.upper(torch.tanh(h))


def step(
    model: Any, optimizer: Any, x: Any, y: Any, *, clear: str = "first", divide: str = "size", clip: str = "",
    steps: str = "last", loss: Callable = F.cross_entropy, weight: Any = None,
) -> None:  # fmt: skip
    """Makes an update in micro-batches, in the right way or with one of several mistakes."""
    if clear == "first":
        optimizer.zero_grad()
    parts = list(zip(x.split(MICRO), y.split(MICRO), strict=True))
    for part, labels in parts:
        if clear == "each":
            optimizer.zero_grad()
        if divide == "size":
            value = loss(model(part), labels, reduction="sum") / len(x)
        elif divide == "parts":
            value = loss(model(part), labels) / len(parts)
        elif divide == "four":
            value = loss(model(part), labels) / 4
        else:
            value = loss(model(part), labels, reduction=divide)
        value.backward()
        if clip == "each":
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        if steps == "each":
            optimizer.step()
    if clip == "last":
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    if clip == "values":
        nn.utils.clip_grad_value_(model.parameters(), CLIP / 10)
    if steps == "last":
        optimizer.step()
    if steps == "own":
        torch.optim.SGD(model.parameters(), 0.0).step()


def contrastive(model: Any, optimizer: Any, x: Any, y: Any) -> None:
    optimizer.zero_grad()
    out = model(x)
    F.cross_entropy(out @ out.T, torch.arange(len(x))).backward()
    optimizer.step()


def loop(model: Any, optimizer: Any, batches: Any, *, every: int = 4, last: bool = False, late: bool = False) -> None:
    """Goes through micro-batches and updates after some of them, as loops over a loader do."""
    if not late:
        optimizer.zero_grad()
    for number, (x, y) in enumerate(batches, start=1):
        (F.cross_entropy(model(x), y) / every).backward()
        if number % every == 0 or (last and number == len(batches)):
            optimizer.step()
            optimizer.zero_grad()


def counted(model: Any, optimizer: Any, batches: Any, *, remember: bool = True) -> None:
    """Gathers micro-batches and divides their sums by what was counted."""
    optimizer.zero_grad()
    kept = list(batches)
    n = sum(len(x) for x, _ in kept) if remember else MICRO * len(kept)
    for x, y in kept:
        (F.cross_entropy(model(x), y, reduction="sum") / n).backward()
    optimizer.step()


class Case(NamedTuple):
    """A mistake: its cause, the step and the model that have it, and those that have not."""

    cause: str
    wrong: Callable
    right: Callable = step
    model: Callable[[], Any] = net
    right_model: Callable[[], Any] = net
    layer: str | None = None
    said: str = ""


def with_argument(function: Callable, **given: Any) -> Callable:
    n = 3 if function in (loop, counted) else 4
    call = partial(function, **given)
    if n == 3:
        return lambda model, optimizer, batches: call(model, optimizer, batches)
    return lambda model, optimizer, x, y: call(model, optimizer, x, y)


CASES = {
    "forgotten zero_grad": Case("forgotten zero_grad", with_argument(step, clear="never")),
    "zero_grad inside the loop": Case("examples lost", with_argument(step, clear="each"), said="count nothing"),
    "short last micro-batch": Case("mean of means", with_argument(step, divide="parts"), said="12 count"),
    "means added up": Case("missing division", with_argument(step, divide="mean")),
    "sums added up": Case("missing division", with_argument(step, divide="sum"), said="16 times"),
    "clipped between": Case("clipping between", with_argument(step, clip="each"), with_argument(step, clip="last")),
    "updates between": Case("update inside the loop", with_argument(step, steps="each"), said="4 times"),
    "another optimizer": Case("no update", with_argument(step, steps="own")),
    "loss of the batch": Case("in-batch loss", contrastive),
    "batch normalisation": Case(
        "batch normalisation", step, model=lambda: net(nn.BatchNorm1d(8)), right_model=lambda: net(nn.LayerNorm(8)),
        layer="1", said="BatchNorm1d",
    ),
    "mean of the batch": Case("mixed examples", step, model=lambda: Noisy("batch"), right_model=Noisy, layer="upper"),
    "noise": Case(
        "position-keyed dropout", step, model=lambda: Noisy("noise"), right_model=lambda: Noisy("dropout"),
        layer="upper",
    ),
    "loop, left over into the next": Case(
        "forgotten zero_grad", with_argument(loop, late=True), with_argument(loop), said="update 4"
    ),
    "loop, fewer at the end": Case("mean of means", with_argument(loop, last=True, every=5), with_argument(counted)),
    "loop, a fixed size": Case("divided too often", with_argument(counted, remember=False), with_argument(counted)),
}  # fmt: skip


def verified(function: Any, model: Any, n: int = 50, **changes: Any) -> Verification:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, 3, n).astype(np.int32)
    given = {"loss": cross_entropy(), "y": y, "step_loss": None, "micro_batch": MICRO, **changes}
    drawn = Drawn(from_arrays(x, given["y"]), given["loss"], np.arange(n), 3, 0)
    return verify_torch(function, model, drawn, given["step_loss"], given["micro_batch"])


def plain(model: Any, optimizer: Any, x: Any, y: Any) -> None:
    step(model, optimizer, x, y)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(5)
def test_a_mistake_is_found_and_named(name: str):
    case = CASES[name]
    found = verified(plain if case.wrong is step else case.wrong, case.model())
    assert not found.passed
    assert found.causes == (case.cause,)
    assert found.findings[0].layer == case.layer
    sentence = found.findings[0].sentence
    assert case.said in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(4)
def test_the_same_without_the_mistake_passes(name: str):
    case = CASES[name]
    found = verified(plain if case.right is step else case.right, case.right_model())
    assert found.causes == ()
    assert found.passed
    assert len(found.comparisons) >= 2
    assert all(comparison.passed for comparison in found.comparisons)


def test_a_short_batch_of_whole_micro_batches_shows_a_fixed_division():
    # 4 micro-batches of 4 are divided by 4 as they should be; 3 of 4 and one of 1 are not
    found = verified(with_argument(step, divide="four"), net())
    assert [comparison.passed for comparison in found.comparisons] == [True, True, False]
    assert found.causes == ("mean of means",)


def test_clipping_of_numbers_and_of_the_mean_are_no_mistake_and_are_said():
    for clip in ("last", "values"):
        found = verified(with_argument(step, clip=clip), net())
        assert found.passed
        assert any("clips the mean gradient" in note for note in found.notes)


def test_dropout_is_off_and_this_is_said():
    found = verified(plain, net(nn.Dropout(0.5)))
    assert found.passed
    assert any("dropout is off" in note for note in found.notes)


def test_examples_that_a_loop_leaves_over_are_said():
    found = verified(with_argument(loop, every=3), net())
    assert found.passed
    assert "the last 2 of 50 examples that the step was handed made no update." in found.notes


def test_running_statistics_do_not_move_from_one_call_to_the_next():
    model = net(nn.BatchNorm1d(8).eval())
    assert verified(plain, model).passed


def test_the_users_module_is_left_as_it_is():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    verified(plain, model)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_squared_errors_may_be_defined_with_or_without_a_half():
    values = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)

    def mse(prediction: Any, label: Any, reduction: str = "mean") -> Any:
        return ((prediction - label) ** 2).mean(1).sum()

    found = verified(with_argument(step, loss=mse), net(), y=values, loss=squared_error())
    assert found.passed
    assert any("0.667 times squared_error" in note for note in found.notes)


def test_classes_with_weights_are_divided_by_their_weights():
    weight = torch.tensor([1.0, 5.0, 2.0])

    def means(model: Any, optimizer: Any, x: Any, y: Any) -> None:
        step(model, optimizer, x, y, divide="parts", loss=partial(F.cross_entropy, weight=weight))

    def whole(model: Any, optimizer: Any, x: Any, y: Any) -> None:
        optimizer.zero_grad()
        for part, labels in zip(x.split(MICRO), y.split(MICRO), strict=True):
            loss = F.cross_entropy(model(part), labels, weight=weight, reduction="sum")
            (loss / weight[y].sum()).backward()
        optimizer.step()

    weighted = cross_entropy(class_weight=(1.0, 5.0, 2.0))
    assert verified(whole, net(), loss=weighted).passed
    assert verified(means, net(), loss=weighted).causes == ("mean of means",)


def test_a_loss_of_ones_own_takes_tensors():
    def smooth(prediction: Any, label: Any) -> Any:
        return F.cross_entropy(prediction, label, label_smoothing=0.1, reduction="none")

    function = with_argument(step, loss=partial(F.cross_entropy, label_smoothing=0.1))
    assert verified(function, net(), step_loss=smooth).passed
    assert not verified(function, net()).passed  # another loss than the step's


def test_coarser_numbers_are_allowed_their_own_rounding():
    def mixed(model: Any, optimizer: Any, x: Any, y: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            step(model, optimizer, x, y)

    assert verified(mixed, net()).passed


@pytest.mark.parametrize(
    ("function", "model", "said"),
    [
        (lambda model, optimizer: None, net, "takes 2 arguments"),
        ("nothing", net, "file.py:name"),
        (lambda model, optimizer, x, y: 1 / 0, net, "ZeroDivisionError"),
        (plain, lambda: nn.Linear(5, 3), "cannot be applied"),
        (plain, lambda: "mlp", "needs a model of PyTorch"),
        (plain, lambda: net().requires_grad_(False), "no parameter that is trained"),
    ],
)
def test_what_cannot_be_verified_is_one_sentence(function: Any, model: Callable[[], Any], said: str):
    with pytest.raises(SettingsError) as error:
        verified(function, model())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_independent_examples_are_refused():
    with pytest.raises(SettingsError, match="5 of 5 examples"):
        verified(plain, net(), n=5)


def test_shares_are_found_among_gradients_that_depend_on_each_other():
    rng = np.random.default_rng(0)
    single = rng.normal(size=(6, 40))
    single[3] = single[0] - 2 * single[1]
    rows = independent(single)
    assert len(rows) == 5
    weights = rng.uniform(0.5, 2, 5)
    shares = Shares.of(single[rows], weights @ single[rows], [0, 1, 2], [3, 4], np.ones(5))
    np.testing.assert_allclose(shares.used, 3 * weights[:3], rtol=1e-9)
    np.testing.assert_allclose(shares.earlier, 3 * weights[3:], rtol=1e-9)
    assert shares.left < 1e-9


def test_elements_of_short_examples_that_count_more_are_named():
    counts = np.array([1.0, 2.0, 4.0, 8.0])
    own = Shares(counts.sum() / 4 / counts, counts, np.zeros(0), np.zeros(0), 0.0)
    found = mistake_of(own, 1.0, "update 1")
    assert found is not None
    assert found.cause == "mean of means"
    assert "short example" in found.sentence
    assert mistake_of(Shares(np.ones(4), counts, np.zeros(0), np.zeros(0), 0.0), 1.0, "update 1") is None
