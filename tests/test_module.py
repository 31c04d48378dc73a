"""Module: names, state, sharing, freezing, hooks, moving, copies, containers, connections."""

from __future__ import annotations

import copy
import doctest
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import training
from lamella.backend import Device, backend_for
from lamella.layers import residual
from lamella.testing import assert_close


def rng(seed: int = 0) -> lamella.Generator:
    return lamella.Generator(seed)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Tied(L.Module):
    """The output layer's weight is the embedding's."""

    def __init__(self) -> None:
        self.wte = L.Embedding(7, 4, rng=rng())
        self.head = L.Linear(4, 7, bias=False, rng=rng())
        self.head.weight = self.wte.weight

    def forward(self, indices: Any) -> Any:
        return self.head(self.wte(indices))


class Nested(L.Module):
    def __init__(self) -> None:
        self.blocks = L.ModuleList([L.Linear(2, 2, rng=rng(i)) for i in range(2)])
        self.heads = L.ModuleDict({"a": L.Linear(2, 3, rng=rng(2)), "b": L.Linear(2, 1, rng=rng(3))})
        self.scales = L.ParameterList([np.ones(2, np.float32), np.zeros(2, np.float32)])
        self.plain = [L.ReLU(), {"deep": L.Linear(1, 1, rng=rng(4))}]
        self.count = L.Buffer(np.array(3))

    def forward(self, x: Any) -> Any:
        for block, scale in zip(self.blocks, self.scales, strict=True):
            x = block(x) * scale
        return self.heads["a"](x)


# -- names and state -------------------------------------------------------------------------------------------------


def test_names_are_attribute_paths() -> None:
    module = Nested()
    assert list(module.state_dict()) == [
        *(f"blocks.{i}.{name}" for i in range(2) for name in ("weight", "bias")),
        *(f"heads.{i}.{name}" for i in "ab" for name in ("weight", "bias")),
        *("scales.0", "scales.1", "plain.1.deep.weight", "plain.1.deep.bias", "count"),
    ]
    assert [n for n, _ in module.named_modules()] == [
        *("", "blocks", "blocks.0", "blocks.1", "heads", "heads.a", "heads.b", "scales", "plain.0", "plain.1.deep"),
    ]
    assert [n for n, _ in module.named_children()] == ["blocks", "heads", "scales", "plain.0", "plain.1.deep"]
    assert "count" not in dict(module.named_parameters())


def test_state_dict_holds_copies() -> None:
    layer = L.Linear(2, 2, rng=rng())
    state = layer.state_dict()
    state["weight"][...] = 9
    assert not (layer.weight.to_numpy() == 9).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("bias"), KeyError, "missing .'bias'., unexpected nothing"),
        (lambda s: s.update(extra=np.ones(1)), KeyError, "missing nothing, unexpected .'extra'."),
        (lambda s: s.update(bias=np.ones(3)), ValueError, r"bias must have shape \(2,\), got \(3,\)"),
        (lambda s: s.update(bias=np.ones(2, int)), TypeError, "bias must have dtype float32, got int64"),
        (lambda s: s.update(bias=[1.0, 2.0]), TypeError, "bias must be an array, got list"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: Any, error: type[Exception], message: str) -> None:
    layer = L.Linear(2, 2, rng=rng())
    before, state = layer.state_dict(), L.Linear(2, 2, rng=rng(1)).state_dict()
    change(state)
    with pytest.raises(error, match=message):
        layer.load_state_dict(state)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_not_strict_takes_what_fits() -> None:
    layer = L.Linear(2, 2, rng=rng())
    missing, unexpected = layer.load_state_dict({"bias": np.ones(2), "extra": np.ones(1)}, strict=False)
    assert (missing, unexpected) == (["weight"], ["extra"])
    np.testing.assert_array_equal(layer.bias.to_numpy(), np.ones(2, np.float32))


# -- sharing and freezing --------------------------------------------------------------------------------------------


