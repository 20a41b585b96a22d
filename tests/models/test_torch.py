"""PyTorch modules: losses and gradients are torch.autograd's, training is torch.optim's, and each trap is refused."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import MissingExtraError, SettingsError
from backbeat.models import RandomModel, model_for
from backbeat.run import fit

BATCH, UPDATES, RATE = 4, 6, 0.05


def dense(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def convolutional(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


def recurrent(torch: Any) -> Any:
    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 7, batch_first=True)
            self.out = torch.nn.Linear(7, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[0][:, -1])

    return Recurrent()


def transformer(torch: Any) -> Any:
    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(11, 8)
            self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.out = torch.nn.Linear(8, 3)
            self.place = torch.linspace(0, 1, 5)[:, None]  # neither a parameter nor a buffer

        def forward(self, x: Any) -> Any:
            return self.out(self.layer(self.embed(x) + self.place).mean(dim=1))

    return Transformer()


KINDS = {"rows": dense, "images": convolutional, "series": recurrent, "tokens": transformer}


def seeded(torch: Any, make: Any) -> Any:
    torch.manual_seed(0)
    return make(torch)


def of(kind: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    return data[kind](channels_first=True) if kind == "images" else data[kind]()


def as_torch(torch: Any, x: np.ndarray) -> Any:
    return torch.from_numpy(np.array(x, np.int64 if x.dtype.kind == "i" else np.float32))


def put_back(run: Any) -> Any:
    return run.job.model.trained(run.params)


def own_loss(torch: Any, module: Any, x: np.ndarray, y: np.ndarray) -> Any:
    return torch.nn.functional.cross_entropy(module(as_torch(torch, x)), as_torch(torch, y))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_loss_and_gradient_are_those_of_autograd(torch: Any, kind: str, data: Any, agrees: Any):
    module = seeded(torch, KINDS[kind])
    x, y = of(kind, data)

    def own(x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        loss = own_loss(torch, module, x, y)
        names, weights = zip(*module.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, weights)
        return loss.item(), {name: each.numpy() for name, each in zip(names, found, strict=True)}

    agrees(type("Case", (), {"model": module, "x": x, "y": y, "own": staticmethod(own)}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(2)
def test_training_is_that_of_torch_optim(torch: Any, kind: str, data: Any, trains: Any):
    module, theirs = seeded(torch, KINDS[kind]), seeded(torch, KINDS[kind])
    x, y = of(kind, data)
    rule = torch.optim.SGD(theirs.parameters(), RATE)
    for update in range(UPDATES):
        part = slice(update * BATCH % len(x), update * BATCH % len(x) + BATCH)
        rule.zero_grad()
        own_loss(torch, theirs, x[part], y[part]).backward()
        rule.step()
    expected = {name: weight.detach().numpy() for name, weight in theirs.named_parameters()}
    run = trains(module, x, y, expected, lambda module, x: module(as_torch(torch, x)).detach().numpy())
    assert run.job.model.trained(run.params) is module


def module_of(torch: Any, function: Any, **parts: Any) -> Any:
    """Returns a module with a linear layer 6-3 `lin` and these parts, whose forward pass is a function of (it, x)."""

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = torch.nn.Linear(6, 3)
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Any) -> Any:
            return function(self, x)

    return Own()


def test_batch_normalisation_is_refused_and_trained_with_frozen_statistics(torch: Any, data: Any, refused: Any):
    nn = torch.nn
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    x, y = data["rows"]()
    net(as_torch(torch, x))  # statistics that are not 0 and 1
    net.zero_grad()
    assert "call .eval() on it" in refused(net, x, "1 (BatchNorm1d) normalises by the statistics of the batch")
    untracked = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).eval()
    refused(untracked, x, "nn.GroupNorm or nn.LayerNorm")
    net[1].eval()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    own_loss(torch, net, x, y).backward()
    first = {name: (weight - RATE * weight.grad).detach().numpy() for name, weight in net.named_parameters()}
    run = fit(net, (x, y), every="dataset", held_out=0.0, learning_rate=RATE, duration="1 updates")
    for name, weight in first.items():
        np.testing.assert_allclose(run.params[name], weight, rtol=2e-5, atol=2e-6)
    put_back(run)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_what_writes_to_its_buffers_is_refused(torch: Any, data: Any, refused: Any):
    def in_place(self: Any, x: Any) -> Any:
        self.seen.add_(1)
        return self.lin(x)

    def anew(self: Any, x: Any) -> Any:
        self.seen = self.seen + x.mean()
        return self.lin(x)

    x, _ = data["rows"]()
    for forward in (in_place, anew):
        net = module_of(torch, forward, seen=torch.zeros(()))
        refused(net, x, "changes seen while it runs")
        assert float(net.seen) == 0
    nn = torch.nn
    running = nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten()
    )
    refused(nn.Sequential(running, nn.Linear(6, 3)), x, "changes the running statistics of 0.1 (InstanceNorm1d)")
    running[1].eval()
    assert not isinstance(model_for(running, (6,), 6), RandomModel)


def test_dropout_is_keyed_by_example(torch: Any, drops: Any):
    nn = torch.nn

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Any) -> Any:
            return self.weight * nn.functional.dropout(x, 0.5, self.training)

    drops(Own())
    drops(nn.Sequential(nn.Dropout(0.5), Own().eval()))


def test_where_training_is_evaluation_nothing_is_random(torch: Any, data: Any, refused: Any):
    nn = torch.nn
    net = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    assert isinstance(model_for(net, (6,), 3), RandomModel)
    one = model_for(net.eval(), (6,), 3)
    assert not isinstance(one, RandomModel)
    assert not isinstance(model_for(dense(torch), (6,), 3), RandomModel)
    noisy = module_of(torch, lambda self, x: self.lin(x) + torch.rand_like(x[:, :3]))
    refused(noisy, data["rows"]()[0], "random numbers in evaluation mode too")


def test_training_with_dropout_does_not_depend_on_the_blocks(torch: Any, data: Any):
    nn = torch.nn
    x, y = data["rows"]()
    settings = {"every": 6, "held_out": 0.0, "learning_rate": RATE, "duration": "4 updates"}
    runs = []
    for block in (None, 2):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        runs.append(fit(net, (x, y), block=block, **settings))
    for name, weight in runs[0].params.items():
        np.testing.assert_allclose(runs[1].params[name], weight, rtol=2e-5, atol=2e-6)
    torch.manual_seed(0)
    still = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    other = fit(still, (x, y), **settings).params["2.weight"]
    assert np.abs(other - runs[0].params["2.weight"]).max() > 1e-3  # so it did drop


def test_tied_weights_stay_one(torch: Any, data: Any):
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(6, 6, bias=False)
            self.other = torch.nn.Linear(6, 6, bias=False)
            self.other.weight = self.one.weight
            self.out = torch.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.other(self.one(x).tanh()))

    net, theirs = seeded(torch, lambda _: Tied()), seeded(torch, lambda _: Tied())
    x, y = data["rows"]()
    rule = torch.optim.SGD(theirs.parameters(), RATE)
    for _ in range(3):
        rule.zero_grad()
        own_loss(torch, theirs, x, y).backward()
        rule.step()
    run = fit(net, (x, y), every="dataset", held_out=0.0, learning_rate=RATE, duration="3 updates")
    assert sorted(run.params) == ["one.weight", "out.bias", "out.weight"]
    put_back(run)
    assert net.one.weight is net.other.weight
    np.testing.assert_allclose(net.one.weight.detach(), theirs.one.weight.detach(), rtol=2e-5, atol=2e-6)


def test_frozen_weights_are_kept_and_take_part(torch: Any, data: Any, refused: Any):
    x, y = data["rows"]()
    net = dense(torch)
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    run = fit(net, (x, y), every=3, held_out=0.0, duration="2 epochs")
    assert sorted(run.params) == ["2.bias", "2.weight"]
    put_back(run)
    assert torch.equal(net[0].weight, before)
    np.testing.assert_allclose(net(as_torch(torch, x)).detach(), run.predict_raw(x), rtol=2e-5, atol=2e-6)
    for weight in net.parameters():
        weight.requires_grad_(False)
    refused(net, x, "has no weights to train")


def test_a_changed_module_is_not_taken_for_the_one_before(torch: Any, data: Any):
    """Compiled programs are found by equal models: the same object, with the same constants and modes."""
    x, _ = data["rows"]()
    net = module_of(torch, lambda self, x: self.scale * self.lin(x) + self.shift, shift=torch.zeros(3), scale=2.0)
    first = model_for(net, (6,), 3)
    assert first == model_for(net, (6,), 3)
    assert hash(first) == hash(model_for(net, (6,), 3))
    assert first != model_for(module_of(torch, lambda self, x: self.lin(x)), (6,), 3)
    with torch.no_grad():
        net.lin.weight.mul_(2)  # a weight to start from, which the program takes as it comes
    assert first == model_for(net, (6,), 3)
    for change in (lambda: net.shift.add_(1), lambda: setattr(net, "scale", 3.0), lambda: net.lin.eval()):
        before = model_for(net, (6,), 3)
        change()
        assert before != model_for(net, (6,), 3)
    changed = model_for(net, (6,), 3)
    expected = net(as_torch(torch, x)).detach()
    np.testing.assert_allclose(changed.apply(changed.init(jax.random.key(0)), jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda self, x: self.lin(x) if x.sum() > 0 else -self.lin(x), id="if"),
        pytest.param(lambda self, x: self.lin(x) * float(x.max()), id="float"),
        pytest.param(lambda self, x: self.lin(x) * x.max().item(), id="item"),
        pytest.param(lambda self, x: self.lin(x)[:, : int(x[0, 0])], id="slice"),
    ],
)
def test_forward_that_decides_by_values_is_refused_with_its_line(torch: Any, data: Any, forward: Any, refused: Any):
    sentence = refused(module_of(torch, forward), data["rows"]()[0], "decides by the values in an array")
    assert f"(test_torch.py, line {forward.__code__.co_firstlineno})" in sentence


def test_what_gives_no_one_tensor_is_refused(torch: Any, data: Any, refused: Any):
    refused(torch.nn.GRU(3, 4, batch_first=True), data["series"]()[0], "gives a tuple of 2 instead of one array")
    x, _ = data["rows"]()
    refused(module_of(torch, lambda self, x: self.lin(x).mean()), x, "the first axis must be that of the examples")
    refused(module_of(torch, lambda self, x: {"logits": self.lin(x)}), x, "gives a dict of 1")


def test_a_wrong_width_is_one_sentence(torch: Any, data: Any, refused: Any):
    sentence = refused(torch.nn.Sequential(torch.nn.Linear(5, 3)), data["rows"]()[0], "cannot be applied to inputs of")
    assert "[1, 6]" in sentence


def test_tensors_that_nobody_knows_of_are_refused(torch: Any, data: Any, refused: Any):
    net = module_of(torch, lambda self, x: self.lin(x) + self.held[0], held=[torch.ones(3)])
    refused(net, data["rows"]()[0], "register it with register_buffer")


def test_types_and_places_that_cannot_be_trained_are_refused(torch: Any, data: Any, refused: Any):
    x, _ = data["rows"]()
    refused(dense(torch).double(), x, "0.weight is float64, but backbeat trains in float32")
    refused(dense(torch).half(), x, "call .float() on the module")
    refused(dense(torch).to("meta"), x, "is on the device meta")
    refused(module_of(torch, lambda self, x: self.lin(x), ids=torch.tensor([2**31])), x, "beyond 32 bits")


def test_a_lazy_module_has_to_be_called_once(torch: Any, data: Any, refused: Any):
    x, _ = data["rows"]()
    net = torch.nn.Sequential(torch.nn.LazyLinear(3))
    refused(net, x, "0.weight is not known yet")
    net(as_torch(torch, x))
    model = model_for(net, (6,), 3)
    np.testing.assert_allclose(
        model.apply(model.init(jax.random.key(0)), jnp.asarray(x)), net(as_torch(torch, x)).detach(), atol=1e-6
    )


def test_in_place_operations_leave_the_inputs_alone(torch: Any, data: Any):
    def forward(self: Any, x: Any) -> Any:
        x.mul_(2)
        x[:, 0] = 1
        return self.lin(x)

    x, _ = data["rows"]()
    net = module_of(torch, forward)
    model = model_for(net, (6,), 3)
    given = jnp.asarray(x)
    found = model.apply(model.init(jax.random.key(0)), given)
    np.testing.assert_array_equal(given, x)
    np.testing.assert_allclose(found, net(as_torch(torch, x.copy())).detach(), rtol=1e-5, atol=1e-6)


def test_what_forward_keeps_for_itself_leaks_nothing(torch: Any, data: Any):
    def forward(self: Any, x: Any) -> Any:
        if self.cache is None:
            self.cache = x * 0 + 1
        return self.lin(x * self.cache)

    x, y = data["rows"]()
    net = module_of(torch, forward, cache=None)
    fit(net, (x, y), every=3, held_out=0.25, duration="1 epoch")
    assert net.cache is None


def test_parametrized_weights_are_trained(torch: Any, data: Any):
    net = torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 3)))
    x, y = data["rows"]()
    own_loss(torch, net, x, y).backward()
    first = {name: (weight - RATE * weight.grad).detach().numpy() for name, weight in net.named_parameters()}
    run = fit(net, (x, y), every="dataset", held_out=0.0, learning_rate=RATE, duration="1 updates")
    assert run.params.keys() == first.keys()
    for name, weight in first.items():
        np.testing.assert_allclose(run.params[name], weight, rtol=2e-5, atol=2e-6)


def test_the_module_is_untouched_until_the_weights_are_put_back(torch: Any, data: Any):
    x, y = data["rows"]()
    net = seeded(torch, dense)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    run = fit(net, (x, y), every=3, held_out=0.0, duration="2 epochs")
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert all(weight.grad is None for weight in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    model: Any = run.job.model
    with pytest.raises(SettingsError, match="are not of PyTorch Sequential"):
        model.trained({"0.weight": run.params["0.weight"]})
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    model.trained(run.params)
    with torch.no_grad():
        net[0].weight.zero_()  # the run's own weights do not share memory with the module's
    assert np.abs(run.params["0.weight"]).max() > 0
    assert np.abs(run.job.initial_state().params["0.weight"]).max() > 0


def test_a_factory_makes_new_weights_for_each_seed(torch: Any, data: Any):
    class Net(torch.nn.Sequential):
        def __init__(self, input_shape: Any, n_outputs: int) -> None:
            super().__init__(torch.nn.Flatten(), torch.nn.Linear(input_shape[0], n_outputs))

    torch.manual_seed(11)
    state = torch.get_rng_state()
    for factory in (Net, lambda: Net((6,), 3), lambda n_outputs, seed: Net((6,), n_outputs)):
        model = model_for(factory, (6,), 3)
        assert model == model_for(factory, (6,), 3)
        first, again, other = (model.init(jax.random.key(seed))["1.weight"] for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.01
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            np.testing.assert_array_equal(first, Net((6,), 3)[1].weight.detach())
        assert jax.eval_shape(model.init, jax.random.key(0))["1.weight"].shape == (3, 6)
    assert torch.equal(torch.get_rng_state(), state)
    x, y = data["rows"]()
    run = fit(Net, (x, y), every=3, held_out=0.0, duration="1 epoch")
    mine: Any = run.job.model
    np.testing.assert_allclose(mine.trained(run.params)(as_torch(torch, x)).detach(), run.predict_raw(x), atol=1e-5)


def test_a_factory_whose_frozen_weights_depend_on_the_seed_is_refused(torch: Any):
    def factory() -> Any:
        net = dense(torch)
        net[0].requires_grad_(False)
        return net

    model = model_for(factory, (6,), 3)
    with pytest.raises(SettingsError, match="has other frozen weights"):
        model.init(jax.random.key(1))


def test_two_threads_trace_at_a_time(torch: Any, data: Any):
    x, _ = data["images"](channels_first=True)
    net = seeded(torch, convolutional)
    model = model_for(net, x.shape[1:], 3)
    params = model.init(jax.random.key(0))
    found: dict[int, Any] = {}

    def work(n: int) -> None:
        for _ in range(3):
            found[n] = jax.jit(lambda p, x: model.apply(p, x))(params, jnp.asarray(x[:n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in (2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in (2, 3, 4, 5):
        np.testing.assert_allclose(found[n], net(as_torch(torch, x[:n])).detach(), rtol=2e-5, atol=2e-6)


def test_without_torchax_the_extra_is_named(torch: Any, monkeypatch: pytest.MonkeyPatch, data: Any, refused: Any):
    monkeypatch.setitem(__import__("sys").modules, "torchax", None)
    sentence = refused(dense(torch), data["rows"]()[0], "needs torchax, which is not installed", MissingExtraError)
    assert "pip install 'backbeat[torch]'" in sentence
