"""Hugging Face data sets: parquet, arrow, and what the library itself saves."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ghostify.data import tables
from ghostify.data.images import has_split, open_images
from ghostify.errors import CorruptImageError, DataError
from tests.data import sources
from tests.data.sources import cells, table, write_parquet


def pixels_of(image: Image.Image) -> sources.Pixels:
    return np.asarray(image)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def hub_set(count: int) -> datasets.Dataset:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"image": cells(count), "label": [i % 2 for i in range(count)]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_parquet_file_of_the_library(tmp_path: Path) -> None:
    made = hub_set(3)
    made.to_parquet(tmp_path / "a.parquet")

    images = open_images(tmp_path / "a.parquet")

    assert images.labels.tolist() == [0, 1, 0]
    assert images.classes == ("no", "yes")
    for index in range(3):
        assert np.array_equal(pixels_of(images.load(index)), np.asarray(made[index]["image"]))


def test_a_part_named_by_the_path(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        hub_set(count).to_parquet(tmp_path / f"{part}.parquet")

    assert open_images(tmp_path / "train").labels.tolist() == [0, 1, 0]
    assert open_images(tmp_path / "test", split="test").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no such data: .*/val; .* has test, train"):
        open_images(tmp_path / "val")


def test_large_files_go_through_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub_set(3).to_parquet(tmp_path / "a.parquet")
    capfd.readouterr()
    small = open_images(tmp_path / "a.parquet")
    monkeypatch.setattr(tables, "IN_MEMORY_BYTES", 0)

    large = open_images(tmp_path / "a.parquet")

    assert large.labels.tolist() == small.labels.tolist()
    assert large.classes == small.classes
    assert large.digest == small.digest
    assert np.array_equal(pixels_of(large.load(2)), pixels_of(small.load(2)))
    assert capfd.readouterr().err == ""  # no progress bar


def test_a_saved_data_set(tmp_path: Path) -> None:
    hub_set(3).save_to_disk(tmp_path / "saved")

    images = open_images(tmp_path / "saved", split="test")

    assert images.labels.tolist() == [0, 1, 0]
    assert images.classes == ("no", "yes")
    assert np.array_equal(pixels_of(images.load(1)), sources.noise(8, 8, 3, seed=1))
    assert len(images.digest) == 64


def test_a_saved_selection_keeps_its_order(tmp_path: Path) -> None:
    """The library saves which rows were selected beside all rows, or the rows themselves."""
    hub_set(4).select([3, 1]).save_to_disk(tmp_path / "saved")

    images = open_images(tmp_path / "saved")

    assert images.labels.tolist() == [1, 1]
    assert np.array_equal(pixels_of(images.load(0)), sources.noise(8, 8, 3, seed=3))


def test_a_saved_dictionary_has_parts(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": hub_set(3), "validation": hub_set(2)})
    parts.save_to_disk(tmp_path / "saved")

    assert has_split(tmp_path / "saved", "test")
    assert len(open_images(tmp_path / "saved", split="test")) == 2
    assert len(open_images(tmp_path / "saved", split="train")) == 3
    with pytest.raises(DataError, match=r"several parts \(train, validation\); choose one"):
        open_images(tmp_path / "saved")


def test_an_arrow_file(tmp_path: Path) -> None:
    hub_set(3).save_to_disk(tmp_path / "saved")
    file = next((tmp_path / "saved").glob("*.arrow"))

    images = open_images(file)

    assert images.labels.tolist() == [0, 1, 0]
    assert images.classes == ("no", "yes")
    assert images.load(2).size == (8, 8)


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (["train.parquet", "test.parquet"], {"train": 2, "test": 2}),
        (
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val.parquet"],
            {"train": 4, "val": 2},
        ),
        (["data/train-00000-of-00001.parquet", "data/test-0.parquet"], {"train": 2, "test": 2}),
        (["plain_text/train-00000-of-00001.parquet", "README.md"], {"train": 2}),
        (["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"], {"train": 4}),
        (["default/train/0000.parquet", "default/test/0000.parquet"], {"train": 2, "test": 2}),
        (["part-0.parquet", "part-1.parquet"], {"": 4}),
        (["Train.parquet", "Test.parquet"], {"Train": 2, "test": 2}),
    ],
)
def test_directories_of_parquet(tmp_path: Path, files: list[str], parts: dict[str, int]) -> None:
    for number, file in enumerate(files):
        if file.endswith("parquet"):
            write_parquet(tmp_path / file, table(cells(2, first=10 * number), [0, 1]))
        else:
            (tmp_path / file).write_text("")

    for part, count in parts.items():
        assert len(open_images(tmp_path, split=part or "train")) == count
        assert has_split(tmp_path, part or "train") == bool(part)


def test_validation_stands_in_for_a_test_without_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on the hub's ImageNet; who asks for the part by another name gets that."""
    write_parquet(tmp_path / "train.parquet", table(cells(1), [0]))
    write_parquet(tmp_path / "validation.parquet", table(cells(2), [0, 1]))
    write_parquet(tmp_path / "test.parquet", table(cells(3), [-1, -1, -1]))

    assert len(open_images(tmp_path, split="test")) == 2
    assert caplog.messages == [f"{tmp_path} (test) has no labels; {tmp_path} (validation) is taken"]
    assert len(open_images(tmp_path, split="validation")) == 2


