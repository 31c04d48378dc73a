"""Public checkpoints give the numbers of the library that wrote them; every name is accounted for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models
from lamella.backend import Device, backend_for
from lamella.interop.pretrained import GPT2, llama_names, load_pretrained, load_with_report
from lamella.interop.weights import Joined, Names, load_weights, read_weights

FOLDERS = Path(__file__).parent / "fixtures" / "checkpoints"  # written by transformers: make_checkpoints.py


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a frozen folder that a test may spoil."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(FOLDERS / name, tmp_path / name))

    return copied


def say(path: Path, **changes: Any) -> Path:
    """Change what a configuration says; None takes a key away."""
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Write other weights into a folder."""
    lamella.save(path / "model.safetensors", change(read_weights(path)))
    return path


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def largest_error(found: Any, expected: np.ndarray) -> float:
    array = found.to_numpy()
    assert array.shape == expected.shape
    assert array.dtype == np.float32
    return float(abs(array - expected).max())


# -- the numbers -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["gpt2", "llama", "llama_tied_bf16"])
def test_logits_are_those_of_the_library_that_wrote_the_file(name: str) -> None:
    model, report = load_with_report(FOLDERS / name)
    frozen = np.load(FOLDERS / name / "outputs.npz")
    assert isinstance(model, models.GPT)
    assert not model.training
    assert (model.lm_head is None) == (name != "llama")
    with lamella.no_grad():
        assert largest_error(model(frozen["ids"]), frozen["logits"]) <= 1e-5
    assert (report.missing, report.unexpected, report.ignored, report.tied) == ([], [], [], [])
    assert len(report.transposed) == (8 if name == "gpt2" else 0)


def test_logits_are_the_same_on_every_device(device: Device) -> None:
    model = load_pretrained(FOLDERS / "llama").to(device)
    frozen = np.load(FOLDERS / "llama" / "outputs.npz")
    with lamella.no_grad():
        assert largest_error(model(on(device, frozen["ids"])), frozen["logits"]) <= 1e-5


def test_bert_reads_what_the_library_that_wrote_it_reads(device: Device) -> None:
    model, report = load_with_report(FOLDERS / "bert")
    model = model.to(device)
    frozen = np.load(FOLDERS / "bert" / "outputs.npz")
    ids, mask, types = (on(device, frozen[key]) for key in ("ids", "attention_mask", "token_type_ids"))
    with lamella.no_grad():
        hidden = model(ids, mask, types)
        assert largest_error(hidden, frozen["hidden"]) <= 1e-5
        assert largest_error(model.pool(hidden), frozen["pooled"]) <= 1e-5
    assert (report.missing, report.unexpected, report.ignored) == ([], [], [])
    model.load_state_dict(lamella.load(FOLDERS / "bert" / "model.safetensors"))  # the names are the file's own


# -- names -----------------------------------------------------------------------------------------------------------
def test_prefixes_masks_of_old_files_and_a_head_said_again_change_nothing(folder: Any) -> None:
    frozen = np.load(FOLDERS / "gpt2" / "outputs.npz")

    def wrapped(weights: dict[str, Any]) -> dict[str, Any]:
        bare = {key.removeprefix("transformer."): value for key, value in weights.items()}
        old = {"h.0.attn.bias": np.ones((1, 1, 12, 12), np.uint8), "h.1.attn.masked_bias": np.float32([-1e4])}
        again = {"lm_head.weight": bare["wte.weight"]}
        return {f"module._orig_mod.{key}": value for key, value in (bare | old | again).items()}

    model, report = load_with_report(rewrite(folder("gpt2"), wrapped))
    with lamella.no_grad():
        assert largest_error(model(frozen["ids"]), frozen["logits"]) <= 1e-5
    assert sorted(report.ignored) == ["module._orig_mod.h.0.attn.bias", "module._orig_mod.h.1.attn.masked_bias"]
    assert report.tied == ["module._orig_mod.lm_head.weight"]
    assert report.taken["module._orig_mod.h.0.attn.c_attn.bias"] == "h.0.attn.c_attn.bias"


def test_a_tied_head_may_stand_there_alone_and_must_not_differ(folder: Any) -> None:
    frozen = np.load(FOLDERS / "gpt2" / "outputs.npz")

    def renamed(weights: dict[str, Any]) -> dict[str, Any]:
        return {key.replace("transformer.wte", "lm_head"): value for key, value in weights.items()}

    model = load_pretrained(rewrite(folder("gpt2"), renamed))
    with lamella.no_grad():
        assert largest_error(model(frozen["ids"]), frozen["logits"]) <= 1e-5
    weights = read_weights(FOLDERS / "gpt2")
    weights["lm_head.weight"] = weights["transformer.wte.weight"] + 1
    with pytest.raises(ValueError, match=r"transformer\.wte\.weight and lm_head\.weight are one weight .*they differ"):
        load_weights(model, weights, GPT2)


