"""Import paths to models: the forms that layers come in, and every way to be wrong, by name."""

import pytest
import torch

from costmodels.measured.factories import load_model
from costmodels.measured.profiles import Split
from costmodels.measured.profiling import Cutting, RealBench, profile_model
from synth.errors import InputError

HERE = "tests.measured_models"
CPU = RealBench(torch.device("cpu"))


def test_layers_by_name():
    model = load_model(f"{HERE}:mlp")
    assert model.names == ("up", "act", "down", "norm")
    assert model.sample.shape == (6, 8)
    assert (model.name, model.loss) == (f"{HERE}:mlp", None)


def test_layers_of_a_sequence_are_numbered_and_a_loss_may_come_along():
    model = load_model(f"{HERE}:language_model")
    assert model.names == ("0", "1", "2", "3")
    assert model.loss(torch.zeros(2, 5, 11)).item() == pytest.approx(torch.tensor(11.0).log().item())


def test_module_of_the_working_directory_is_found(tmp_path, monkeypatch):
    text = "import torch\ndef build():\n    return [torch.nn.ReLU()], torch.ones(1)\n"
    (tmp_path / "own_model_of_a_test.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    assert load_model("own_model_of_a_test:build").names == ("0",)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("models", "'models' is no import path: give module:function"),
        (":build", "':build' is no import path"),
        ("no_such_module:build", "there is no module no_such_module in the working directory"),
        ("tests.no_such_module:build", "there is no module tests.no_such_module"),
        (f"{HERE}:missing", "tests.measured_models has no missing: name one of its functions"),
        (f"{HERE}:not_a_function", "is no function: name one that returns layers and a sample"),
        (
            f"{HERE}:takes_something",
            r"fails: .*missing 1 required positional argument.*; it is called without arg",
        ),
        (
            f"{HERE}:raises",
            "tests.measured_models:raises fails: no weights here; it is called without arguments$",
        ),
        (f"{HERE}:returns_nothing", r"returns neither a pair nor a triple: return \(layers, sample\)"),
        (f"{HERE}:returns_one_module", "returns one module for its layers: give a list"),
        (f"{HERE}:returns_no_layers", "returns no layers: give at least one"),
        (f"{HERE}:returns_numbers", "layer 0 of tests.measured_models:returns_numbers is no module"),
        (f"{HERE}:returns_a_number", "the layers that .* returns are no list of modules"),
        (f"{HERE}:returns_no_tensor", "the sample that .* returns is no tensor"),
        (f"{HERE}:returns_no_loss", "the loss that .* returns is no function"),
    ],
)
def test_wrong_factory_is_refused(path, words):
    with pytest.raises(InputError, match=words):
        load_model(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import no_such_thing_of_a_test\n",
            "broken_model_of_a_test cannot be imported: it needs no_such_thing",
        ),
        ("def build(:\n", "broken_model_of_a_test cannot be imported: .*; correct it"),
        (
            "raise RuntimeError('at import')\n",
            "broken_model_of_a_test cannot be imported: at import; correct it",
        ),
    ],
)
def test_module_that_does_not_import_is_refused(tmp_path, monkeypatch, text, words):
    (tmp_path / "broken_model_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=words):
        load_model("broken_model_of_a_test:build")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "misfits",
            r"layer 1 of .*:misfits fails on an input of \(1, 3\): .*; each layer takes what the one before",
        ),
        ("gives_a_pair", "layer 0 of .* gives something else than one tensor: give one"),
        ("gives_integers", "layer 0 of .* gives no floating numbers: gradients go back through it"),
        ("backward_fails", "BW of layers 0 to 1 fails: no way back; correct what is wrong"),
        ("loss_fails", "the loss of .*:loss_fails fails: .*; it takes the last output"),
        ("loss_is_no_number", "the loss of .* gives something else than one number: give a mean or a sum"),
    ],
)
def test_layers_that_do_not_chain_are_refused(name, words):
    with pytest.raises(InputError, match=words):
        profile_model(f"{HERE}:{name}", Cutting(stage_to_rank=(0,)), [Split.NONE], CPU)


@pytest.mark.parametrize(
    ("cutting", "words"),
    [
        (Cutting(stage_to_rank=(0, 1, 2, 3, 4)), "5 stages are asked of 4 layers: ask for at most 4"),
        (Cutting(stage_to_rank=(0, 1), counts=(2, 1)), "a cut into 2,1 layers is given, and .* returns 4"),
    ],
)
def test_cut_that_does_not_fit_is_refused(cutting, words):
    with pytest.raises(InputError, match=words):
        profile_model(f"{HERE}:mlp", cutting, [Split.NONE], CPU)
