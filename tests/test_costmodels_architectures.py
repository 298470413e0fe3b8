"""Configurations: parameter counts against the models' own, names of modules, and refusals by name."""

import json

import pytest
from models import CONFIGS, NAMES, core_training, flash_training, model_of

from costmodels.architectures import ARCHITECTURES, read_model
from costmodels.config_fields import LARGEST_CONFIG_BYTES
from costmodels.layers import model_layers
from costmodels.model_shape import Experts, LatentAttention
from synth.errors import InputError

PARAMETERS = {
    "deepseek-v2-lite": 15_706_484_224,
    # The published count has besides, for each of 58 blocks, 256 router biases that get no gradient.
    "deepseek-v3": 671_026_419_200 - 58 * 256,
    "gpt-neox-20b": 20_554_567_680,
    "gpt2": 124_439_808,
    "llama-3-70b": 70_553_706_496,
    "llama-3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2-7b": 7_615_616_512,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-8b": 8_190_735_360,
}
"""What the published checkpoints hold."""


def changed_config(tmp_path, name, **changes):
    """A configuration with fields changed; None takes one out."""
    tree = json.loads((CONFIGS / f"{name}.json").read_text()) | changes
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_models_own(name):
    assert model_of(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_layers_hold_the_models_parameters(name):
    """Counted a second way, by the operations; a tied head holds a copy."""
    model = model_of(name)
    layers = model_layers(model, flash_training(microbatch_size=1))
    held = sum(layer.parameters + layer.expert_parameters for layer in layers)
    assert held == model.parameters + model.tied * model.vocabulary * model.hidden


def test_every_architecture_has_a_configuration():
    kinds = {json.loads((CONFIGS / f"{name}.json").read_text())["model_type"] for name in NAMES}
    assert kinds == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "first", "block", "last"),
    [
        ("llama-3-8b", ("model.embed_tokens",), "model.layers.0", ["model.norm", "lm_head"]),
        ("gpt2", ("transformer.wte", "transformer.wpe"), "transformer.h.0", ["transformer.ln_f", "lm_head"]),
        (
            "gpt-neox-20b",
            ("gpt_neox.embed_in",),
            "gpt_neox.layers.0",
            ["gpt_neox.final_layer_norm", "embed_out"],
        ),
    ],
)
def test_modules_are_named_as_in_hugging_face(name, first, block, last):
    layers = model_layers(model_of(name), core_training())
    assert layers[0].modules == first
    assert layers[1].modules == (block,)
    assert [module for layer in layers[-3:] for module in layer.modules] == last


def test_deepseek_has_experts_behind_its_first_blocks():
    model = model_of("deepseek-v3")
    assert [isinstance(block.feed_forward, Experts) for block in model.blocks] == [False] * 3 + [True] * 58
    assert all(isinstance(block.attention, LatentAttention) for block in model.blocks)


def test_llama_has_as_many_key_heads_as_heads_where_nothing_is_said(tmp_path):
    model = read_model(changed_config(tmp_path, "llama-3-8b", num_key_value_heads=None))
    assert {block.attention.kv_heads for block in model.blocks} == {32}


def test_deepseek_may_do_without_query_latent_and_shared_experts(tmp_path):
    """Null in the published configuration of V2-Lite: queries come from the hidden state."""
    tree = json.loads((CONFIGS / "deepseek-v2-lite.json").read_text())
    assert tree["q_lora_rank"] is None
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**tree, "n_shared_experts": None}))
    model = read_model(str(path))
    assert model.blocks[-1].attention.query_rank is None
    assert model.blocks[-1].feed_forward.shared is None
    # Two shared experts of 3 * 2048 * 1408 in each of 26 blocks.
    assert model.parameters == PARAMETERS["deepseek-v2-lite"] - 26 * 2 * 3 * 2048 * 1408


def test_sparse_step_and_dense_blocks(tmp_path):
    path = changed_config(
        tmp_path, "qwen3-30b-a3b", num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3]
    )
    sparse = [isinstance(block.feed_forward, Experts) for block in read_model(path).blocks]
    assert sparse == [False, True, False, False, False, True]


def test_model_is_named_after_its_file_or_folder(tmp_path):
    assert model_of("gpt2").name == "gpt2"
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert read_model(changed_config(folder, "gpt2")).name == "my-model"