def test_a_labelled_test_comes_before_validation(tmp_path: Path) -> None:
    write_parquet(tmp_path / "validation.parquet", table(cells(2), [0, 1]))
    write_parquet(tmp_path / "test.parquet", table(cells(3), [0, 1, 0]))

    assert len(open_images(tmp_path, split="test")) == 3
    assert len(open_images(tmp_path, split="val")) == 2


def test_shards_come_in_order(tmp_path: Path) -> None:
    for shard in range(3):
        made = table(cells(2, first=10 * shard), [shard, shard])
        write_parquet(tmp_path / f"train-0000{shard}-of-00003.parquet", made)

    images = open_images(tmp_path)

    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(pixels_of(images.load(5)), sources.noise(8, 8, 3, seed=21))


def test_class_names_may_occur_twice(tmp_path: Path) -> None:
    """Two of ImageNet's classes are called "crane", which the library itself refuses."""
    made = table(cells(2), [0, 2], names=["crane", "heron", "crane"])

    images = open_images(write_parquet(tmp_path / "a.parquet", made))

    assert images.classes == ("crane", "heron", "crane")


@pytest.mark.parametrize("columns", [("img", "fine_label"), ("image", "labels"), ("jpg", "cls")])
def test_columns_go_by_their_usual_names(tmp_path: Path, columns: tuple[str, str]) -> None:
    made = table(cells(2), [1, 0], columns=columns)

    assert open_images(write_parquet(tmp_path / "a.parquet", made)).labels.tolist() == [1, 0]


def test_columns_go_by_their_types(tmp_path: Path) -> None:
    made = table(cells(2), [1, 0], columns=("photo", "species"), names=["a", "b"])

    images = open_images(write_parquet(tmp_path / "a.parquet", made))

    assert images.labels.tolist() == [1, 0]
    assert images.classes == ("a", "b")


def test_a_table_without_images_lists_its_columns(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", pa.table({"x": [1], "y": ["a"]}))

    with pytest.raises(
        DataError, match=r"no column of images: looked for image, img,.* found x, y"
    ):
        open_images(file)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [-1, -1, -1]),
        ([0, None, 2], [0, -1, 2]),
        ([0.0, math.nan, 2.0], [0, -1, 2]),
        ([math.nan] * 3, [-1, -1, -1]),
        ([None, None, None], [-1, -1, -1]),
        ([-1, -1, -1], [-1, -1, -1]),
        ([True, None, False], [1, -1, 0]),
        (["dog", "cat", None], [1, 0, -1]),
        (pa.array(["dog", "cat", "dog"]).dictionary_encode(), [1, 0, 1]),
        (pa.array([3, 4, 5], pa.uint8()), [3, 4, 5]),
    ],
)
def test_labels_of_all_kinds(tmp_path: Path, labels: Any, expected: list[int]) -> None:
    made = table(cells(3), None)
    if labels is not None:
        made = made.append_column("label", labels if isinstance(labels, pa.Array) else [labels])

    images = open_images(write_parquet(tmp_path / "a.parquet", made))

    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == expected