def test_every_missing_and_unexpected_name_is_reported_and_nothing_is_loaded() -> None:
    model = load_pretrained(FOLDERS / "gpt2")
    before = model.state_dict()
    weights = read_weights(FOLDERS / "gpt2")
    for gone in ("transformer.h.0.attn.c_proj.bias", "transformer.ln_f.weight"):
        del weights[gone]
    weights |= {"transformer.h.2.ln_1.weight": np.ones(16, np.float32), "extra": np.ones(1)}
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"] * 2
    with pytest.raises(KeyError) as error:
        load_weights(model, weights, GPT2)
    message = error.value.args[0]
    assert message.endswith(
        "missing: h.0.attn.c_proj.bias, ln_f.weight; unexpected: transformer.h.2.ln_1.weight, extra"
    )
    assert all(np.array_equal(before[key], value) for key, value in model.state_dict().items())
    whole = read_weights(FOLDERS / "gpt2") | {"extra": np.ones(1)}
    with pytest.raises(KeyError, match="unexpected: extra"):
        load_weights(model, whole, GPT2)
    report = load_weights(model, weights, GPT2, strict=False)
    assert report.unexpected == ["transformer.h.2.ln_1.weight", "extra"]
    assert np.array_equal(model.wte.weight.to_numpy(), weights["transformer.wte.weight"])
    assert str(report).splitlines()[:4] == [
        "26 weights taken",
        "missing: h.0.attn.c_proj.bias, ln_f.weight",
        "unexpected: transformer.h.2.ln_1.weight, extra",
        "transposed: "
        + ", ".join(
            f"transformer.h.{i}.{name}.weight"
            for i in (0, 1)
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        ),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (Names(transposed=(r"\d\.weight")), r"names.transposed must be a tuple of texts, got '\\\\d"),  # no comma
        (Names(ignored="step"), "names.ignored must be a tuple of texts, got 'step'"),
        (Names(prefixes="module."), "names.prefixes must be a tuple of texts, got 'module.'"),
        (Names(renamed=("a", "b")), r"names.renamed must be a tuple of pairs of texts, got \('a', 'b'\)"),  # type: ignore[arg-type]
        (Names(tied=(("a", "b", "c"),)), r"names.tied must be a tuple of pairs of texts, got "),  # type: ignore[arg-type]
        ({"a": "b"}, "names must be a Names, got dict"),
    ],
)  # fmt: skip
def test_a_text_in_place_of_several_is_refused_before_a_square_matrix_is_taken_wrongly(
    names: Any, message: str
) -> None:
    model = L.Sequential(L.Linear(3, 3, bias=False))
    before = model.state_dict()["0.weight"].copy()
    with pytest.raises(TypeError, match=f"load_weights: {message}"):
        load_weights(model, {"0.weight": np.arange(9, dtype=np.float32).reshape(3, 3)}, names)
    with pytest.raises(TypeError, match=r"load_weights: weights must map texts to arrays, got 0 as a name"):
        load_weights(model, {0: np.ones((3, 3), np.float32)})  # type: ignore[dict-item]
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before)


def test_a_square_matrix_is_transposed_too() -> None:
    weight = read_weights(FOLDERS / "gpt2")["transformer.h.1.attn.c_proj.weight"]
    assert weight.shape == (16, 16)
    model = load_pretrained(FOLDERS / "gpt2")
    np.testing.assert_array_equal(model.h[1].attn.c_proj.weight.to_numpy(), weight.T)


def test_a_part_that_is_missing_or_too_long_is_named() -> None:
    model = load_pretrained(FOLDERS / "llama")
    names = llama_names(16, 8)
    weights = read_weights(FOLDERS / "llama")
    prefix = "model.layers.1.self_attn."
    short = {key: value for key, value in weights.items() if key != f"{prefix}k_proj.weight"}
    with pytest.raises(KeyError) as error:
        load_weights(model, short, names)
    parts = f"{prefix}q_proj.weight, {prefix}v_proj.weight"
    assert f"h.1.attn.c_attn.weight (of its 3 parts there are {parts})" in error.value.args[0]
    moved = dict(weights)  # together they would be as long as before
    moved[f"{prefix}q_proj.weight"] = np.zeros((8, 16), np.float32)
    moved[f"{prefix}k_proj.weight"] = np.zeros((16, 16), np.float32)
    with pytest.raises(ValueError, match=r"q_proj\.weight must have shape \(16, 16\) for h\.1\.attn\.c_attn\.weight"):
        load_weights(model, moved, names)