def test_unknown_fields_are_of_no_concern(tmp_path):
    path = changed_config(tmp_path, "llama-3-8b", something_new={"a": [1, 2]}, torch_dtype="bfloat16")
    assert read_model(path).parameters == PARAMETERS["llama-3-8b"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama-3-8b", {"model_type": "mamba"}, r'\$\.model_type is "mamba": give one of llama, mistral'),
        ("llama-3-8b", {"model_type": ["llama"]}, r'\$\.model_type is \["llama"\]: give one of llama'),
        ("llama-3-8b", {"model_type": None}, r"\$\.model_type is missing: give one of llama"),
        ("llama-3-8b", {"hidden_size": None}, r"\$\.hidden_size is missing: give an integer from 1"),
        (
            "llama-3-8b",
            {"hidden_size": 4097},
            r"num_attention_heads is 32: heads divide the hidden size 4097",
        ),
        ("llama-3-8b", {"hidden_size": "4096"}, r'\$\.hidden_size is "4096": give an integer'),
        ("llama-3-8b", {"hidden_size": 4096.0}, r"\$\.hidden_size is 4096\.0: give an integer"),
        ("llama-3-8b", {"hidden_size": True}, r"\$\.hidden_size is true: give an integer"),
        (
            "llama-3-8b",
            {"num_hidden_layers": 0},
            r"\$\.num_hidden_layers is 0: give an integer from 1 to 1024",
        ),
        ("llama-3-8b", {"num_hidden_layers": 10**12}, r"num_hidden_layers is 1000000000000: give an integer"),
        ("llama-3-8b", {"num_key_value_heads": 5}, "32 query heads are given with 5 key heads"),
        ("llama-3-8b", {"attention_bias": 1}, r"\$\.attention_bias is 1: give true or false"),
        ("llama-3-8b", {"attention_dropout": 2}, r"\$\.attention_dropout is 2: give a number from 0 to 1"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "9 experts per token are given with 8 experts"),
        (
            "qwen3-30b-a3b",
            {"mlp_only_layers": [48]},
            r"mlp_only_layers is \[48\]: give a list of layer numbers",
        ),
        ("deepseek-v3", {"kv_lora_rank": None}, r"\$\.kv_lora_rank is missing"),
        *(
            (name, {field: None}, rf"\$\.{field} is missing: give an integer from")
            for name, field in (
                *((name, "num_key_value_heads") for name in ("mistral-7b", "mixtral-8x7b", "qwen2-7b")),
                *((name, "num_key_value_heads") for name in ("qwen3-8b", "qwen3-30b-a3b")),
                *((name, "head_dim") for name in ("qwen3-8b", "qwen3-30b-a3b")),
                ("deepseek-v3", "n_shared_experts"),
                ("deepseek-v3", "first_k_dense_replace"),
                *((name, "q_lora_rank") for name in ("deepseek-v3", "deepseek-v2-lite")),
            )
        ),
        ("gpt2", {"n_head": 7}, r"\$\.n_head is 7: heads divide the hidden size 768"),
    ],
)
def test_wrong_configurations_are_refused_by_name(tmp_path, name, changes, message):
    path = changed_config(tmp_path, name, **changes)
    with pytest.raises(InputError, match=message) as error:
        read_model(path)
    assert str(error.value).startswith(f"{path}: ")


ODD = [None, 0, -1, 1.5, "x", [2**40], {}, True, 7]


def parameters_or_refusal(path):
    """The parameters of a model, or what was wrong."""
    try:
        return read_model(path).parameters
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"llama-3-8b", "mistral-7b", "deepseek-v2-lite"}))
def test_every_field_may_be_odd(tmp_path, name):
    """Whatever a field holds, there is a model or a refusal that names the file: no other error."""
    tree = json.loads((CONFIGS / f"{name}.json").read_text())
    path = tmp_path / "config.json"
    for key in tree:
        for value in ODD:
            path.write_text(json.dumps({**tree, key: value}))
            found = parameters_or_refusal(str(path))
            assert found > 0 if isinstance(found, int) else found.startswith(f"{path}: ")
    assert parameters_or_refusal(str(CONFIGS / f"{name}.json")) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"\$ is empty: give the config.json of a model"),
        ("[1]", r"\$ is \[1\]: give the config.json of a model"),
        ("{", r"\$ is not JSON at line 1, column 2"),
        ('{"model_type": "llama", "hidden_size": NaN}', r"\$\.hidden_size is NaN: give a finite number"),
        ('{"a": 1, "a": 2}', r"\$\.a is given twice"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_model(str(path))


def test_a_file_of_40_gb_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(40 * 10**9)  # sparse: it takes no room
    with pytest.raises(InputError, match="is larger than 1 MiB: give the config"):
        read_model(str(path))
    assert LARGEST_CONFIG_BYTES == 2**20


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist: name a file that does"):
        read_model(str(tmp_path / "nothing.json"))
