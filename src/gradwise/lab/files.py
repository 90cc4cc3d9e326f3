"""Where the larger data sets lie, and how their files are read. Nothing is unpickled.

Looked for in the folder that the user names, also one folder deeper and in the places where torchvision keeps them.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradwise.lab.writing import replacing
from gradwise.optim.kernels.generated import cache_folder

Array = np.ndarray[Any, Any]

_TITLES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "tinyshakespeare": "tiny Shakespeare",
    "california": "California housing",
}
_FILES = {
    "mnist": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    "cifar10": ("cifar-10-batches-bin/, cifar-10-binary.tar.gz or cifar10_jpeg.tar.xz",),
    "tinyshakespeare": ("input.txt",),
    "california": ("housing.csv",),
}
_FILES["fashion_mnist"] = _FILES["mnist"]
_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
_ARRAYS = ("train_x", "train_y", "test_x", "test_y")
_BATCH, _IMAGES = 10_000, (50_000, 10_000)  # images in a file of CIFAR-10's binary version; for training and testing
_JPEG_NOTE = "CIFAR-10 decoded from JPEG files, not the original pixels: accuracies may differ slightly from others'"


class DataError(Exception):
    """A data set that isn't there or can't be read; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """Images as (rows, channels, height, width) of uint8, their classes, and what must be said of them."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array
    note: str = ""


def folder() -> Path:
    """Where what was decoded or downloaded is kept."""
    return cache_folder() / "data"


def images(name: str, data_dir: Path | None) -> Images:
    """MNIST, Fashion-MNIST or CIFAR-10."""
    read = _cifar if name == "cifar10" else _idx_set
    for place in _places(name, data_dir):
        found = read(place)
        if found is not None:
            return found
    found = _downloaded(name)
    if found is None:
        raise _missing(name, data_dir)
    return found


def text(data_dir: Path | None) -> str:
    """Tiny Shakespeare."""
    return _only_file("tinyshakespeare", data_dir).read_text("utf-8")


def california(data_dir: Path | None) -> tuple[Array, Array]:
    """Blocks of California and the median value of a house there.

    Missing figures become the median of their column; the nearness of the ocean becomes one column per kind.
    """
    path = _only_file("california", data_dir)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        kinds = sorted({row["ocean_proximity"] for row in rows})
        names = [n for n in rows[0] if n not in ("ocean_proximity", "median_house_value")]
        columns = np.array([[float(row[n] or "nan") for n in names] for row in rows])
        values = np.array([float(row["median_house_value"]) for row in rows])
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(
            f"{path} is not the table of {_TITLES['california']} ({type(error).__name__}: {error})"
        ) from None
    columns = np.where(np.isnan(columns), np.nanmedian(columns, 0), columns)
    near = np.array([[row["ocean_proximity"] == kind for kind in kinds] for row in rows], np.float64)
    return np.concatenate([columns, near], 1), values


def _places(name: str, data_dir: Path | None) -> Iterator[Path]:
    """Folders that a set may lie in, those that exist."""
    if data_dir is None:
        return
    if not data_dir.is_dir():
        raise DataError(f"the folder of data sets {data_dir} does not exist: name another with --data-dir")
    raw = data_dir / _TORCHVISION.get(name, "") / "raw"
    for place in (data_dir, raw, *sorted(data_dir.iterdir())):
        # The two MNISTs' files have the same names: there only a folder's name tells which it is.
        itself = place == data_dir and "mnist" not in name
        if place.is_dir() and (itself or place == raw or _is_named(place, name)):
            yield place


def _is_named(place: Path, name: str) -> bool:
    """Whether a folder is named for the set: cifar-10, cifar10_data; but fashion-mnist is not mnist."""
    return place.name.lower().replace("-", "").replace("_", "").startswith(name.replace("_", ""))


def _only_file(name: str, data_dir: Path | None) -> Path:
    for place in _places(name, data_dir):
        path = place / _FILES[name][0]
        if path.is_file():
            return path
    raise _missing(name, data_dir)


def _missing(name: str, data_dir: Path | None) -> DataError:
    title, wanted = _TITLES[name], ", ".join(_FILES[name])
    if data_dir is None:
        looked = "no folder of data sets is named"
        todo = "name the folder that has it with --data-dir or in GRADWISE_DATA"
    else:
        looked = f"it is not in {data_dir}, nor in a folder of its name there"
        todo = f"put it there ({wanted}), or name another folder with --data-dir or in GRADWISE_DATA"
    if name in _TORCHVISION:
        todo += "; with torchvision installed it is downloaded"
    return DataError(f"{title} is needed, and {looked}: {todo}")


def _idx_set(place: Path) -> Images | None:
    """MNIST and Fashion-MNIST: four idx files, gzipped or not."""
    paths = [next((p for p in (place / n, place / f"{n}.gz") if p.is_file()), None) for n in _FILES["mnist"]]
    found = [_idx(path) for path in paths if path is not None]
    if len(found) < 4:
        return None
    train_x, train_y, test_x, test_y = found
    return Images(train_x[:, None], train_y, test_x[:, None], test_y)


def _idx(path: Path) -> Array:
    """An array in the idx format: two zero bytes, the type (8: uint8), the number of axes, their lengths."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from None
    axes = data[3] if len(data) > 4 else 0
    shape = np.frombuffer(data, ">u4", axes, 4) if len(data) >= 4 + 4 * axes else np.array([])
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * axes + int(np.prod(shape)):
        raise DataError(f"{path} is not a whole idx file of bytes: fetch it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _cifar(place: Path) -> Images | None:
    binary, packed, jpeg = place / "cifar-10-batches-bin", place / "cifar-10-binary.tar.gz", None
    if binary.is_dir():
        return _records([(binary / n).read_bytes() for n in _BATCHES], binary)
    if packed.is_file():
        with tarfile.open(packed) as archive:
            members = (archive.extractfile(f"cifar-10-batches-bin/{n}") for n in _BATCHES)
            return _records([m.read() for m in members if m is not None], packed)
    jpeg = place / "cifar10_jpeg.tar.xz"
    return _decoded(jpeg) if jpeg.is_file() else None


_BATCHES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")


def _records(batches: list[bytes], place: Path) -> Images:
    """The binary version: one byte for the class, 3072 for red, green and blue."""
    if any(len(b) != _BATCH * 3073 for b in batches) or len(batches) != len(_BATCHES):
        raise DataError(f"{place} is not the whole binary version of CIFAR-10: fetch it again")
    rows = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, 3073)
    x, y = rows[:, 1:].reshape(-1, 3, 32, 32).copy(), rows[:, 0].copy()
    return Images(x[: 5 * _BATCH], y[: 5 * _BATCH], x[5 * _BATCH :], y[5 * _BATCH :])


