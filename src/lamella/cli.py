"""The command ``lamella``: ``info`` says what this machine offers, ``demo`` trains on it, ``bench`` measures it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, layers, training
from .autograd import Tensor, concat, no_grad, tensor
from .backend import (
    Device,
    DeviceUnavailableError,
    Generator,
    available_devices,
    backend_for,
    backend_names,
    get_num_threads,
    why_unavailable,
)
from .backend import device as check_device
from .benchmarks import command as bench_command
from .models import digits_convnet, mlp

_HIDDEN, _DROPOUT, _LR, _BATCH = (512, 256), 0.4, 2e-3, 64
_SPLIT_SEED = 2024  # the held-out fifth is the same for every seed
_SHADES = " .:-=+*#%@"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 it could not be done, 2 wrong usage or a package missing."""
    parser = argparse.ArgumentParser(prog="lamella", description="Neural networks on NumPy and CuPy.")
    parser.add_argument("--version", action="version", version=f"lamella {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="what lamella finds on this machine: libraries, devices, memory")
    demo = commands.add_parser("demo", help="train a digit classifier on every usable device, in seconds")
    demo.add_argument(
        "--model", choices=("mlp", "convnet"), default="mlp", help="convnet: one that has learned already reads at once"
    )
    demo.add_argument("--device", type=_devices, default=None, metavar="cpu,cuda", help="default: all that work here")
    demo.add_argument("--epochs", type=_integer(1), help="passes over the data (default: 40)")
    demo.add_argument("--seed", type=_integer(0), help="of weights, shuffles and dropout (default: 0)")
    demo.add_argument("--output", type=Path, help="folder for the trained models (default: demo-output)")
    bench = commands.add_parser("bench", help="how fast each part is here, its answer checked, beside its ceiling")
    bench_command.add_arguments(bench)
    arguments = parser.parse_args(argv)
    if arguments.command == "bench":
        return bench_command.run(arguments)
    if arguments.command == "info":
        return _info()
    if arguments.model == "convnet":
        given = [name for name in ("epochs", "seed", "output") if getattr(arguments, name) is not None]
        if given:
            demo.error(f"--{given[0]} is for training, and --model convnet has learned already")
        return _read(arguments.device)
    return _demo(arguments.device, arguments.epochs or 40, arguments.seed or 0, arguments.output or Path("demo-output"))


# -- lamella info ---------------------------------------------------------------------------------------------------
def _info() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = [
        ("lamella", __version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", f"{platform.system()} {platform.machine()}"),
        *backend_for("cpu").versions().items(),
        ("CPU", f"{cores} cores may be used; lamella uses {get_num_threads()} threads"),
    ]
    for kind in backend_names():
        reason = why_unavailable(kind)
        if reason is not None:
            rows.append((kind, reason))
        elif kind != "cpu":
            rows += backend_for(kind).versions().items()
    for device in available_devices():
        memory = backend_for(device).memory(device)
        rows.append((f"memory {device}", f"{_bytes(memory.total)}; lamella holds {_bytes(memory.reserved)}"))
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in rows))
    return 0


def _bytes(count: int) -> str:
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"