def test_tied_weights_have_both_names_and_count_once(device: Device) -> None:
    module = Tied().to(device)
    assert module.head.weight is module.wte.weight
    assert list(module.state_dict()) == ["wte.weight", "head.weight"]
    assert module.num_parameters() == 28
    optimizer = training.SGD(module.parameters(), lr=1.0)
    assert len(optimizer.parameters) == 1
    before = module.wte.weight.to_numpy().copy()
    indices = backend_for(device).from_numpy(np.array([1, 3]), device)
    module(indices).sum().backward()
    gradient = backend_for(device).to_numpy(module.wte.weight.grad).copy()
    expected = np.tile(before[[1, 3]].sum(0), (7, 1))  # as the head, and
    np.add.at(expected, [1, 3], before.sum(0))  # as the embedding
    assert_close(gradient, expected, atol=1e-5)
    optimizer.step()
    assert_close(module.head.weight.to_numpy(), before - gradient, atol=1e-6)


def test_tied_weights_load_from_one_name_or_from_equal_values() -> None:
    module, value = Tied(), values(7, 4)
    for state in ({"wte.weight": value}, {"head.weight": value}, {"wte.weight": value, "head.weight": value.copy()}):
        assert module.load_state_dict(state) == ([], [])
        np.testing.assert_array_equal(module.head.weight.to_numpy(), value)
        module.head.weight.data[...] = 0
    with pytest.raises(ValueError, match=r"wte.weight and head.weight are one parameter and must have equal values"):
        module.load_state_dict({"wte.weight": value, "head.weight": value + 1})
    assert not module.head.weight.to_numpy().any()


def test_frozen_parameters_get_no_gradient_and_do_not_move() -> None:
    model = L.Sequential(L.Linear(3, 3, rng=rng()), L.Linear(3, 2, rng=rng()))
    model[0].requires_grad_(False)
    before = model.state_dict()
    optimizer = training.SGD(model.parameters(), lr=0.1)
    model(values(4, 3)).sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert model[0].weight.grad is None
    assert [name for name in before if (before[name] != after[name]).any()] == ["1.weight", "1.bias"]
    model.requires_grad_()
    model(values(4, 3)).sum().backward()
    assert model[0].weight.grad is not None


def test_to_moves_and_casts_parameters_and_buffers(device: Device) -> None:
    module = Nested().to(device, dtype="float64")
    assert {str(p.dtype) for p in module.parameters()} == {"float64"}
    assert module.count.dtype == np.int64
    assert {value.device for _, value in module._named_state()} == {device}
    tied = Tied().to(device, dtype="float16")
    assert tied.head.weight is tied.wte.weight


# -- hooks -----------------------------------------------------------------------------------------------------------


def test_forward_hooks_see_and_change_inputs_and_output() -> None:
    layer, seen = L.Linear(2, 2, rng=rng()), []
    x = values(3, 2)
    plain = layer(x).to_numpy()
    before = layer.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs)))
    after = layer.register_forward_hook(lambda module, inputs, y: seen.append((module, inputs, y)))
    y = layer(x)
    assert seen[0][0] is layer
    assert seen[0][1][0] is x
    assert seen[1][2] is y
    before.remove()
    before.remove()
    with layer.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2), after:
        np.testing.assert_array_equal(layer(x).to_numpy(), layer.forward(x * 2).to_numpy())
    with layer.register_forward_hook(lambda module, inputs, y: y * 0):
        assert not layer(x).to_numpy().any()
    np.testing.assert_array_equal(layer(x).to_numpy(), plain)
    assert len(seen) == 3


