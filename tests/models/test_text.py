"""Models as text: what is read, read back equal, and refused in one sentence."""

import pytest

from backbeat.errors import SettingsError
from backbeat.models import cnn, linear, mlp, parse_model


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("mlp", mlp()),
        ("mlp:128,64", mlp(hidden=(128, 64))),
        ("mlp:32:tanh", mlp(hidden=(32,), activation="tanh")),
        ("mlp:tanh:32", mlp(hidden=(32,), activation="tanh")),
        ("mlp:8:nobias", mlp(hidden=(8,), bias=False)),
        ("  MLP : 8 ", mlp(hidden=(8,))),
        ("linear", linear()),
        ("linear:nobias", linear(bias=False)),
        ("cnn", cnn()),
        ("cnn:4,8:kernel5", cnn(channels=(4, 8), kernel=5)),
    ],
)
def test_a_text_names_a_model_and_the_model_names_itself(text, model):
    assert parse_model(text) == model
    assert parse_model(str(model)) == model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mpl", "did you mean 'mlp'"),
        ("", "is not known"),
        ("resnet", "allowed: mlp, linear, cnn"),
        ("mlp:8,", "'8,' is not understood"),
        ("mlp:-8", "'-8' is not understood"),
        ("mlp:0", "1 or more"),
        ("mlp:sine", "'sine' is not understood"),
        ("linear:8", "'8' is not understood"),
        ("linear:tanh", "'tanh' is not understood"),
        ("mlp:kernel3", "'kernel3' is not understood"),
        ("cnn:0", "1 or more"),
        ("cnn:kernel0", "1 or more"),
    ],
)
def test_what_names_no_model_is_one_sentence(text, words):
    with pytest.raises(SettingsError, match=r"^[^\n]+$") as caught:
        parse_model(text)
    assert words in str(caught.value)
