"""Data sets: split once, standardized by training rows, found where users keep them, refused in plain words."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradwise.lab import files
from gradwise.lab.data import BUNDLED, DataError, Split, load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWISE_CACHE", str(tmp_path / "cache"))
    load.cache_clear()


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_are_standardized_by_their_training_rows(name: str) -> None:
    data = load(name)
    axes = (0, 2, 3) if data.train.x.dim() == 4 else (0,)
    spread, mean = torch.std_mean(data.train.x.double(), axes, correction=0)
    assert mean.abs().max() < 1e-5
    assert ((spread - 1).abs() < 1e-4).all() or name == "digits"
    assert len(data.validation) == len(data.test) == pytest.approx(0.2 * len(data.train) / 0.6, rel=0.05)
    assert data.train.x.dtype == torch.float32
    if data.classes:
        assert sorted(set(data.train.y.tolist())) == list(range(data.classes))
        shares = [torch.bincount(s.y, minlength=data.classes) / len(s) for s in (data.train, data.test)]
        assert (shares[0] - shares[1]).abs().max() < 0.03, "each class has its share of each part"
    else:
        assert data.train.y.shape == (len(data.train), 1)
        assert float(data.train.y.mean().abs()) < 1e-5


def test_the_parts_are_apart_and_always_the_same() -> None:
    from sklearn.datasets import load_wine

    data = load("wine")
    rows = torch.cat([data.train.x, data.validation.x, data.test.x])
    assert len(rows) == len(load_wine().target)
    assert len(torch.unique(rows, dim=0)) == len(rows)
    load.cache_clear()
    assert torch.equal(load("wine").test.x, data.test.x)
    assert len(data.first(10).train) == 10
    assert torch.equal(data.first(10).train.x, data.train.x[:10])


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def images(folder: Path, seed: int, packed: bool = True) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for name, rows in (("train", 200), ("t10k", 50)):
        x = random.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        y = np.arange(rows, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            data = idx(array)
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)


def test_the_two_mnists_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images(tmp_path / "mnist", 1)
    images(tmp_path / "FashionMNIST" / "raw", 2, packed=False)
    digits, fashion = load("mnist", tmp_path), load("fashion_mnist", tmp_path)
    assert digits.shape == fashion.shape == (1, 28, 28)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (180, 20, 50)
    assert not torch.equal(digits.test.x, fashion.test.x)
    assert float(digits.train.x.mean()) == pytest.approx(0, abs=1e-5)
    assert torch.equal(load("mnist", tmp_path / "mnist").test.x, digits.test.x), "the set's own folder will do"
    with pytest.raises(DataError, match="Fashion-MNIST is needed, and it is not in"):
        load("fashion_mnist", tmp_path / "mnist")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    images(tmp_path / "mnist", 1, packed=False)
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not a whole idx file of bytes: fetch it again"):
        load("mnist", tmp_path)
    path.unlink()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"ubyte\.gz cannot be read"):
        load("mnist", tmp_path)


def cifar_tar(folder: Path, rows: tuple[int, int] = (50_000, 10_000)) -> None:
    """A tar of as many JPEG files as CIFAR-10 has; few different ones, each class of one colour."""
    from PIL import Image

    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar10_jpeg.tar.xz", "w:xz", preset=0) as tar:
        for part, many in zip(("train", "test"), rows, strict=True):
            for label in range(10):
                file = io.BytesIO()
                Image.new("RGB", (32, 32), (25 * label, 128, 255 - 25 * label)).save(file, "jpeg")
                for k in range(many // 10):
                    member = tarfile.TarInfo(f"{part}/class{label}/{k:04}.jpg")
                    member.size = len(file.getvalue())
                    tar.addfile(member, io.BytesIO(file.getvalue()))


def test_cifar_from_jpeg_files_is_decoded_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    monkeypatch.setattr(files, "_IMAGES", (2_000, 400))
    cifar_tar(tmp_path / "cifar10", (2_000, 400))
    data = load("cifar10", tmp_path)
    assert data.shape == (3, 32, 32)
    assert (len(data.train), len(data.validation), len(data.test)) == (1_800, 200, 400)
    assert "decoded from JPEG" in data.note
    red = [float(data.test.x[data.test.y == k, 0].mean()) for k in range(10)]
    assert red == sorted(red), "classes keep their pictures"
    monkeypatch.setattr(files, "_decode", lambda archive: pytest.fail("it was decoded before"))
    load.cache_clear()
    assert torch.equal(load("cifar10", tmp_path).test.x, data.test.x)


def test_an_incomplete_archive_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    cifar_tar(tmp_path / "cifar10", (100, 20))
    with pytest.raises(DataError, match=r"does not hold the 50,000 and 10,000 images of CIFAR-10"):
        load("cifar10", tmp_path)


def test_jpeg_files_need_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar10_jpeg.tar.xz").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"holds JPEG files, which need Pillow: pip install 'gradwise\[lab\]'"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_in_its_binary_version(tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BATCH", 100)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        rows = random.integers(0, 256, (100, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(100) % 10
        (folder / name).write_bytes(rows.tobytes())
    if packed:
        with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
            tar.add(folder, "cifar-10-batches-bin")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    data = load("cifar10", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test), data.note) == (450, 50, 100, "")
    if not packed:
        (folder / "test_batch.bin").write_bytes(b"short")
        load.cache_clear()
        with pytest.raises(DataError, match="is not the whole binary version of CIFAR-10"):
            load("cifar10", tmp_path)


def test_torchvision_fetches_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool, bool]] = []

    def made(root: str, train: bool, download: bool) -> Any:
        asked.append((root, train, download))
        rows = 100 if train else 20
        return types.SimpleNamespace(data=torch.zeros(rows, 28, 28, dtype=torch.uint8) + torch.arange(28).byte(),
                                     targets=torch.arange(rows) % 10)  # fmt: skip

    module = types.ModuleType("torchvision")
    module.datasets = types.SimpleNamespace(MNIST=made)  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "torchvision", module)
    data = load("mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert asked == [(str(tmp_path / "cache" / "data"), train, True) for train in (True, False)]


def test_text_and_tables(tmp_path: Path) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("to be or not to be " * 20)
    text = load("tinyshakespeare", tmp_path)
    assert text.classes == len(set("to be or not to be "))
    assert torch.equal(text.train.x[1:], text.train.y[:-1]), "the target is the character that follows"
    windows = text.train.windows(10)
    assert windows.x.shape == (len(text.train) // 10, 10)
    assert torch.equal(windows.x[:, 1:], windows.y[:, :-1])

    head = "longitude,latitude,total_bedrooms,median_house_value,ocean_proximity\n"
    rows = "".join(f"{k},{2 * k},{'' if k % 7 == 0 else k},{1000 + 10 * k},{'INLAND' if k % 2 else 'ISLAND'}\n"
                   for k in range(50))  # fmt: skip
    (tmp_path / "california-housing").mkdir()
    (tmp_path / "california-housing" / "housing.csv").write_text(head + rows)
    table = load("california", tmp_path)
    assert table.shape == (5,), "three columns, two kinds of nearness"
    assert torch.isfinite(table.train.x).all()
    (tmp_path / "california-housing" / "housing.csv").write_text("a,b\n1,2\n")
    load.cache_clear()
    with pytest.raises(DataError, match=r"housing\.csv is not the table of California housing"):
        load("california", tmp_path)


def test_what_is_not_there_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"there is no data set 'mnits'; there are digits, .*california"):
        load("mnits")
    with pytest.raises(DataError, match=r"CIFAR-10 is needed, and no folder of data sets is named: .* --data-dir"):
        load("cifar10")
    with pytest.raises(DataError, match=r"MNIST is needed, and it is not in .*: put it there \(train-images-idx3"):
        load("mnist", tmp_path)
    with pytest.raises(DataError, match=r"the folder of data sets .*/none does not exist: name another"):
        load("mnist", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"digits comes with scikit-learn, .* pip install 'gradwise\[lab\]'"):
        load("digits")


def test_the_first_rows_of_a_split() -> None:
    split = Split(torch.arange(6.0).view(3, 2), torch.arange(3))
    assert len(split) == 3
    assert split.first(2).y.tolist() == [0, 1]