@pytest.mark.parametrize("wanted", [True, False])
def test_a_backward_hook_sees_the_gradients_of_inputs_and_output(wanted: bool, device: Device) -> None:
    layer, seen = L.Linear(2, 3, rng=rng()).to(device), []
    backend = backend_for(device)
    x = lamella.Tensor(backend.from_numpy(values(4, 2), device), requires_grad=wanted)
    handle = layer.register_full_backward_hook(lambda *args: seen.append(args))
    y = layer(x)
    (y * y).sum().backward()
    ((module, (dx,), (dy,)),) = seen
    assert module is layer
    assert_close(dy, 2 * y.to_numpy(), atol=1e-6)
    if wanted:
        assert_close(dx, backend.to_numpy(dy) @ layer.weight.to_numpy(), atol=1e-5)
        assert_close(x.grad, backend.to_numpy(dx))
    else:
        assert dx is None
    handle.remove()
    layer(x).sum().backward()
    with lamella.no_grad():
        layer(x)
    assert len(seen) == 1


def test_a_backward_hook_may_change_the_gradient() -> None:
    layer = L.Identity()
    x = lamella.tensor([1.0, 2.0], requires_grad=True)
    with layer.register_full_backward_hook(lambda module, dxs, dys: (dxs[0] * 10,)):
        layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad, [10, 10])
    with (
        layer.register_full_backward_hook(lambda module, dxs, dys: (dxs[0], dxs[0])),
        pytest.raises(ValueError, match="a hook must return None or 1 gradients, got 2"),
    ):
        layer(x).sum().backward()


def test_a_backward_hook_takes_several_inputs_and_outputs() -> None:
    class Swap(L.Module):
        def forward(self, a: Any, b: Any, n: int) -> Any:
            return b * n, a

    module, seen = Swap(), []
    module.register_full_backward_hook(lambda *args: seen.append(args[1:]))
    a, b = (lamella.tensor([v], requires_grad=True) for v in (2.0, 3.0))
    c, d = module(a, b, 5)
    (c * d).sum().backward()
    (((da, db, dn), (dc, dd)),) = seen
    assert (float(da[0]), float(db[0]), dn) == (15.0, 10.0, None)
    assert (float(dc[0]), float(dd[0])) == (2.0, 15.0)
    assert (a.grad, b.grad) == (15, 10)


def test_a_tensor_hook_sees_the_whole_gradient_and_may_change_it() -> None:
    x = lamella.tensor([1.0, 2.0], requires_grad=True)
    h, seen = x * 3, []
    with h.register_hook(seen.append):
        h.register_hook(lambda dy: dy * 2)
        (h * h + h).sum().backward()
    np.testing.assert_array_equal(seen[0], [7, 13])
    np.testing.assert_array_equal(x.grad, [42, 78])


def test_a_tensor_hook_on_an_operation_with_separate_gradients_and_on_one_with_several_results() -> None:
    layer, x = L.Linear(2, 2, rng=rng()), lamella.tensor(values(3, 2), requires_grad=True)
    y = layer(x)
    y.register_hook(lambda dy: dy * 2)
    y.sum().backward()
    assert_close(layer.bias.grad, np.full(2, 6.0))
    assert_close(x.grad, np.tile(2 * layer.weight.to_numpy().sum(0), (3, 1)), atol=1e-6)
    x.grad = None
    first, second = lamella.autograd.split(x, [1])
    second.register_hook(lambda dy: dy * 5)
    (first.sum() + second.sum()).backward()
    np.testing.assert_array_equal(x.grad, [[1, 1], [5, 5], [5, 5]])


def test_gradients_changed_by_a_hook_are_not_shared_between_leaves() -> None:
    a, b = (lamella.tensor([1.0], requires_grad=True) for _ in range(2))
    given = np.array([4.0], np.float32)
    y = a + b
    y.register_hook(lambda dy: given)
    y.backward()
    a.grad += 1
    assert (float(b.grad[0]), float(given[0])) == (4.0, 4.0)


def test_a_tensor_keeps_its_gradient_where_it_is_told_to(device: Device) -> None:
    x = lamella.tensor([1.0, 2.0], device=device, requires_grad=True)
    h = x * 3
    y = h * h + h
    for tensor in (x, h, h):
        tensor.retain_grad()
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert y.grad is None
    np.testing.assert_array_equal(lamella.tensor(h.grad).to_numpy(), [7, 13])
    np.testing.assert_array_equal(lamella.tensor(x.grad).to_numpy(), [42, 78])