@pytest.mark.parametrize(
    ("weights", "names", "message"),
    [
        ({"weight": np.ones((3, 2))}, Names(), r"weight must have shape \(2, 3\) for weight, got \(3, 2\)"),
        (
            {"weight": np.ones((2, 3))},
            Names(transposed=("weight",)),
            r"weight must have shape \(3, 2\), to be transposed for weight, got \(2, 3\)",
        ),
        (
            {"weight": np.ones((2, 3)), "module.weight": np.ones((2, 3))},
            Names(),
            r"weight and module\.weight have one place in the model, weight",
        ),
        (
            {"a": np.ones((1, 3)), "b": np.ones((1, 3)), "module.a": np.ones((1, 3))},
            Names(joined=(Joined(("a", "b"), (1, 1), "weight"),)),
            r"a and module\.a have one place in the model, weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(weights: dict[str, Any], names: Names, message: str) -> None:
    model = L.Linear(3, 2, bias=False)
    before = model.weight.to_numpy().copy()
    with pytest.raises(ValueError, match=message):
        load_weights(model, {key: value.astype(np.float32) for key, value in weights.items()}, names)
    np.testing.assert_array_equal(model.weight.to_numpy(), before)


def test_a_prefix_that_is_a_part_of_the_model_stays() -> None:
    class Wrapped(L.Module):
        def __init__(self) -> None:
            self.model = L.Linear(3, 2)

    weights = {key: np.full_like(value, 5) for key, value in Wrapped().state_dict().items()}
    wrapped = Wrapped()
    assert load_weights(wrapped, weights).taken == {"model.weight": "model.weight", "model.bias": "model.bias"}
    bare = L.Linear(3, 2)
    assert load_weights(bare, weights).taken == {"model.weight": "weight", "model.bias": "bias"}
    assert float(bare.bias.sum()) == 10.0
    compiled = {f"model._orig_mod.{key}": np.zeros_like(value) for key, value in bare.state_dict().items()}
    load_weights(wrapped, compiled)
    assert float(wrapped.model.bias.sum()) == 0.0


def test_a_name_of_many_prefixes_is_given_up_and_one_of_some_is_read() -> None:
    model = L.Linear(2, 1, bias=False)
    weight = np.array([[3.0, 4.0]], np.float32)
    report = load_weights(model, {"module.model." * 10 + "weight": weight})
    assert report.unexpected == []
    np.testing.assert_array_equal(model.weight.to_numpy(), weight)
    with pytest.raises(KeyError, match=r"missing: weight; unexpected: (module\.){1000}weight"):
        load_weights(model, {"module." * 1000 + "weight": weight})


def test_a_shared_weight_may_come_under_any_of_its_names() -> None:
    class Shared(L.Module):
        def __init__(self) -> None:
            self.a, self.b = L.Linear(2, 2), L.Linear(2, 2)
            self.b.weight = self.a.weight

    model = Shared()
    weights = {"b.weight": np.eye(2, dtype=np.float32), "a.bias": np.ones(2), "b.bias": np.ones(2)}
    assert load_weights(model, weights).missing == []
    np.testing.assert_array_equal(model.a.weight.to_numpy(), np.eye(2))


# -- files -----------------------------------------------------------------------------------------------------------
def test_an_index_and_its_folder_hold_the_same_and_bfloat16_stays() -> None:
    whole = read_weights(FOLDERS / "llama")
    by_index = read_weights(FOLDERS / "llama" / "model.safetensors.index.json")
    one = read_weights(FOLDERS / "llama" / "model-00001-of-00004.safetensors")
    assert whole.keys() == by_index.keys() > one.keys()
    assert {str(a.dtype) for a in read_weights(FOLDERS / "llama_tied_bf16").values()} == {"bfloat16"}


def test_missing_shards_are_named(folder: Any) -> None:
    path = folder("llama")
    for number in (2, 4):
        (path / f"model-0000{number}-of-00004.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"names 4 files, of which 2 are missing: model-00002-of-00004\.safetensors, model-00004",
    ):
        load_pretrained(path)


@pytest.mark.parametrize(
    "file",
    ["../secret.safetensors", "/etc/secret.safetensors", "a/../b.safetensors", "..\\b.safetensors", "C:b.safetensors",
     "sub/b.safetensors", "", ".", "..", "b.bin", "b\0.safetensors"],
)  # fmt: skip
def test_an_index_that_points_elsewhere_is_refused(file: str, folder: Any) -> None:
    path = folder("llama")
    (path.parent / "secret.safetensors").write_bytes((path / "model-00001-of-00004.safetensors").read_bytes())
    index = path / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    said["weight_map"]["model.norm.weight"] = file
    index.write_text(json.dumps(said))
    with pytest.raises(ValueError, match="must name safetensors files beside it, got"):
        read_weights(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a whole JSON file"),
        ("[" * 100_000, "is not a whole JSON file"),
        ("[]", "must hold an object, got list"),
        ('{"weight_map": []}', 'must have a "weight_map" of names to files'),
        ('{"weight_map": {"a": 3}}', 'must have a "weight_map" of names to files'),
        ('{"weight_map": {}, "weight_map": {}}', "it has 'weight_map' twice"),
    ],
)
def test_a_broken_index_is_refused(text: str, message: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path)


def test_an_index_that_does_not_agree_with_its_files_is_refused(folder: Any) -> None:
    path = folder("llama")
    index = path / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    files = said["weight_map"]
    files["model.norm.weight"] = next(f for f in files.values() if f != files["model.norm.weight"])
    index.write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"do not agree on what the file holds: model\.norm\.weight"):
        read_weights(path)


def test_folders_without_weights_say_what_is_wrong(folder: Any, tmp_path: Path) -> None:
    path = folder("gpt2")
    (path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold model\.safetensors or .*, and holds neither$"):
        load_pretrained(path)
    (path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin would run code when read: let the program"):
        load_pretrained(path)
    with pytest.raises(FileNotFoundError, match=r"must hold config\.json, and does not"):
        load_pretrained(tmp_path)
    with pytest.raises(TypeError, match="load_pretrained: folder must be text or a path, got int"):
        load_pretrained(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="read_weights: path must be text or a path, got int"):
        read_weights(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="load_weights: model must be a Module, got str"):
        load_weights("gpt2", {})  # type: ignore[arg-type]


# -- configurations --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"model_type": "mamba"}, "model_type must be one of gpt2, llama, bert, got 'mamba'"),
        ("gpt2", {"model_type": ["gpt2"]}, "model_type must be one of gpt2, llama, bert, got \\['gpt2'\\]"),
        ("gpt2", {"model_type": None}, "model_type must be one of gpt2, llama, bert, got ''"),
        ("gpt2", {"activation_function": "relu"}, "activation_function must be 'gelu_new' or .*, got 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx must be False, got True"),
        ("gpt2", {"n_embd": None}, r"config\.json must say n_embd"),
        ("gpt2", {"n_layer": 0}, "n_layer must be at least 1, got 0"),
        ("gpt2", {"layer_norm_epsilon": -1.0}, r"layer_norm_epsilon must be above 0 and finite, got -1\.0 in .*config"),
        ("llama", {"rope_parameters": {"rope_theta": 0}}, r"rope_theta must be above 0 and finite, got 0\.0"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "must say factor"),
        (
            "llama_tied_bf16",
            {"rope_parameters": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 2, "high_freq_factor": 1}},
            r"high_freq_factor must be above low_freq_factor, got 1\.0 and 2\.0",
        ),
        ("gpt2", {"attn_pdrop": 0.2}, "dropout must be given, because .* has several: resid_pdrop=0.1, embd_pdrop=0.1"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias must be False, got True"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type must be 'default' or .*, got 'yarn'"),
        ("llama", {"num_key_value_heads": 4}, r"k_proj\.weight must have shape \(16, 16\)"),
        ("bert", {"hidden_act": "relu"}, "hidden_act must be 'gelu', got 'relu'"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
    ],
)  # fmt: skip
def test_what_the_models_do_not_do_is_refused(name: str, changes: dict[str, Any], message: str, folder: Any) -> None:
    with pytest.raises(ValueError, match=message):
        load_pretrained(say(folder(name), **changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"n_embd": "16"}, "n_embd must be an integer, got '16'"),
        ("gpt2", {"resid_pdrop": "much"}, "resid_pdrop must be a number, got 'much'"),
        ("llama", {"num_attention_heads": 2.5}, r"num_attention_heads must be an integer, got 2\.5"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, got 'no'"),
        ("llama", {"rope_parameters": "default"}, "rope_parameters must be an object, got 'default'"),
        ("bert", {"layer_norm_eps": [1]}, r"layer_norm_eps must be a number, got \[1\]"),
    ],
)
def test_what_is_of_another_kind_is_refused(name: str, changes: dict[str, Any], message: str, folder: Any) -> None:
    with pytest.raises(TypeError, match=message):
        load_pretrained(say(folder(name), **changes))