def _decoded(archive: Path) -> Images:
    """CIFAR-10 from {train,test}/<class>/NNNN.jpg in a tar; decoded once and kept as arrays in the cache."""
    stat = archive.stat()
    kept = folder() / f"cifar10-{stat.st_size}-{stat.st_mtime_ns}.npz"
    if not kept.is_file():
        arrays = _decode(archive)
        with replacing(kept) as file:
            np.savez(file, allow_pickle=False, **arrays)
    with np.load(kept, allow_pickle=False) as arrays:
        return Images(**{key: arrays[key] for key in _ARRAYS}, note=_JPEG_NOTE)


def _decode(archive: Path) -> dict[str, Array]:
    try:
        from PIL import Image
    except ImportError:
        raise DataError(f"{archive} holds JPEG files, which need Pillow: pip install 'gradwise[lab]'") from None
    read: dict[str, list[tuple[str, str, Array]]] = {"train": [], "test": []}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = member.name.removeprefix("./").split("/")
            file = tar.extractfile(member) if len(parts) == 3 and parts[0] in read else None
            if file is not None and parts[2].endswith(".jpg"):
                with Image.open(io.BytesIO(file.read())) as image:
                    pixels = np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1)
                read[parts[0]].append((parts[1], parts[2], pixels))
    classes = sorted({name for name, _, _ in read["train"]})
    if len(classes) != 10 or (len(read["train"]), len(read["test"])) != _IMAGES:
        raise DataError(f"{archive} does not hold the 50,000 and 10,000 images of CIFAR-10: fetch it again")
    arrays = {}
    for part, images in read.items():
        images.sort(key=lambda image: image[:2])
        arrays[f"{part}_x"] = np.stack([pixels for _, _, pixels in images])
        arrays[f"{part}_y"] = np.array([classes.index(name) for name, _, _ in images], np.uint8)
    return arrays


def _downloaded(name: str) -> Images | None:
    """What torchvision downloads into the cache, where it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    from torchvision import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]

    made = getattr(datasets, _TORCHVISION[name])
    parts: list[Array] = []
    for train in (True, False):
        try:
            kept = made(str(folder()), train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"torchvision could not fetch {_TITLES[name]} ({error}); name a folder with --data-dir"
            ) from None
        x = np.asarray(kept.data)
        x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
        parts += [np.ascontiguousarray(x), np.asarray(kept.targets, np.uint8)]
    train_x, train_y, test_x, test_y = parts
    return Images(train_x, train_y, test_x, test_y)