def test_a_tensor_that_keeps_its_gradient_is_forgotten_with_the_tape() -> None:
    gc.disable()
    try:
        h = lamella.tensor([1.0], requires_grad=True) * 3
        h.retain_grad()
        array = weakref.ref(h.data)
        del h
        assert array() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lamella.tensor([1.0]).retain_grad(), ValueError, "retain_grad: .* this one has no gradient"),
        (lambda: lamella.tensor([1.0], requires_grad=True).register_hook(print), ValueError, "this one is a leaf"),
        (lambda: lamella.tensor([1.0]).register_hook(print), ValueError, "this one has no gradient"),
        (lambda: L.ReLU().register_forward_hook(3), TypeError, "a hook must be a function, got 3"),
    ],
)
def test_hooks_that_cannot_be_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_hook_that_returns_another_shape_is_refused() -> None:
    x = lamella.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y.register_hook(lambda dy: dy[:1])
    with pytest.raises(ValueError, match=r"a gradient like the one it got, float32 of \(2,\), got float32 of \(1,\)"):
        y.sum().backward()


# -- copies ----------------------------------------------------------------------------------------------------------


def test_a_deep_copy_shares_inside_and_nothing_outside() -> None:
    module = Tied()
    training.Adam(module.parameters(), lr=0.1)
    module(np.array([1])).sum().backward()
    module.register_forward_hook(lambda *args: None)
    other = copy.deepcopy(module)
    assert other.head.weight is other.wte.weight
    assert other.wte.weight.grad is None
    assert other.wte.weight._grad_buffer is None
    assert other.wte.weight.requires_grad
    assert other._hooks is None
    assert not np.shares_memory(other.wte.weight.data, module.wte.weight.data)
    np.testing.assert_array_equal(other(np.array([1])).to_numpy(), module(np.array([1])).to_numpy())
    before = module.wte.weight.to_numpy().copy()
    other.wte.weight.data[...] = 0
    np.testing.assert_array_equal(module.wte.weight.to_numpy(), before)


def test_a_deep_copy_keeps_kinds_frozen_state_and_streams(device: Device) -> None:
    module = L.Sequential(L.Dropout(0.5, rng=rng(3)), L.Linear(2, 2, rng=rng())).to(device)
    module.count = L.Buffer(np.array(3))
    module[1].requires_grad_(False)
    other = copy.deepcopy(module.eval())
    assert type(other.count) is L.Buffer
    assert type(other[1].weight) is L.Parameter
    assert not other[1].weight.requires_grad
    assert not other[0].training
    assert other[1].weight.device == device
    assert other[0].rng is not module[0].rng
    assert other[0].rng.state == module[0].rng.state
    assert copy.copy(module)[1] is module[1]


