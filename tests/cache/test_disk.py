"""A disk that refuses costs the file, never the process or what was published before."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache.disk import Disk, open_disk

SUPPORT = Path(__file__).parents[1] / "support"

LIMITED = """
import resource, sys
from pathlib import Path
from small_caches import make_recipe, make_row
import numpy as np
from cache import PublishError, write_cache
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with write_cache(sys.argv[1], make_recipe(feature_dim=512), {}) as writer:
        for i in range(200):
            coords = np.zeros((6, 2), np.int32)
            writer.append(make_row(f"image{i}"), np.ones((6, 512), np.float32), coords)
except PublishError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("limit", [0, 100, 5_000, 100_000, 600_000, 1_300_000])
def test_a_file_that_may_not_grow_is_an_error_that_names_it_and_no_crash(tmp_path, limit):
    out = tmp_path / "f.h5"
    out.write_text("what was there before")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(out), str(limit)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert f"{out}: cannot be written (File too large)" in done.stdout
    assert out.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [out]


def test_hdf5_never_sees_a_full_disk():
    """/dev/full answers every write with ENOSPC."""
    descriptor = os.open("/dev/full", os.O_RDWR)
    try:
        disk = Disk(descriptor)
        values = np.arange(300_000)
        with h5py.File("any name", "w", driver="fileobj", fileobj=disk) as file:
            file.create_dataset("values", data=values, chunks=(1000,), fletcher32=True)
            file.flush()
            np.testing.assert_array_equal(file["values"][:], values)
        with pytest.raises(OSError, match="No space left"):
            disk.raise_error()
    finally:
        os.close(descriptor)


def test_the_error_is_raised_when_the_file_is_left(tmp_path):
    with pytest.raises(OSError, match="No space left"), open_disk(Path("/dev/full")) as disk:
        disk.write(memoryview(b"x"))


def test_a_sound_disk_holds_what_hdf5_wrote(tmp_path):
    (tmp_path / "f.h5").touch()
    with (
        open_disk(tmp_path / "f.h5") as disk,
        h5py.File("any name", "w", driver="fileobj", fileobj=disk) as file,
    ):
        file["values"] = np.arange(1000)
    with h5py.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(file["values"][:], np.arange(1000))