# -- lamella demo ---------------------------------------------------------------------------------------------------
def _demo(names: list[str] | None, epochs: int, seed: int, output: Path) -> int:
    try:
        images, labels = training.digits()
    except ModuleNotFoundError as error:
        print(f"lamella demo: {error}", file=sys.stderr)
        return 2
    rng = Generator(_SPLIT_SEED)
    train, test = training.split(images, labels, fractions=(0.8, 0.2), rng=rng, stratify=labels)
    print(f"{len(images):,} handwritten digits, 8×8 pixels: {len(train[0]):,} to learn from, {len(test[0])} held out.")

    devices = _usable(names)
    if not devices:
        return 1
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"lamella demo: --output must be a folder that can be written: {error}", file=sys.stderr)
        return 2

    rows = []
    for device in devices:
        model, seconds = _train(device, train, epochs, seed)
        x_test = tensor(test[0], device=device)
        logits = _predict(model, x_test)
        path = output / f"digits-{device.kind}.safetensors"
        training.save(path, model.state_dict(), {"classes": "0 1 2 3 4 5 6 7 8 9"})
        fresh = _model(seed ^ 1).to(device)
        fresh.load_state_dict(training.load(path))
        same = _predict(fresh, x_test).to_numpy().tobytes() == logits.to_numpy().tobytes()
        y_test = tensor(test[1], device=device)
        _report(test, logits.to_numpy(), training.confusion_matrix(logits, y_test, 10))
        print(f"\nSaved to {path} ({_bytes(path.stat().st_size)}) and loaded into a fresh model: ", end="")
        if not same:
            print("its predictions differ.")
            return 1
        print(f"it predicts the {len(test[0])} digits again, bit for bit.")
        steps = epochs * -(-len(train[0]) // _BATCH)
        rows.append((str(device), training.accuracy(logits, y_test), seconds, seconds / steps))
    print(f"\n{'device':<10}{'accuracy':>10}{'training':>12}{'one step':>12}")
    for name, accuracy, seconds, step in rows:
        print(f"{name:<10}{accuracy:>10.2%}{seconds:>10.2f} s{step * 1e6:>9.0f} µs")
    return 0


def _usable(names: list[str] | None) -> list[Device]:
    """The devices named, or all, that work here; why the others do not is said."""
    devices = []
    for name in names or backend_names():
        try:
            devices.append(check_device(name))
        except DeviceUnavailableError as error:
            print(f"Not on {name}: {error}.")
    return list(dict.fromkeys(devices))


def _read(names: list[str] | None) -> int:
    """Digits read by the network that has learned already."""
    try:
        _, (images, labels) = training.mnist5k()
    except ModuleNotFoundError as error:
        print(f"lamella demo: {error}", file=sys.stderr)
        return 2
    model = digits_convnet()
    print(f"A convolutional network of {model.num_parameters():,} parameters that comes with lamella, trained before,")
    print(f"and {len(images):,} handwritten digits of MNIST, 28×28 pixels, of which it has seen none.")
    devices = _usable(names)
    if not devices:
        return 1
    rows = []
    for device in devices:
        model, x = model.to(device), tensor(images, device=device)
        start = time.perf_counter()
        with no_grad():
            logits = concat([model(x[i : i + 100]) for i in range(0, len(images), 100)])
        guesses = logits.to_numpy().argmax(axis=1)
        rows.append((str(device), float((guesses == labels).mean()), time.perf_counter() - start))
    right, wrong = (found.nonzero()[0].tolist() for found in (guesses == labels, guesses != labels))
    _show(images, labels, guesses, right[:: len(right) // 4][:4], "Some that it reads:")
    _show(images, labels, guesses, wrong[:4], f"{len(right)} of {len(labels):,} are right. Taken for another:")
    print(f"\n{'device':<10}{'accuracy':>10}{'all of them':>14}")
    for name, accuracy, seconds in rows:
        print(f"{name:<10}{accuracy:>10.2%}{seconds:>12.2f} s")
    return 0


def _show(images: Any, labels: Any, guesses: Any, chosen: list[int], title: str) -> None:
    """Digits of 28×28 pixels as text, a character for two of their rows."""
    print(f"\n{title}")
    names = [f"{labels[i]}" if labels[i] == guesses[i] else f"{labels[i]} as {guesses[i]}" for i in chosen]
    print("  ".join(f"{name:<28}" for name in names).rstrip())
    for row in range(2, 26, 2):
        halves = [images[i, 0, row : row + 2].mean(axis=0).tolist() for i in chosen]
        print("  ".join("".join(_SHADES[min(9, int(p * 10))] for p in pixels) for pixels in halves).rstrip())


def _model(seed: int) -> Any:
    return mlp(64, *_HIDDEN, 10, dropout=_DROPOUT, rng=Generator(seed))


def _train(device: Device, train: tuple[Any, Any], epochs: int, seed: int) -> tuple[Any, float]:
    """A trained model and the seconds that its training took."""
    model = _model(seed).to(device)
    widths = " → ".join(map(str, (64, *_HIDDEN, 10)))
    print(f"\nTraining on {device}: {widths}, ReLU and dropout, {model.num_parameters():,} parameters, Adam.")
    data = tuple(tensor(array, device=device) for array in train)
    steps = epochs * -(-len(train[0]) // _BATCH)
    start = time.perf_counter()
    training.fit(
        model,
        (data[0], data[1]),
        loss=layers.cross_entropy,
        optimizer=training.Adam(model.parameters(), lr=_LR),
        epochs=epochs,
        batch_size=_BATCH,
        rng=Generator(seed).split(1),
        schedule=training.cosine(_LR, steps),
    )
    backend_for(device).synchronize(device)
    return model, time.perf_counter() - start


def _predict(model: Any, x: Tensor) -> Tensor:
    with no_grad():
        return model.eval()(x)


def _report(test: tuple[Any, Any], logits: Any, matrix: Any) -> None:
    """The confusion matrix, and pictures of what was taken for something else."""
    print("\n" + training.format_confusion_matrix(matrix))
    guesses = logits.argmax(axis=1)
    wrong = (guesses != test[1]).nonzero()[0].tolist()
    print(f"\n{len(test[1]) - len(wrong)} of {len(test[1])} held-out digits are right.", end="")
    shown = wrong[:5]
    if not shown:
        print()
        return
    print(" Taken for another:" if len(shown) == len(wrong) else " Some that were taken for another:")
    print("   ".join(f"{f'{test[1][i]} as {guesses[i]}':<16}" for i in shown).rstrip())
    for row in range(8):
        pictures = []
        for i in shown:
            pixels = test[0][i][8 * row : 8 * row + 8].tolist()
            pictures.append("".join(2 * _SHADES[min(9, int(pixel * 10))] for pixel in pixels))
        print("   ".join(pictures).rstrip())


# -- arguments ------------------------------------------------------------------------------------------------------
def _integer(least: int, greatest: int = 2**64 - 1) -> Any:
    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
        if int(text) > greatest:
            raise argparse.ArgumentTypeError(f"must be at most {greatest}, got {text!r}")
        return int(text)

    return integer


def _devices(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        try:
            kind = Device.parse(name).kind
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if kind not in backend_names():
            raise argparse.ArgumentTypeError(f"kinds of device are {', '.join(backend_names())}, got {name!r}")
    return names