@pytest.mark.parametrize("thing", [L.Linear(1, 1), L.Sequential(L.ReLU())])
def test_pickle_is_refused_with_the_way_out(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled.*lamella.save"):
        pickle.dumps(thing)


# -- containers ------------------------------------------------------------------------------------------------------


def test_a_module_list_is_a_list() -> None:
    a, b, c, d = (L.Linear(1, 1) for _ in range(4))
    found = L.ModuleList([a]).append(b).extend([c])
    found.insert(0, d)
    assert list(found) == [d, a, b, c]
    assert found[-1] is c
    assert b in found
    assert [type(found[1:]), *found[1:]] == [L.ModuleList, a, b, c]
    del found[0]
    found[0] = d
    assert list(found) == [d, b, c]
    assert len(found) == 3
    assert list(found.state_dict())[:2] == ["0.weight", "0.bias"]
    assert repr(found).startswith("ModuleList(\n  (0): Linear(")


def test_a_module_dict_is_a_dict() -> None:
    a, b = L.Linear(1, 1), L.ReLU()
    found = L.ModuleDict({"a": a})
    found["b"] = b
    assert list(found) == list(found.keys()) == ["a", "b"]
    assert list(found.values()) == [a, b]
    assert dict(found.items()) == {"a": a, "b": b}
    del found["a"]
    assert "a" not in found
    assert len(found) == 1


def test_a_parameter_list_makes_parameters() -> None:
    p = L.Parameter(np.ones(2, np.float32))
    found = L.ParameterList([p, np.zeros(3, np.float32)])
    assert found[0] is p
    assert isinstance(found[1], L.Parameter)
    assert list(found.state_dict()) == ["0", "1"]
    assert repr(found) == "ParameterList(\n  (0): float32 (2,) on cpu\n  (1): float32 (3,) on cpu\n)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.ModuleList([3]), TypeError, "ModuleList: every item must be a module, got 3"),
        (lambda: L.ModuleList()(3), NotImplementedError, "ModuleList has no forward method"),
        (lambda: L.ModuleDict({"a.b": L.ReLU()}), ValueError, "a name must be text without a dot, got 'a.b'"),
        (lambda: L.ModuleDict({"a": 3}), TypeError, "ModuleDict: a must be a module, got 3"),
        (lambda: L.ParameterList([3]), TypeError, "expected an array of"),
    ],
)
def test_containers_refuse_what_they_cannot_hold(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# -- shapes, connections, dropout of slices --------------------------------------------------------------------------


def test_residual_and_dense_connection_are_their_formulas() -> None:
    x, block, past = values(3, 4), L.Linear(4, 2, rng=rng()), L.Linear(4, 2, rng=rng(1))
    plain = L.Linear(4, 4, rng=rng(2))
    assert_close(L.Residual(plain)(x).to_numpy(), plain(x).to_numpy() + x)
    assert_close(L.Residual(block, past)(x).to_numpy(), block(x).to_numpy() + past(x).to_numpy())
    assert_close(L.DenseConnection(block)(x).to_numpy(), np.concatenate([x, block(x).to_numpy()], 1))
    last = L.DenseConnection(L.Linear(4, 2, rng=rng()), axis=-1)
    assert last(values(2, 3, 4)).shape == (2, 3, 6)


def test_the_example_of_a_general_composition_runs_and_has_the_right_derivative() -> None:
    names = {**vars(residual), "H": lambda i, o: L.Sequential(L.Linear(i, o, rng=rng(i)), L.Tanh())}
    test = doctest.DocTestParser().get_doctest(str(residual.__doc__), names, "residual", None, 0)
    assert len(test.examples) == 1
    assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    H = names["H"]
    model = test.globs["Skipping"](H(4, 3), H(3, 2), H(9, 1)).to(dtype="float64")
    assert lamella.gradcheck(model, values(5, 4).astype(np.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.Residual(L.Linear(4, 1))(values(3, 4)), r"shape of the input, got \(3, 1\) and \(3, 4\)"),
        (lambda: L.DenseConnection(L.Flatten(0))(values(3, 4)), r"but for axis 1, got \(12,\) and \(3, 4\)"),
        (lambda: L.Flatten(2)(values(3, 4)), r"start_axis must be in -2 … 1 for shape \(3, 4\), got 2"),
        (lambda: L.Flatten(1, 0)(values(3, 4)), "end_axis must not stand before start_axis, got 0 and 1"),
        (lambda: L.Unflatten(1, (2, 3))(values(3, 4)), r"multiply to the 4 values of axis 1, got \(2, 3\)"),
        (lambda: L.Unflatten(1, (-1, 3))(values(3, 4)), r"multiply to the 4 values of axis 1, got \(-1, 3\)"),
        (lambda: L.Unflatten(1, (-1, -4))(values(3, 4)), r"multiply to the 4 values of axis 1, got \(-1, -4\)"),
        (lambda: L.Bilinear(2, 3, 1)(values(3, 3), values(3, 2)), "bilinear: x1 must have shape"),
        (lambda: L.Dropout2d(0.5)(values(3, 4, 5)), r"Dropout2d: x must have shape \(N, C, H, W\), got \(3, 4, 5\)"),
        (lambda: L.DropPath(1.5), r"DropPath: p must be in \[0, 1\], got 1.5"),
        (lambda: L.AlphaDropout(-1), r"AlphaDropout: p must be in \[0, 1\], got -1"),
        (lambda: L.GaussianNoise(-1), "GaussianNoise: std must be at least 0, got -1"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_flatten_of_an_empty_batch_keeps_the_other_lengths() -> None:
    assert L.Flatten()(values(0, 3, 4)).shape == (0, 12)
    assert L.Unflatten(1, (3, -1))(values(0, 12)).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("layer", "shape", "kept"),
    [
        (L.Dropout1d, (40, 50, 3), 2),
        (L.Dropout2d, (40, 50, 2, 2), 2),
        (L.Dropout3d, (40, 50, 1, 2, 2), 2),
        (L.DropPath, (2000, 3, 2), 1),
    ],
)
def test_whole_slices_are_dropped_and_the_others_scaled(layer: Any, shape: Any, kept: int, device: Device) -> None:
    module = layer(0.25, rng=rng())
    x = lamella.Tensor(backend_for(device).from_numpy(np.ones(shape, np.float32), device), requires_grad=True)
    y = module(x)
    y.sum().backward()
    slices = y.to_numpy().reshape(*shape[:kept], -1)
    np.testing.assert_array_equal(slices, np.broadcast_to(slices[..., :1], slices.shape))
    assert set(np.unique(slices)) == {0, np.float32(1 / 0.75)}
    assert abs((slices == 0).mean() - 0.25) < 0.04
    np.testing.assert_array_equal(backend_for(device).to_numpy(x.grad), y.to_numpy())
    assert not np.array_equal(module(x).to_numpy(), y.to_numpy())
    assert module.eval()(x) is x
    assert not layer(1.0)(x).to_numpy().any()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    x = values(200_000)
    module = L.AlphaDropout(p, rng=rng())
    y = module(x).to_numpy()
    assert abs(y.mean()) < 0.02
    assert abs(y.std() - 1) < 0.02
    dropped = np.float32(((1 - p) * (1 + p * 1.7580993408473766**2)) ** -0.5 * -1.7580993408473766 * (1 - p))
    assert abs(np.isclose(y, dropped, atol=1e-5).mean() - p) < 0.01
    assert not L.AlphaDropout(1.0)(x).to_numpy().any()


def test_gaussian_noise_has_its_standard_deviation_and_passes_the_gradient(device: Device) -> None:
    x = lamella.Tensor(backend_for(device).from_numpy(np.ones((100, 100), np.float32), device), requires_grad=True)
    module = L.GaussianNoise(0.5, rng=rng())
    y = module(x)
    assert abs(y.to_numpy().mean() - 1) < 0.02
    assert abs(y.to_numpy().std() - 0.5) < 0.02
    y.sum().backward()
    assert (backend_for(device).to_numpy(x.grad) == 1).all()
    assert module.eval()(x) is x


def test_a_large_gradient_is_kept_without_a_copy_where_nobody_else_sees_it() -> None:
    """Large results lie in recycled memory, so they are views; a leaf takes them over, and never another's memory."""
    x = lamella.Tensor(values(600, 600), requires_grad=True)
    seen: list[Any] = []

    @lamella.op
    def double(x: Any) -> Any:
        def backward(dy: Any) -> Any:
            dx = backend_for("cpu").empty(x.shape, x.dtype, x)
            np.multiply(dy, 2, dx)
            seen.append(dx.ctypes.data)
            return (dx.reshape(x.shape),)

        return x * 2, backward

    dy = np.ones((600, 600), np.float32)
    double(x).backward(dy)
    assert x.grad.ctypes.data == seen[0]
    first = x.grad
    x.grad = None
    double(x).backward(dy)
    assert x.grad.ctypes.data != first.ctypes.data
    assert (first == 2).all()
    x.backward(dy)  # a leaf itself
    z = lamella.Tensor(values(2), requires_grad=True)
    given = np.ones(2, np.float32)
    z.backward(given)
    z.grad += 1
    z.reshape(2, 1).backward(given.reshape(2, 1))
    assert (given == 1).all()
    assert (z.grad == 3).all()
    a, b = (lamella.Tensor(values(600, 600), requires_grad=True) for _ in range(2))
    (a + b).backward(dy)
    a.grad += 1
    assert (dy == 1).all()
    assert (b.grad == 1).all()


@pytest.mark.parametrize("length", [2, 600_000])
def test_a_gradient_that_somebody_keeps_is_copied_for_the_leaf(length: int) -> None:
    x, kept = lamella.Tensor(values(length), requires_grad=True), []

    @lamella.op
    def same(x: Any) -> Any:
        def backward(dy: Any) -> Any:
            kept.append(backend_for("cpu").empty((length, 1), x.dtype, x))
            kept[0][:, 0] = dy
            return (kept[0].reshape(length),)

        return x * 1, backward

    same(x).sum().backward()
    x.grad += 1
    assert (kept[0] == 1).all()


# -- what a stranger found ------------------------------------------------------------------------------------------


class Holder(L.Module):
    """Whatever is put into its attributes."""


def test_two_things_of_one_name_are_refused() -> None:
    holder = Holder()
    holder.d = {1: L.Parameter(np.ones(1, np.float32)), "1": L.Parameter(np.zeros(1, np.float32))}
    with pytest.raises(ValueError, match=r"Holder: two parameters or buffers have the name 'd\.1'"):
        holder.state_dict()


def test_a_module_that_contains_itself_is_told_so_and_prints() -> None:
    parent, child = Holder(), Holder()
    parent.child, child.parent = child, parent
    with pytest.raises(ValueError, match=r"must not contain itself, but 'child\.parent' is a module above it"):
        list(parent.parameters())
    assert "..." in repr(parent)


def test_a_tensor_that_wants_its_gradient_and_is_no_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Holder\.w: a tensor that wants its gradient .* assign a Parameter"):
        Holder().w = lamella.tensor([1.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"Holder\.parts: a set has no order"):
        Holder().parts = {L.Linear(1, 1)}


def test_moving_a_model_after_its_optimizer_was_made_is_said_clearly() -> None:
    model = L.Linear(2, 2)
    optimizer = lamella.training.Adam(model.parameters())
    model.to(dtype="float64")
    model(np.ones((1, 2))).sum().backward()
    with pytest.raises(ValueError, match="move or cast the model first, then make a new optimizer"):
        optimizer.step()


def test_values_beyond_a_dtype_are_refused_and_nothing_changes() -> None:
    model = L.Linear(2, 2)
    before = model.state_dict()
    state = {"weight": np.full((2, 2), 1e300), "bias": np.zeros(2)}
    with pytest.raises(ValueError, match="weight has values beyond the range of float32"):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model.weight.to_numpy(), before["weight"])


def test_an_error_raised_twice_names_its_module_once() -> None:
    model = L.Sequential(L.Sequential(L.Linear(2, 2)))
    same = ValueError("planted")

    def fail(module: L.Module, inputs: object) -> None:
        raise same

    model[0][0].register_forward_pre_hook(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"in module 0\.0 \(Linear\)"):
            model(np.ones((1, 2), np.float32))
    assert str(same).count("in module") == 1


def test_arrays_of_another_library_can_be_loaded() -> None:
    class Foreign:
        """What speaks DLPack and nothing of ours."""

        def __init__(self, array: np.ndarray) -> None:
            self._array = array

        def __dlpack__(self, **kwargs: object) -> object:
            return self._array.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self._array.__dlpack_device__()

    model = L.Linear(2, 1)
    model.load_state_dict({"weight": Foreign(np.float32([[3, 4]])), "bias": Foreign(np.float32([5]))})
    assert model(np.float32([[1, 1]])).item() == 12
