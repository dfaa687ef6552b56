"""The official CIFAR archives, and what poses as one."""

from __future__ import annotations

import builtins
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ghostify.data.images import has_split, open_images
from ghostify.errors import DataError
from ghostify.models.torchvision_import import import_beside_torchvision
from tests.data import sources


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickled_batches_are_read_in_order(tmp_path: Path, protocol: int) -> None:
    folder, pixels = sources.cifar_py(tmp_path, protocol=protocol)

    images = open_images(folder, split="train")

    assert len(images) == 20
    assert images.labels.tolist() == [(b + i) % 10 for b in range(5) for i in range(4)]
    assert images.classes == tuple(f"class{i}" for i in range(10))
    expected = pixels[1, 2].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(images.load(6)), expected)


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    """The official files: an array's parts are text of Python 2, which is bytes to Python 3."""
    folder, pixels = sources.cifar_py(tmp_path)
    rows = pixels[0].tobytes()
    (folder / "test_batch").write_bytes(
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        b"U\x01b\x87R(K\x01K\x04M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(rows).to_bytes(4, "little")
        + rows
        + b"tbU\x06labels](K\x03K\x01K\x04K\x01eu."
    )

    images = open_images(folder, split="test")

    assert images.labels.tolist() == [3, 1, 4, 1]
    expected = pixels[0, 1].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(images.load(1)), expected)


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's class checks hashes first, which a made-up archive cannot have."""
    folder, _ = sources.cifar_py(tmp_path)
    vision = import_beside_torchvision("torchvision.datasets")
    monkeypatch.setattr(vision.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)

    ours = open_images(folder, split="test")

    theirs = vision.CIFAR10(tmp_path, train=False)
    assert len(ours) == len(theirs) == 4
    assert ours.classes == tuple(theirs.classes)
    for index in range(4):
        image, label = theirs[index]
        assert label == ours.labels[index]
        assert np.array_equal(np.asarray(image), np.asarray(ours.load(index)))


def test_binary_batches_hold_the_same_images(tmp_path: Path) -> None:
    pickled = open_images(sources.cifar_py(tmp_path)[0], split="test")

    binary = open_images(sources.cifar_bin(tmp_path)[0], split="test")

    assert binary.labels.tolist() == pickled.labels.tolist()
    assert binary.classes == pickled.classes
    for index in range(4):
        assert np.array_equal(np.asarray(binary.load(index)), np.asarray(pickled.load(index)))


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    sources.cifar_bin(tmp_path)

    assert has_split(tmp_path, "test")
    assert len(open_images(tmp_path, split="validation")) == 4


def test_cifar_100_has_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    batch = {b"data": sources.noise(2, 3072), b"fine_labels": [7, 99], b"coarse_labels": [1, 2]}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {b"fine_label_names": [f"f{i}".encode() for i in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(meta))

    images = open_images(folder, split="train")

    assert images.labels.tolist() == [7, 99]
    assert images.classes[99] == "f99"


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.getattr])
def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, function: Any) -> None:
    folder, _ = sources.cifar_py(tmp_path)
    trace = tmp_path / "trace"
    command = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Malicious(function, command)}))

    with pytest.raises(DataError, match=r"data_batch_3 is no CIFAR batch: it asks for \w+\.\w+"):
        open_images(folder, split="train")

    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no CIFAR batch, or damaged; unpack it again"),
        (b"\x80\x02 nonsense", "is no CIFAR batch, or damaged"),
        (pickle.dumps([1, 2]), "is no CIFAR batch: it holds a list"),
        (pickle.dumps({b"labels": []}), "its 'data' are no bytes"),
        (
            pickle.dumps({b"data": sources.noise(2, 3072), b"labels": [1]}),
            "is damaged: 2 images, but 1 labels",
        ),
        (
            pickle.dumps({b"data": sources.noise(2, 100), b"labels": [1, 2]}),
            "'data' must be Nx3072 (got 2x100)",
        ),
        (
            pickle.dumps({b"data": sources.noise(2, 3072), b"labels": [1, -2]}),
            "'labels' is no list of whole numbers from 0",
        ),
        (
            pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}),
            "its 'data' are no bytes",
        ),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    folder, _ = sources.cifar_py(tmp_path)
    (folder / "test_batch").write_bytes(content)

    with pytest.raises(DataError) as caught:
        open_images(folder, split="test")

    assert message in str(caught.value)
    assert str(folder / "test_batch") in str(caught.value)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    folder, _ = sources.cifar_py(tmp_path)
    (folder / "data_batch_4").unlink()

    with pytest.raises(DataError, match="incomplete archive: data_batch_4 is missing; unpack it"):
        open_images(folder, split="train")


def test_a_cut_binary_batch_is_noticed(tmp_path: Path) -> None:
    folder, _ = sources.cifar_bin(tmp_path)
    file = folder / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(DataError, match="must be a multiple of 3073 bytes"):
        open_images(folder, split="test")


def test_both_parts_need_a_choice(tmp_path: Path) -> None:
    folder, _ = sources.cifar_py(tmp_path)

    with pytest.raises(
        DataError, match=r"has several parts \(train, test\); choose one by --split"
    ):
        open_images(folder)