def test_a_head_that_the_configuration_unties_must_be_there(folder: Any) -> None:
    with pytest.raises(KeyError, match=r"missing: lm_head\.weight"):
        load_pretrained(say(folder("gpt2"), tie_word_embeddings=False))


def test_old_ways_of_saying_the_rotation_are_read(folder: Any) -> None:
    frozen = np.load(FOLDERS / "llama_tied_bf16" / "outputs.npz")
    path = folder("llama_tied_bf16")
    rope = json.loads((path / "config.json").read_text())["rope_parameters"]
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    model = load_pretrained(say(path, rope_parameters=None, rope_theta=theta, rope_scaling={**rope, "type": kind}))
    with lamella.no_grad():
        assert largest_error(model(frozen["ids"]), frozen["logits"]) <= 1e-5
    linear = load_pretrained(say(path, rope_parameters=None, rope_scaling={"type": "linear", "factor": 2.0}))
    plain = load_pretrained(say(path, rope_scaling=None))
    x = np.float32(np.random.default_rng(0).standard_normal((1, 1, 7, 4)))
    turned = linear.h[0].attn.rotary(x, np.arange(0, 14, 2)[None]).to_numpy()
    np.testing.assert_allclose(turned, plain.h[0].attn.rotary(x).to_numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_bert_without_a_pooler_is_read_and_half_a_pooler_is_not(prefix: str, folder: Any) -> None:
    def without(*gone: str) -> Any:
        return lambda weights: {prefix + name: array for name, array in weights.items() if name not in gone}

    frozen = np.load(FOLDERS / "bert" / "outputs.npz")
    path = folder("bert")
    whole = read_weights(path)
    model, report = load_with_report(rewrite(path, without("pooler.dense.weight", "pooler.dense.bias")))
    assert model.pooler is None
    assert report.missing == []
    assert len(report.taken) == len(whole) - 2
    with lamella.no_grad():
        hidden = model(*(frozen[key] for key in ("ids", "attention_mask", "token_type_ids"))).to_numpy()
        expected = load_pretrained(FOLDERS / "bert")(
            *(frozen[key] for key in ("ids", "attention_mask", "token_type_ids"))
        ).to_numpy()
    np.testing.assert_array_equal(hidden, expected)
    with pytest.raises(ValueError, match="made with pooler=False"):
        model.pool(hidden)
    lamella.save(path / "model.safetensors", without("pooler.dense.bias")(whole))
    with pytest.raises(KeyError, match=r"missing: pooler\.dense\.bias; unexpected: none"):
        load_pretrained(path)


def test_a_llama_drops_where_it_is_asked_to() -> None:
    ids = np.load(FOLDERS / "llama" / "outputs.npz")["ids"]
    model = load_pretrained(FOLDERS / "llama", dropout=0.5, rng=lamella.Generator(4)).train()
    assert not np.allclose(model(ids).to_numpy(), model(ids).to_numpy())
    plain = load_pretrained(FOLDERS / "llama").train()
    np.testing.assert_array_equal(plain(ids).to_numpy(), plain(ids).to_numpy())
    for name in ("gpt2", "llama", "bert"):
        with pytest.raises(TypeError, match="load_pretrained: dropout must be a number, got 'much'"):
            load_pretrained(FOLDERS / name, dropout="much")  # type: ignore[arg-type]


def test_dropout_and_its_stream_are_as_they_are_asked_for() -> None:
    model = load_pretrained(FOLDERS / "gpt2", dropout=0.5, rng=lamella.Generator(4)).train()
    ids = np.load(FOLDERS / "gpt2" / "outputs.npz")["ids"]
    first, second = model(ids).to_numpy(), model(ids).to_numpy()
    assert not np.allclose(first, second)
    again = load_pretrained(FOLDERS / "gpt2", dropout=0.5, rng=lamella.Generator(4)).train()
    np.testing.assert_array_equal(again(ids).to_numpy(), first)
    other = load_pretrained(FOLDERS / "gpt2", dropout=0.5, rng=lamella.Generator(5)).train()
    assert not np.allclose(other(ids).to_numpy(), first)
    assert load_pretrained(FOLDERS / "gpt2").drop.p == 0.1
    drawn = model.drop.rng.normal((50,))
    assert 0.5 <= float(drawn.std()) <= 1.5