def test_text_labels_are_numbered_alike_in_all_parts(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", table(cells(2), ["ape", "dog"]))
    write_parquet(tmp_path / "test.parquet", table(cells(2), ["dog", "cat"]))

    images = open_images(tmp_path, split="test")

    assert images.classes == ("ape", "cat", "dog")
    assert images.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1.5], r"a label must be a whole number from 0, .* \(row 1 has 1\.5\)"),
        ([0, -2], r"a label must be a whole number from 0, .* \(row 1 has -2\)"),
        ([0, 1e30], r"\(row 1 has 1e\+30\); mend the column label"),
        ([0, 2**60], r"\(row 1 has 1\.15292e\+18\)"),
        ([0, math.inf], r"\(row 1 has inf\)"),
        ([[0], [1, 2]], r"must hold one class number for each image \(got list"),
    ],
)
def test_impossible_labels_are_refused(tmp_path: Path, labels: list[Any], message: str) -> None:
    file = write_parquet(tmp_path / "a.parquet", table(cells(2), labels))

    with pytest.raises(DataError, match=message):
        open_images(file)


def test_cells_of_all_kinds(tmp_path: Path) -> None:
    pixels = sources.noise(8, 8, 3)
    sources.write_image(tmp_path / "beside.png", pixels)
    for number, cell in enumerate(
        [
            sources.png(pixels),
            {"bytes": sources.png(pixels), "path": None},
            {"bytes": None, "path": "beside.png"},
            "beside.png",
            str(tmp_path / "beside.png"),
            pixels.tolist(),
        ]
    ):
        file = write_parquet(tmp_path / f"{number}.parquet", table([cell], [0]))

        assert np.array_equal(pixels_of(open_images(file).load(0)), pixels), cell


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ({"bytes": b"text", "path": "a.jpg"}, "a.jpg: no image of a known format"),
        ({"bytes": None, "path": "gone.jpg"}, "gone.jpg: No such file or directory"),
        (b"", "no image of a known format"),
        (None, "the cell is empty"),
        (7, "no image in the cell"),
        ([1, 300], "no HxW or HxWxC numbers from 0 to 255"),
        ([], "no HxW or HxWxC numbers from 0 to 255"),
    ],
)
def test_cells_without_an_image_are_reported(tmp_path: Path, cell: Any, why: str) -> None:
    images = open_images(write_parquet(tmp_path / "a.parquet", table([cell], [0])))

    with pytest.raises(CorruptImageError) as caught:
        images.load(0)

    assert (caught.value.index, caught.value.why) == (0, why)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=rf"{name} cannot be read as a table \(.*; make the file"):
        open_images(tmp_path / name)


def test_a_table_cut_short_is_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", table(cells(3), [0, 1, 0]))
    file.write_bytes(file.read_bytes()[:-50])

    with pytest.raises(DataError, match=r"a\.parquet cannot be read as a table"):
        open_images(file)


def test_shards_that_differ_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", table(cells(1), [0]))
    write_parquet(tmp_path / "train-1.parquet", table(cells(1), ["a"]))

    with pytest.raises(DataError, match="cannot be read as a table"):
        open_images(tmp_path)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    made = table(cells(1), [0]).slice(0, 0)

    with pytest.raises(DataError, match="has no images: the table has no rows"):
        open_images(write_parquet(tmp_path / "a.parquet", made))


@pytest.mark.parametrize("damage", ["dataset_dict.json", "train/state.json", "train/arrow"])
def test_a_damaged_saved_set_is_named(tmp_path: Path, damage: str) -> None:
    datasets.DatasetDict({"train": hub_set(2)}).save_to_disk(tmp_path / "saved")
    if damage == "train/arrow":
        next((tmp_path / "saved" / "train").glob("*.arrow")).write_bytes(b"x")
    else:
        (tmp_path / "saved" / damage).write_text("{")

    with pytest.raises(DataError, match="saved"):
        open_images(tmp_path / "saved", split="train")


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_set_survives_pickling(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.parquet"
    if kind == "saved":
        path = tmp_path / "saved"
        hub_set(3).save_to_disk(path)
    else:
        hub_set(3).to_parquet(path)
    images = open_images(path)

    again = pickle.loads(pickle.dumps(images))

    assert len(pickle.dumps(images)) < 2000  # the files, not their content
    assert np.array_equal(pixels_of(again.load(1)), pixels_of(images.load(1)))
    assert again.digest == images.digest
