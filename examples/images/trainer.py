"""One library that trains, in a process of its own: ``python trainer.py lamella`` or ``torch``; it speaks JSON lines.

The interpreter of PyTorch needs NumPy and torch and nothing of lamella.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


class Lamella:
    """``lamella``: the step written out, and predictions."""

    def __init__(self, threads: int) -> None:
        import lamella
        import lamella.layers as L
        from lamella import training

        lamella.set_num_threads(threads)
        self.lamella, self.layers, self.training = lamella, L, training
        self.version = lamella.__version__

    def start(self, name: str, state: dict, optimizer: str, settings: dict, layout: str) -> None:
        from recipes import RECIPES

        self.model = RECIPES[name].model(self.lamella.Generator(0))
        self.model.load_state_dict(state)
        self.optimizer = getattr(self.training, optimizer)(self.model.parameters(), **settings)
        self.model.train()

    def step(self, x: np.ndarray, labels: np.ndarray, lr: float) -> None:
        self.optimizer.lr = lr
        loss = self.layers.cross_entropy(self.model(self.lamella.tensor(x)), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        with self.lamella.no_grad():
            scores = self.model(self.lamella.tensor(x)).to_numpy()
        self.model.train()
        return scores.argmax(axis=1)


class Torch:
    """PyTorch, eager, with the networks of ``recipes.py`` written in its modules."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.version = torch, torch.__version__

    def start(self, name: str, state: dict, optimizer: str, settings: dict, layout: str) -> None:
        torch = self.torch
        self.model = {"resnet": residual}.get(name, plain)(torch, state)
        own = self.model.state_dict()
        wanted = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
        self.model.load_state_dict({key: value.reshape(own[key].shape) for key, value in wanted.items()})
        self.format = getattr(torch, layout)
        self.model = self.model.to(memory_format=self.format)
        self.optimizer = getattr(torch.optim, optimizer)(self.model.parameters(), **settings)
        self.model.train()

    def step(self, x: np.ndarray, labels: np.ndarray, lr: float) -> None:
        torch = self.torch
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images = torch.from_numpy(x).contiguous(memory_format=self.format)
        loss = torch.nn.functional.cross_entropy(self.model(images), torch.from_numpy(labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        with self.torch.no_grad():
            scores = self.model(self.torch.from_numpy(x).contiguous(memory_format=self.format)).numpy()
        self.model.train()
        return scores.argmax(axis=1)


def plain(torch, state):
    """Convolutions with ReLU and pooling, and two linear layers, by the shapes of their weights."""
    nn, parts = torch.nn, []
    if not any(key.startswith("0.") for key in state):  # the digits' network standardizes its images itself

        class Standardized(nn.Module):
            def forward(self, x):
                return (x - 0.1307) / 0.3081

        parts.append(Standardized())
    weights = [value.shape for key, value in state.items() if key.endswith("weight")]
    for shape in weights:
        if len(shape) == 4:
            parts += [nn.Conv2d(shape[1], shape[0], shape[2], padding=shape[2] // 2), nn.ReLU(), nn.MaxPool2d(2)]
    (hidden, inputs), (classes, _) = (shape for shape in weights if len(shape) == 2)
    parts += [nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.25), nn.Linear(hidden, classes)]
    return nn.Sequential(*parts)


def residual(torch, state):
    """The residual network for small images, of basic blocks, one in each stage."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride > 1 or before != after:
                self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self, width, channels):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.layer1 = nn.Sequential(Block(width, width, 1))
            self.layer2 = nn.Sequential(Block(width, 2 * width, 2))
            self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2))
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(4 * width, 10)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
            return self.fc(torch.flatten(self.avgpool(x), 1))

    return ResNet(*state["conv1.weight"].shape[:2])


def main() -> None:
    library, threads = sys.argv[1], int(sys.argv[2])
    trainer = {"lamella": Lamella, "torch": Torch}[library](threads)
    clock = time.process_time if threads == 1 else time.perf_counter

    def say(**answer) -> None:
        print("@" + json.dumps(answer), flush=True)

    def images(first: int, last: int) -> np.ndarray:
        x = pixels[first:last].astype(np.float32)
        x *= 1 / (255 * order["std"])
        x -= order["mean"] / order["std"]
        return x

    say(version=trainer.version)
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            with np.load(order["start"]) as state:
                trainer.start(order["name"], dict(state), order["optimizer"], order["settings"], order["layout"])
            say(done=True)
            continue
        pixels, labels = np.load(order["x"], mmap_mode="r"), np.load(order["labels"])
        if "rates" in order:  # steps from number `first` on, one for each rate
            seconds, size = [], order["batch"]
            for i, lr in enumerate(order["rates"], start=order["first"]):
                x, y = images(i * size, (i + 1) * size), labels[i * size : (i + 1) * size]
                start = clock()
                trainer.step(x, y, lr)
                seconds.append(clock() - start)
            say(seconds=seconds)
        else:
            right = [
                trainer.predict(images(i, i + 500)) == labels[i : i + 500] for i in range(0, len(labels), 500)
            ]
            say(accuracy=float(np.concatenate(right).mean()))


if __name__ == "__main__":
    main()
