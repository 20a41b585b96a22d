"""What a person reads who gave something wrong: one sentence with what was given, what is allowed and what to do.

The package is loaded a second time here, without the checks of types that all other tests run with: those would refuse
a value of the wrong type before backbeat's own sentence.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

NAME = "as_users_run_it"  # any name but backbeat, whose modules are checked
SOURCE = Path(__file__).resolve().parents[1] / "src" / "backbeat"
X, Y = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32), np.arange(10) % 3


@pytest.fixture(scope="module")
def bb() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(
        NAME, SOURCE / "__init__.py", submodule_search_locations=[str(SOURCE)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        del sys.modules[name]


def refused(bb: ModuleType, call: Any) -> str:
    with pytest.raises(bb.BackbeatError) as caught:
        call()
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


CADENCES = [
    (0, "every=0 must be 1 or more; write a whole number"),
    (-1, "every=-1 must be 1 or more"),
    ("-1", "every=-1 must be 1 or more"),
    (1.5, "every=1.5 is not a number of examples; write a whole number"),
    (True, "every=True is not a number of examples"),
    (None, "every=None is not a number of examples"),
    ("1.5", "every='1.5' is not a number of examples"),
    ("ten", "every='ten' is not a number of examples; write a whole number"),
    ("all", "every='all' is not a number of examples; did you mean \"dataset\"?"),
    ("", "every='' is not understood; write a whole number"),
    ("0%", "every='0%' must be more than 0% and at most 100% of the data"),
    ("110%", "every='110%' must be more than 0% and at most 100% of the data"),
    ("1 repeat until happy at most 3", 'until=\'happy\' is not understood; write "loss<0.1", "correct"'),
    ("1 repeat until correct at most 0", "at_most=0 must be a whole number of updates, 1 or more"),
    ("1 repeat until correct at most many", "at_most='many' must be a whole number of updates"),
    ("1 repeat until correct at most 3 rest 0", 'rest=0 must be "all", "none" or a number of examples'),
    ("1 repeat until correct", "is not understood"),
    ("32 then 64", 'what follows "then" is not understood; write for example "32 then 128 after 10 epochs"'),
    ("32 then 64 after 3 s", "a change of batch size is given in epochs, updates or examples, not in seconds"),
    ("32 then 64 after 5 epochs then 8 after 2 epochs", "does not come after the change before it, after 5 epochs"),
    ("32 then 0 after 5 epochs", "every=0 must be 1 or more"),
]


@pytest.mark.parametrize(("when", "sentence"), CADENCES, ids=[repr(when) for when, _ in CADENCES])
def test_cadences(bb: ModuleType, when: Any, sentence: str):
    assert sentence in refused(bb, lambda: bb.every(when))


@pytest.mark.parametrize(
    ("when", "n", "sentence"),
    [
        (5000, 1797, "every=5000 but the data has 1797 training examples; choose 1 to 1797, or 'dataset'."),
        ("0.01%", 10, 'every="0.01%" of 10 examples is not even one; give a larger share, or 1.'),
        ("2 then 11 after 1 epochs", 10, "every=11 but the data has 10 training examples"),
    ],
)
def test_cadences_that_this_data_does_not_allow(bb: ModuleType, when: Any, n: int, sentence: str):
    assert sentence in refused(bb, lambda: bb.every(when).batch_sizes(n))


SETTINGS = [
    ({"duration": "20 epoch s"}, "duration='20 epoch s' is not a number with a unit"),
    ({"duration": "20"}, "duration='20' has no unit; write \"20 epochs\""),
    ({"duration": 20}, "has no unit"),
    ({"duration": "20 epochz"}, "has an unknown unit; did you mean 'epochs'?"),
    ({"duration": "0 epochs"}, "must be more than 0"),
    ({"duration": "-5 s"}, "must be more than 0"),
    ({"duration": "2.5 updates"}, "updates are counted in whole numbers; write 3 updates"),
    ({"duration": "1 epochs or"}, "is not a number with a unit"),
    ({"target": "acuracy>=0.9"}, "names an unknown score; did you mean 'accuracy'?"),
    ({"target": "accuracy<=0.9"}, "accuracy is reached from below; write accuracy>=0.9."),
    ({"target": "loss 0.1"}, "loss is reached from above; write loss<=0.1."),
    ({"target": "accuracy>=95"}, "can never be reached: accuracy is a share from 0 to 1"),
    ({"target": "loss<=0"}, "can never be reached: loss stays above 0"),
    ({"target": "loss<="}, "has no number"),
    ({"target": "r2>=0.5"}, "with the loss cross_entropy the scores are accuracy and loss"),
    (
        {"target": "held-out accuracy>=0.5", "held_out": 0.0},
        "held_out=0 leaves none; hold some out, or write train accuracy",
    ),
    ({"patience": "five"}, "patience='five' is not a number with a unit"),
    ({"evaluate": "never", "patience": "1 epoch"}, 'evaluate="never" leaves nothing for target or patience'),
    ({"evaluate": "3 s"}, "so that a run can be repeated"),
    ({"learning_rate": 0}, "learning_rate=0 must be above 0"),
    ({"learning_rate": -0.1}, "did you mean 0.1?"),
    ({"learning_rate": "fast"}, "learning_rate='fast' is not a number; give one above 0"),
    ({"learning_rate": float("nan")}, "must be above 0"),
    ({"schedule": "cosin"}, "schedule='cosin' is not known; did you mean 'cosine'?"),
    (
        {"schedule": "cosine", "duration": "3 s"},
        'needs to know how long it takes; write for example "cosine over 20 epochs"',
    ),
    ({"schedule": "linear over 3 s"}, "is a time; give epochs, updates or examples"),
    ({"warm_up": "3 s"}, "is a time; give epochs, updates or examples"),
    ({"optimizer": "Adam"}, "optimizer='Adam' is not known; did you mean 'adam'?"),
    ({"loss": "mse"}, "loss='mse' is not known; did you mean 'squared_error'?"),
    ({"loss": "squared_eror"}, "did you mean 'squared_error'?"),
    ({"loss": ["cross_entropy"]}, "is not known; did you mean 'cross_entropy'?"),
    ({"order": "shuffled"}, "order='shuffled' is not known; did you mean 'reshuffled'?"),
    ({"short_batch": "kept"}, "short_batch='kept' is not known; did you mean 'keep'?"),
    ({"held_out": 1}, "held_out=1 must be a share from 0 (nothing) to less than 1"),
    ({"held_out": None}, "held_out=None must be a share"),
    ({"seed": -1}, "seed=-1 must be a whole number from 0"),
    ({"seed": 1.5}, "seed=1.5 must be a whole number"),
    ({"block": 0}, "block=0 must be a whole number of examples, 1 or more"),
    ({"block": 2.5}, "block=2.5 must be a whole number of examples"),
    ({"weight_decay": -1}, "weight_decay=-1 must be a number, 0 or more"),
    ({"weight_decay": "little"}, "weight_decay='little' must be a number, 0 or more"),
    ({"clip": 0}, "clip=0 must be a number, more than 0"),
    ({"clip": "tight"}, "clip='tight' must be a number, more than 0"),
    ({"every": 9}, "every=9 but the data has 8 training examples"),
    (
        {"every": "1 repeat until correct at most 3", "schedule": "cosine over 9 updates"},
        "a schedule must be given in epochs",
    ),
    ({"every": "1 repeat until correct at most 3 rest 9"}, "rest=9 but there are 8 training examples; choose 1 to 8"),
    ({"every": "1 repeat until correct at most 3", "watch_gradient": True}, "leave one of the two out"),
    ({"leraning_rate": 0.1}, "leraning_rate is not a setting; did you mean 'learning_rate'?"),
]


@pytest.mark.parametrize(("settings", "sentence"), SETTINGS, ids=[str(settings) for settings, _ in SETTINGS])
def test_settings_are_refused_before_the_first_event(bb: ModuleType, settings: dict, sentence: str):
    assert sentence in refused(bb, lambda: bb.train(bb.linear(), (X, Y), **{"every": 2, **settings}))


@pytest.mark.parametrize(
    ("data", "settings", "sentence"),
    [
        ((X, np.zeros(10, int)), {}, "all labels are the same class, 0; classification needs at least two"),
        ((X, np.full(10, 2)), {}, "all labels are the same class, 2"),
        ((X, Y - 1), {}, "class labels run from 0 on, but -1 is among them"),
        ((X, Y / 2), {"loss": "cross_entropy"}, "needs whole numbers as labels"),
        (
            (X, Y),
            {"loss": "binary_cross_entropy"},
            "needs labels of 0 and 1 (or shares between), but they run from 0 to 2",
        ),
        ((X, Y[:5]), {}, "10 inputs but 5 labels; give one label for each input"),
    ],
)
def test_labels_that_do_not_fit_the_loss(bb: ModuleType, data: tuple, settings: dict, sentence: str):
    assert sentence in refused(bb, lambda: bb.train(bb.linear(), data, every=2, **settings))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda bb: bb.mlp(hidden=(0,)), "hidden=(0,) must be whole numbers of 1 or more"),
        (lambda bb: bb.mlp(hidden=(2.5,)), "must be whole numbers of 1 or more"),
        (lambda bb: bb.mlp(activation="rellu"), "activation='rellu' is not known; did you mean 'relu'?"),
        (lambda bb: bb.cnn(channels=()), "must be whole numbers of 1 or more"),
        (lambda bb: bb.train(bb.cnn(), (X, Y), every=2), "cnn needs images [height, width]"),
        (lambda bb: bb.train(bb.cnn((4, 4, 4, 4)), "digits"), "give fewer channels"),
        (lambda bb: bb.train(3, (X, Y), every=2), "model=3 is not a model; give backbeat.mlp(...)"),
        (
            lambda bb: bb.train((lambda key: 0.0, lambda p, x: x @ np.ones(2)), (X, Y), every=2),
            "cannot be applied to inputs",
        ),
        (lambda bb: bb.cross_entropy(class_weight=[-1, 1]), "must be 0 or more for each class"),
        (lambda bb: bb.binary_cross_entropy(positive_weight=0), "must be more than 0"),
    ],
)
def test_models_and_losses(bb: ModuleType, make: Any, sentence: str):
    assert sentence in refused(bb, lambda: make(bb))


def test_a_whole_number_runs_as_a_number_of_any_kind(bb: ModuleType):
    """What other tests cannot see: Python and NumPy numbers where an annotation says float."""
    run = bb.fit(
        bb.linear(), (X, Y), every=np.int64(2), learning_rate=1, duration="1 epoch", held_out=0, clip=1, weight_decay=0
    )
    assert run.clock.updates == 5
