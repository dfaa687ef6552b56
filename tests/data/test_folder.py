"""Folders of image files, with all that people leave in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostify.data.images import has_split, open_images
from ghostify.errors import CorruptImageError, DataError
from ghostify.models.torchvision_import import import_beside_torchvision
from tests.data import sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, files of several kinds and depths."""
    root = tmp_path / "photos"
    for number, name in enumerate(
        ["dog/b.png", "dog/A.PNG", "cat/deep/x.jpg", "cat/deep/a/y.bmp", "cat/z.webp", "ape/1.ppm"]
    ):
        sources.write_image(root / name, sources.noise(8, 9, 3, seed=number))
    (root / "dog" / "notes.txt").write_text("no image")
    return root


def test_the_order_is_that_of_torchvision(folder: Path) -> None:
    images = open_images(folder)

    theirs = import_beside_torchvision("torchvision.datasets").ImageFolder(folder)
    assert images.classes == tuple(theirs.classes) == ("ape", "cat", "dog")
    assert images.labels.tolist() == theirs.targets
    for index in range(len(theirs)):
        assert np.array_equal(np.asarray(images.load(index)), np.asarray(theirs[index][0]))


def test_hidden_files_and_folders_are_passed_over(folder: Path) -> None:
    sources.write_image(folder / ".ipynb_checkpoints" / "a.png", sources.noise(8, 8, 3))
    sources.write_image(folder / "dog" / ".thumbs" / "a.png", sources.noise(8, 8, 3))
    (folder / "dog" / "._b.png").write_bytes(b"\0\5\x16\7")

    images = open_images(folder)

    assert len(images) == 6
    assert images.classes == ("ape", "cat", "dog")


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_parts_go_by_their_usual_names(tmp_path: Path, test: str) -> None:
    sources.write_image(tmp_path / "train" / "cat" / "1.png", sources.noise(8, 8, 3))
    sources.write_image(tmp_path / test / "cat" / "1.png", sources.noise(8, 8, 3))
    sources.write_image(tmp_path / test / "dog" / "2.png", sources.noise(8, 8, 3))
    (tmp_path / "meta").mkdir()

    assert has_split(tmp_path, "test")
    assert len(open_images(tmp_path, split="test")) == 2
    assert len(open_images(tmp_path, split="train")) == 1


def test_a_class_that_one_part_lacks_keeps_its_number(tmp_path: Path) -> None:
    for name in ("train/ape/1.png", "train/cat/1.png", "val/cat/1.png"):
        sources.write_image(tmp_path / name, sources.noise(8, 8, 3))

    images = open_images(tmp_path, split="test")

    assert images.classes == ("ape", "cat")
    assert images.labels.tolist() == [1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train/1.png", "car/1.png", "ship/1.png"):
        sources.write_image(tmp_path / name, sources.noise(8, 8, 3))

    assert open_images(tmp_path).classes == ("car", "ship", "train")
    assert not has_split(tmp_path, "train")


def test_plain_files_have_no_labels(tmp_path: Path) -> None:
    for number in range(3):
        sources.write_image(tmp_path / f"{number}.png", sources.noise(8, 8, 3))

    images = open_images(tmp_path, split="train")

    assert images.labels.tolist() == [-1, -1, -1]
    assert images.classes == ()


def test_one_part_needs_no_choice(tmp_path: Path) -> None:
    sources.write_image(tmp_path / "train" / "cat" / "1.png", sources.noise(8, 8, 3))

    assert len(open_images(tmp_path)) == 1
    with pytest.raises(DataError, match="has no part 'test', but train; choose one by --split"):
        open_images(tmp_path, split="test")


@pytest.mark.parametrize("below", ["", "cat", "train/cat"])
def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)

    with pytest.raises(DataError, match=r"has no images: looked for \.jpg, \.jpeg, \.png"):
        open_images(tmp_path)


def test_turned_photographs_are_set_upright(tmp_path: Path) -> None:
    """As every viewer shows them."""
    pixels = sources.noise(6, 8, 3)
    upright = Image.fromarray(pixels)
    for orientation, turn in (
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),  # stored turned left, to be turned right
        (8, Image.Transpose.ROTATE_270),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright.transpose(turn).save(tmp_path / f"{orientation}.png", exif=exif)

    images = open_images(tmp_path)

    for index in range(3):
        assert np.array_equal(np.asarray(images.load(index)), pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_no_harm(tmp_path: Path) -> None:
    image = Image.fromarray(sources.noise(8, 8, 3))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")

    assert open_images(tmp_path).load(0).size == (8, 8)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no image of a known format"),
        (b"this is text", "no image of a known format"),
        (sources.png(sources.noise(32, 32, 3))[:200], "1.png: "),
        (sources.png(sources.noise(32, 32, 3))[:20], "1.png: "),
    ],
)
def test_what_is_no_image_is_reported_by_index(tmp_path: Path, content: bytes, why: str) -> None:
    sources.write_image(tmp_path / "0.png", sources.noise(8, 8, 3))
    (tmp_path / "1.png").write_bytes(content)
    images = open_images(tmp_path)

    with pytest.raises(CorruptImageError) as caught:
        images.load(1)

    assert caught.value.index == 1
    assert why in caught.value.why
    assert str(caught.value).startswith("image 1 cannot be read (1.png: ")
    assert pickle.loads(pickle.dumps(caught.value)).why == caught.value.why


def test_an_image_that_has_gone_is_reported(folder: Path) -> None:
    images = open_images(folder)
    (folder / "dog" / "b.png").unlink()

    with pytest.raises(CorruptImageError, match=r"dog/b\.png: No such file"):
        images.load(5)


def test_links_in_a_circle_come_to_an_end(folder: Path) -> None:
    (folder / "dog" / "again").symlink_to(folder / "dog")

    assert len(open_images(folder)) == 6


def test_names_need_no_encoding(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    with open(file, "wb") as stream:  # noqa: PTH123
        stream.write(sources.png(sources.noise(8, 8, 3)))

    images = open_images(tmp_path)

    assert images.load(0).size == (8, 8)
    assert len(images.digest) == 64


def test_a_set_survives_pickling(folder: Path) -> None:
    images = open_images(folder)

    again = pickle.loads(pickle.dumps(images))

    assert np.array_equal(np.asarray(again.load(2)), np.asarray(images.load(2)))
    assert again.digest == images.digest


def test_the_digest_follows_names_sizes_and_labels(folder: Path) -> None:
    first = open_images(folder).digest

    assert open_images(folder).digest == first
    (folder / "dog" / "b.png").rename(folder / "dog" / "c.png")
    renamed = open_images(folder).digest
    assert renamed != first
    with (folder / "dog" / "c.png").open("ab") as stream:
        stream.write(b"\0")
    assert open_images(folder).digest not in (first, renamed)


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        open_images(tmp_path / ("x" * 1000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "dog").chmod(0)

    with pytest.raises(DataError, match="dog cannot be read: Permission denied"):
        open_images(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no such data: "),
        ("cifar-10-python.tar.gz", "is packed; unpack it and give the directory"),
        ("a.zip", "is packed; unpack it"),
        ("a.csv", "is no set of images; give a directory, or a .parquet or .arrow file"),
        ("a.png", "is no set of images; give a directory"),
    ],
)
def test_what_is_no_set_of_images_is_refused(tmp_path: Path, name: str, message: str) -> None:
    if name != "none":
        (tmp_path / name).write_bytes(b"x")

    with pytest.raises(DataError) as caught:
        open_images(tmp_path / name)

    assert message in str(caught.value)
