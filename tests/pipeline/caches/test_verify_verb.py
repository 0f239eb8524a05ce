"""`pipeline cache verify --images`: every image file that is not what the cache was made from."""

import os
import shutil

import pytest
from click.testing import CliRunner
from small_caches import coords_of, features_of, make_recipe
from small_data import write_image

from cache import write_cache
from pipeline.cli import main


def verify(*words):
    return CliRunner().invoke(main, ["cache", "verify", *map(str, words)])


def write_cache_of(path, rows):
    with write_cache(path, make_recipe(), {}) as writer:
        for i, row in enumerate(rows):
            writer.append(row, features_of(i), coords_of(3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six images, the last one with an absolute path, and a cache beside their manifest's place."""
    rows = [write_image(tmp_path / f"data/image{i}.png", i) for i in range(6)]
    paths = [*(f"data/image{i}.png" for i in range(5)), str(tmp_path / "data/image5.png")]
    rows = [row._replace(path=path) for row, path in zip(rows, paths, strict=True)]
    write_cache_of(tmp_path / "f.h5", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_faults(result, *lines):
    """Exactly these lines, in order, and the count below them."""
    assert (result.exit_code, result.stdout) == (1, "")
    *found, count = result.stderr.splitlines()
    assert len(found) == len(lines), result.stderr
    for line, (image, words) in zip(found, lines, strict=True):
        assert line.startswith(f"image {image}: ") and words in line
    assert count.startswith(f"{len(lines)} of 6 images are not what the cache was made from")


def test_images_that_did_not_change_are_sound(folder):
    result = verify("f.h5", "--images")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "f.h5: sound, and so are its images\n"


def test_every_image_that_changed_is_named_with_what_was_found_and_expected(folder):
    expected = write_image(folder / "data/image3.png", 3).sha256
    found = write_image(folder / "data/image3.png", 30).sha256
    (folder / "data/image1.png").unlink()
    (folder / "data/image5.png").write_bytes(b"")
    assert_faults(
        verify("f.h5", "--images"),
        ("image1", "data/image1.png: missing"),
        ("image3", f"has changed: found SHA-256 {found}, expected {expected}"),
        ("image5", "has changed: found SHA-256 e3b0c442"),
    )


def test_without_images_no_image_is_looked_at(folder):
    shutil.rmtree(folder / "data")
    assert verify("f.h5").stdout == "f.h5: sound\n"


def test_what_is_not_a_file_is_named_and_never_opened(folder):
    files = [folder / f"data/image{i}.png" for i in range(5)]
    for file in files[1:]:
        file.unlink()
    os.mkfifo(files[1])  # opening it would wait for ever
    files[2].mkdir()
    files[3].symlink_to("/dev/zero")
    files[4].symlink_to(files[4])
    assert_faults(
        verify("f.h5", "--images"),
        ("image1", "cannot be read (not a regular file)"),
        ("image2", "cannot be read (not a regular file)"),
        ("image3", "cannot be read (not a regular file)"),
        ("image4", "cannot be read (Too many levels of symbolic links)"),
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder):
    (folder / "data/image2.png").chmod(0)
    assert_faults(verify("f.h5", "--images"), ("image2", "cannot be read (Permission denied)"))


def test_root_is_where_relative_paths_are_looked_for_and_absolute_ones_are_not(folder):
    (folder / "moved").mkdir()
    shutil.copy("f.h5", "moved/f.h5")
    assert verify("moved/f.h5", "--images", "--root", ".").exit_code == 0
    result = verify("moved/f.h5", "--images")
    assert_faults(result, *((f"image{i}", f"moved/data/image{i}.png: missing") for i in range(5)))
    assert "see --root" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "."], "--root is for --images"),
        (["--images", "--root", "nowhere"], "does not exist"),
        (["--images", "--root", "f.h5"], "is a file"),
    ],
)
def test_a_root_that_makes_no_sense_is_wrong_usage(folder, words, message):
    result = verify("f.h5", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_faults_of_a_damaged_cache_and_those_of_its_images_are_all_listed(folder):
    content = bytearray((folder / "f.h5").read_bytes())
    content[content.index(features_of(2).astype("<f2").tobytes())] ^= 1
    (folder / "f.h5").write_bytes(content)
    (folder / "data/image4.png").unlink()
    alone = verify("f.h5").stderr
    assert alone
    result = verify("f.h5", "--images")
    assert result.exit_code == 1
    assert result.stderr.startswith(alone)
    assert "image image4: data/image4.png: missing\n1 of 6 images" in result.stderr


def test_a_file_that_is_no_cache_says_that_its_images_were_not_checked(folder):
    result = verify("data/image0.png", "--images")
    assert result.exit_code == 1
    assert "data/image0.png: its images were not checked" in result.stderr


def test_paths_that_no_file_can_have_are_named(folder):
    row = write_image(folder / "data/image0.png", 0)
    write_cache_of(folder / "f.h5", [row._replace(path="a" * 5000)])
    result = verify("f.h5", "--images")
    assert result.exit_code == 1
    assert "cannot be read (File name too long)" in result.stderr
    assert "1 of 1 images" in result.stderr


def test_large_images_are_hashed_in_little_memory(folder):
    import tracemalloc

    from pipeline.caches.sources import changed_images

    with (folder / "data/image0.png").open("r+b") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        changed, count = changed_images(folder / "f.h5", folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(changed), count) == (1, 6)
    assert peak < 8 << 20
