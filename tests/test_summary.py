"""The table and the diagram of a model: what they say, and that the model is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device


def rng() -> lamella.Generator:
    return lamella.Generator(0)


def model() -> L.Sequential:
    block = L.Sequential(L.Linear(32, 32), L.ReLU(), L.Dropout(0.1))
    found = L.Sequential(
        *(L.Flatten(), L.Linear(64, 32), L.Residual(block), L.DenseConnection(L.Linear(32, 16)), L.Linear(48, 10))
    )
    found[1].requires_grad_(False)
    return found


TABLE = """\
Layer                   Output      Parameters
──────────────────────────────────────────────
Sequential              (32, 10)             –
├─ 0 Flatten            (32, 64)             –
├─ 1 Linear             (32, 32)  2,080 frozen
├─ 2 Residual           (32, 32)             –
│  └─ block Sequential  (32, 32)             –
│     ├─ 0 Linear       (32, 32)         1,056
│     ├─ 1 ReLU         (32, 32)             –
│     └─ 2 Dropout      (32, 32)             –
├─ 3 DenseConnection    (32, 48)             –
│  └─ block Linear      (32, 16)           528
└─ 4 Linear             (32, 10)           490
──────────────────────────────────────────────
Parameters   4,154 (2,074 trainable, 2,080 frozen)
Memory       parameters 16.2 KiB, layer outputs 25.2 KiB
Input        float32 (32, 1, 8, 8) on cpu"""

DIAGRAM = """\
flowchart TD
  n0(["input (32, 1, 8, 8)"])
  n1["0 Flatten<br/>(32, 64)"]
  n2["1 Linear<br/>(32, 32)"]
  subgraph g1["2 Residual"]
    subgraph g2["block Sequential"]
      n3["0 Linear<br/>(32, 32)"]
      n4["1 ReLU<br/>(32, 32)"]
      n5["2 Dropout<br/>(32, 32)"]
    end
    n6(("add"))
  end
  subgraph g3["3 DenseConnection"]
    n7["block Linear<br/>(32, 16)"]
    n8(("concat"))
  end
  n9["4 Linear<br/>(32, 10)"]
  n10(["output (32, 10)"])
  n0 --> n1
  n1 --> n2
  n2 --> n3
  n3 --> n4
  n4 --> n5
  n5 --> n6
  n2 --> n6
  n6 --> n7
  n6 --> n8
  n7 --> n8
  n8 --> n9
  n9 --> n10"""


def test_the_table_reads_as_it_should() -> None:
    assert str(model().summary((32, 1, 8, 8))) == TABLE


def test_the_diagram_reads_as_it_should() -> None:
    assert model().diagram((32, 1, 8, 8)) == DIAGRAM


def test_the_figures_are_those_of_the_model(device: Device) -> None:
    found = model().to(device).summary((2, 1, 8, 8))
    assert (found.parameters, found.frozen, found.parameter_bytes) == (4154, 2080, 4 * 4154)
    # Linear 32, Linear 32, ReLU 32, the sum 32, Linear 16, concatenation 48, Linear 10; Flatten and Dropout are views
    assert found.activation_bytes == 2 * 4 * (32 * 4 + 16 + 48 + 10)
    assert [row.path for row in found.rows][:4] == ["", "0", "1", "2"]
    assert str(device) in found.inputs


class Awkward(L.Module):
    """Tied weights, a module called twice, one that is not called, a buffer, integers in, two results out."""

    def __init__(self) -> None:
        self.wte = L.Embedding(10, 4, rng=rng())
        self.mix = L.Linear(4, 4, rng=rng())
        self.head = L.Linear(4, 10, bias=False, rng=rng())
        self.head.weight = self.wte.weight
        self.spare = L.Linear(3, 3, rng=rng())
        self.again = [self.mix]
        self.noise = L.GaussianNoise(1.0, rng=rng())
        self.steps = L.Buffer(np.zeros(2, np.float32))

    def forward(self, ids: Any, x: Any) -> Any:
        self.noise.rng.reserve(5)
        self.steps.data += 1
        h = self.mix(self.wte(ids)) + x
        return self.head(self.noise(self.mix(h))), h


def test_shared_repeated_and_unused_parts_are_told_apart() -> None:
    found = Awkward().summary((2, 3), (2, 3, 4), dtype=["int64", "float32"])
    rows = {row.path: row for row in found.rows}
    assert rows[""].output == "(2, 3, 10), (2, 3, 4)"
    assert (rows["mix"].calls, rows["mix"].parameters) == (2, 20)
    assert (rows["head"].parameters, rows["head"].note) == (0, "as wte.weight")
    assert (rows["again.0"].parameters, rows["again.0"].note) == (0, "as mix")
    assert rows["spare"].output == "not called"
    assert found.parameters == 40 + 20 + 12
    assert found.buffer_bytes == 8
    assert "×2" in str(found)


def test_a_diagram_shows_repeated_calls_integer_inputs_and_several_results() -> None:
    lines = Awkward().diagram((2, 3), (2, 3, 4), dtype=["int64", "float32"]).splitlines()
    box = {line.strip().split("[")[0].split("(")[0]: line for line in lines if "-->" not in line}
    arrows = [tuple(line.split()[::2]) for line in lines if "-->" in line]
    named = [(box[a].split('"')[1].split("<")[0], box[b].split('"')[1].split("<")[0]) for a, b in arrows]
    assert named == [
        ("input (2, 3)", "wte Embedding"),
        ("wte Embedding", "mix Linear"),
        ("mix Linear", "add"),
        ("input (2, 3, 4)", "add"),
        ("add", "mix Linear"),
        ("mix Linear", "noise GaussianNoise"),
        ("noise GaussianNoise", "head Linear"),
        ("head Linear", "output (2, 3, 10)"),
        ("add", "output (2, 3, 4)"),
    ]


@pytest.mark.parametrize("look", ["summary", "diagram"])
def test_looking_changes_nothing(look: str) -> None:
    module = Awkward()
    module.mix.eval()
    module.wte.requires_grad_(False)
    seen: list[Any] = []
    module.head.register_forward_hook(lambda *args: seen.append(1))
    before = {part: dict(vars(part)) for part in module.modules()}
    state, stream, array = module.state_dict(), module.noise.rng.state, module.steps.data
    getattr(module, look)((2, 3), (2, 3, 4), dtype=["int64", "float32"])
    for part, attributes in before.items():
        assert vars(part).keys() == attributes.keys()
        assert all(vars(part)[name] is value for name, value in attributes.items())
    assert [part.training for part in module.modules()].count(False) == 1
    assert module.noise.rng.state == stream
    assert module.steps.data is array
    assert not module.wte.weight.requires_grad
    assert module.mix.weight.requires_grad
    assert all(p.grad is None for p in module.parameters())
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert len(module.head._hooks.after.functions) == 1


@pytest.mark.parametrize("look", ["summary", "diagram"])
def test_a_model_that_fails_is_left_as_it_was(look: str) -> None:
    module = model()
    with pytest.raises(ValueError, match="linear: x must have shape"):
        getattr(module, look)((32, 7))
    assert all(part.training and part._hooks is None for part in module.modules())


def test_examples_are_taken_in_place_of_shapes() -> None:
    module = L.Embedding(5, 2)
    assert module.summary(np.array([[1, 2, 4]])).rows[0].output == "(1, 3, 2)"
    assert module.summary(lamella.tensor([1, 2])).inputs == "int64 (2,) on cpu"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.ReLU().summary(), TypeError, "at least one input shape must be given"),
        (lambda: L.ReLU().summary(3), TypeError, r"each input must be a shape such as \(32, 784\), or an array, got 3"),
        (lambda: L.ReLU().summary((1,), dtype=["int64"] * 2), ValueError, "one for each of the 1 inputs, got .'int64'"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


class Between(L.Module):
    """Functional operations between two layers, in a row or beside a path past them."""

    def __init__(self, residual: bool) -> None:
        self.a, self.b, self.residual = L.Linear(4, 4), L.Linear(4, 4), residual

    def forward(self, x: Any) -> Any:
        y = L.relu(self.a(x))
        return self.b(x + y) if self.residual else self.b(y)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_diagram_shows_the_operations_between_two_layers(residual: bool, inside: bool) -> None:
    lines = (L.Sequential(Between(residual)) if inside else Between(residual)).diagram((2, 4)).splitlines()

    def box(text: str) -> str:
        (line,) = [line for line in lines if text in line and "subgraph" not in line]
        return line.strip().partition("[" if "[" in line else "(")[0].removesuffix("(")

    start, a, b, relu, end = box("input"), box("a Linear"), box("b Linear"), box('"relu"'), box("output")
    arrows = {(start, a), (a, relu), (b, end)}
    arrows |= {(start, box('"add"')), (relu, box('"add"')), (box('"add"'), b)} if residual else {(relu, b)}
    assert {tuple(line.split(" --> ")) for line in map(str.strip, lines) if "-->" in line} == arrows


class Frozen(L.Module):
    def __init__(self) -> None:
        self.a, self.b = L.Linear(4, 4), L.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        with lamella.no_grad():
            y = self.a(x)
        return self.b(y)


def test_a_diagram_bears_a_layer_that_is_not_recorded() -> None:
    assert "a Linear" in Frozen().diagram((2, 4))


class Kept(L.Module):
    """A module that uses a tensor kept from outside: what made that tensor belongs outside."""

    def __init__(self) -> None:
        self.a, self.inner = L.Linear(4, 4), Adds()

    def forward(self, x: Any) -> Any:
        self.inner.skip = [self.a(L.tanh(x))]
        return self.inner(x)


class Adds(L.Module):
    def __init__(self) -> None:
        self.b, self.skip = L.Linear(4, 4), []

    def forward(self, x: Any) -> Any:
        return self.b(x) + self.skip[0]


def test_a_diagram_leaves_what_made_a_kept_tensor_outside_of_the_frame() -> None:
    text = Kept().diagram((2, 4))
    frame = text[text.index("subgraph") : text.index("end\n")]
    assert '"add"' in frame
    assert '"tanh"' in text.replace(frame, "")
    assert '"tanh"' not in frame
