"""What the page shows is what the library gives: paths, gradients, means, losses, decisions, numbers in sentences."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbeat as bb
from backbeat.errors import SettingsError
from backbeat.explain import PROBLEMS, Choices, Lesson, told
from backbeat.explain.plane import Plane
from backbeat.models import from_theta

REPEATED = "1 repeat until loss<0.3 at most 4"
CASES = {
    "classes": Choices("clouds"),
    "squared error of classes": Choices("moons", network="mlp:4", loss="squared_error", every="7"),
    "a curve": Choices("wave", every="25%"),
    "repeated": Choices("clouds", every=REPEATED),
    "images": Choices("two digits", network="cnn:2"),
    "ten classes": Choices("digits", network="linear", loss="squared_error", every="30"),
}


@pytest.fixture(scope="module")
def lessons() -> dict[str, Lesson]:
    return {}


@pytest.fixture(params=CASES)
def lesson(request: pytest.FixtureRequest, lessons: dict[str, Lesson]) -> Lesson:
    if request.param not in lessons:
        lessons[request.param] = Lesson(CASES[request.param])
    return lessons[request.param]


def labels(lesson: Lesson) -> np.ndarray:
    """The labels as a user would give them to `fit`."""
    if lesson.problem.classes and lesson.choices.loss == "squared_error":
        return np.eye(10, dtype=np.float32)[lesson.y] if lesson.y.max() > 1 else lesson.y.astype(np.float32)
    return lesson.y


@pytest.mark.sample(1)
def test_the_weights_are_those_of_fit(lesson: Lesson) -> None:
    """To the bit: a run is the same wherever it is stopped."""
    given = lesson.choices
    for column in lesson.columns:
        run = bb.fit(
            given.network, (lesson.x, labels(lesson)), every=column.cadence, loss=given.loss, held_out=0.0,
            learning_rate=given.learning_rate, seed=given.seed, duration=f"{lesson.examples} examples",
        )  # fmt: skip
        assert run.clock.updates == len(column.updates)
        assert run.clock.examples == column.updates[-1].examples
        np.testing.assert_array_equal(run.theta, column.thetas[-1])


@pytest.mark.sample(2)
def test_an_update_is_the_mean_of_its_examples_gradients(lesson: Lesson) -> None:
    given, (x, y) = lesson.choices, (lesson.x, labels(lesson))
    for number, column in enumerate(lesson.columns):
        like = column.params(0)
        for k in {0, 1, len(column.updates) // 2, len(column.updates) - 1}:
            frame, batch = lesson.frame(number, k), column.updates[k].batch
            model, params = column.job.model, from_theta(jnp.asarray(column.thetas[k]), like)
            each = np.asarray(bb.per_example_gradients(model, given.loss, params, x[batch], y[batch]))
            rounding = 1e-5 * np.linalg.norm(each, axis=1).max() + 1e-7  # sums of float32 in another order
            np.testing.assert_allclose(frame["lengths"], np.linalg.norm(each, axis=1), atol=rounding)
            np.testing.assert_allclose(frame["mean_length"], np.linalg.norm(each.mean(axis=0)), atol=rounding)
            plane = np.stack([lesson.plane.u, lesson.plane.v])
            np.testing.assert_allclose(frame["gradients"], each @ plane.T, atol=rounding)
            np.testing.assert_allclose(frame["mean"], plane @ each.mean(axis=0), atol=rounding)
            moved = column.thetas[k + 1] - column.thetas[k]
            size = 2e-7 * np.abs(column.thetas[k]).max() + (given.learning_rate or 0) * rounding
            np.testing.assert_allclose(moved, -(given.learning_rate or 0) * each.mean(axis=0), atol=2 * size)
            np.testing.assert_allclose(frame["moved"], np.linalg.norm(moved), rtol=1e-5)


def test_losses_and_predictions_are_the_models(lesson: Lesson) -> None:
    x, y = lesson.x, labels(lesson)
    for number, column in enumerate(lesson.columns):
        k = len(column.updates)
        frame = lesson.frame(number, k)
        outputs = np.asarray(
            column.job.model.apply(jax.tree.map(jnp.asarray, column.params(k)), jnp.asarray(x)), np.float64
        )
        if lesson.choices.loss == "squared_error":
            loss = 0.5 * ((outputs - y.reshape(len(y), -1)) ** 2).sum(axis=1)
        else:
            loss = np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(len(y)), y]
        np.testing.assert_allclose(frame["data_losses"], loss, rtol=1e-4, atol=1e-6)  # float32 against float64
        if not lesson.problem.classes:
            np.testing.assert_allclose(frame["guesses"], outputs[:, 0], rtol=1e-5, atol=1e-6)
            continue
        guess = outputs[:, 0] > 0.5 if outputs.shape[1] == 1 else outputs.argmax(axis=1)
        assert (frame["guesses"] == guess).all()
        assert frame["accuracy"] == (guess == lesson.y).mean()


def test_all_cadences_pass_the_same_examples_in_the_same_order(lesson: Lesson) -> None:
    n, first = len(lesson.y), lesson.columns[0]
    order = [int(update.batch[0]) for update in first.updates]
    for epoch in range(lesson.problem.epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))
    for column in lesson.columns:
        np.testing.assert_array_equal(column.thetas[0], first.thetas[0])
        if column.job.plan.cadence.repeated is None:
            assert [int(i) for update in column.updates for i in update.batch] == order


def test_a_repeated_example_is_repeated_until_it_is_satisfied() -> None:
    lesson = Lesson(CASES["repeated"])
    column = lesson.columns[1]
    assert column.cadence == REPEATED
    for k, update in enumerate(column.updates):
        i = int(update.batch[0])
        assert column.losses[k][i] >= 0.3, "a satisfied example takes no update"
        assert 1 <= update.repeat <= 4
        assert all(column.losses[k][j] < 0.3 for j in update.satisfied)
        if update.repeat > 1:
            assert column.updates[k - 1].batch[0] == i
    assert max(update.repeat for update in column.updates) == 4
    frame = lesson.frame(1, 0)
    others = np.arange(len(lesson.y)) != column.updates[0].batch[0]
    np.testing.assert_allclose(frame["others"], [column.losses[k][others].mean() for k in (0, 1)], rtol=1e-6)


def test_the_surface_is_the_loss_at_its_points() -> None:
    lesson = Lesson(Choices("line"))
    x, y, plane = lesson.x[:, 0].astype(np.float64), lesson.y.astype(np.float64), lesson.plane
    for row, b in ((0, plane.ys[0]), (17, plane.ys[17])):
        for place, a in ((3, plane.xs[3]), (40, plane.xs[40])):
            bias, weight = plane.origin + a * plane.u + b * plane.v  # the order of theta: names sorted
            expected = (0.5 * (weight * x + bias - y) ** 2).mean()
            np.testing.assert_allclose(lesson.surface[row, place], expected, rtol=1e-5)
    assert plane.shares == pytest.approx((1.0, 1.0, 1.0)), "two weights are a plane"


def test_the_plane_holds_what_principal_components_hold() -> None:
    path = np.cumsum(np.random.default_rng(0).normal(size=(40, 6)) * [3, 2, 1, 0.5, 0.2, 0.1], axis=0)
    path -= path[0]
    plane = Plane.through([path], [np.ones(40)])
    values = np.linalg.eigvalsh(path.T @ path)
    assert plane.shares[0] == pytest.approx(values[-2:].sum() / values.sum())
    assert abs(plane.u @ plane.v) < 1e-12


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(2)
def test_numbers_in_sentences_are_the_librarys(name: str) -> None:
    lesson = Lesson(CASES[name])
    for column in range(len(lesson.columns)):
        frame = told(lesson, column, 2)
        said, m = frame["sentences"], len(frame["batch"])
        rate = lesson.choices.learning_rate or 0
        for i, length, loss, forward, back in zip(
            frame["batch"], frame["lengths"], frame["losses"], said["forward"], said["back"], strict=True
        ):
            assert f"example {i}" in forward
            assert written(forward)[-1] == pytest.approx(loss, rel=6e-3, abs=1e-9)
            assert written(back)[-1] == pytest.approx(length, rel=6e-3, abs=1e-9)
        move = written(said["move"])
        assert move[0] == pytest.approx(rate, rel=6e-3)
        assert move[1] == pytest.approx(frame["mean_length"], rel=6e-3)
        assert move[2] == pytest.approx(rate * frame["mean_length"], rel=2e-2)
        assert move[-2:] == pytest.approx([frame["data_loss"], frame["next_loss"]], rel=6e-3)
        assert (f"(1/{m}) Σ" in said["average"]) == (m > 1)
        assert len(said["gathered"]) == m
        assert (said["forgets"] is not None) == ("repeat" in lesson.columns[column].cadence)


def written(sentence: str) -> list[float]:
    """The numbers of a sentence, without those that are indices."""
    found = re.findall(r"−?\d[\d,]*(?:\.\d+)?(?:e[−+]?\d+)?", sentence)
    return [float(text.replace("−", "-").replace(",", "")) for text in found]


def test_a_rate_that_is_too_large_ends_the_column_and_is_said() -> None:
    lesson = Lesson(Choices("line", learning_rate=20.0))
    column = lesson.columns[0]
    assert column.diverged
    frame = told(lesson, 0, len(column.updates))
    assert frame["sentences"]["end"].startswith("The loss grew without bound: γ is too large for this cadence.")
    assert np.isfinite(lesson.surface).all()
    assert np.isfinite(column.losses).all()


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.sample(2)
def test_every_problem_is_learned_by_small_batches(name: str) -> None:
    lesson = Lesson(Choices(name))
    first = lesson.columns[0]
    assert first.losses[-1].mean() < 0.5 * first.losses[0].mean()
    assert not any(column.diverged for column in lesson.columns)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"problem": "cloud"}, "did you mean 'clouds'"),
        ({"network": "mlp:8:"}, "write linear, mlp:8"),
        ({"network": "net.py:Net"}, "write linear, mlp:8"),
        ({"network": "cnn:4"}, "is not one for this"),
        ({"network": "mlp:8:wild"}, "is not understood"),
        ({"network": "mlp:9000"}, "parameters; take one of at most"),
        ({"loss": "hinge"}, "loss='hinge'"),
        ({"problem": "wave", "loss": "cross_entropy"}, "loss='cross_entropy'"),
        ({"learning_rate": float("nan")}, "above 0, and 100 at most"),
        ({"learning_rate": 0.0}, "above 0, and 100 at most"),
        ({"every": "often"}, "every"),
        ({"every": "1000"}, "48"),
        ({"seed": -1}, "from 0 to 999"),
    ],
)
def test_choices_that_cannot_be_used_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Lesson(Choices(**given))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
