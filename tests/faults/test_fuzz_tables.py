"""Damaged manifests and splits are read or refused, never anything else, at once."""

import csv
import random

from fuzz_targets import study, table
from fuzzing import TEXT, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, ImageRow
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import PipelineError
from pipeline.splits.table import COLUMNS, ROLES, read_splits


def test_an_input_follows_from_its_seed():
    data = table(ImageRow._fields, study())
    one, same, other = (mutated(random.Random(seed), data, TEXT) for seed in ("1-7", "1-7", "1-8"))
    assert one == same != other


ANY = st.one_of(
    st.text(max_size=12),
    st.integers(-10, 2**70).map(str),
    st.sampled_from(["benign", "malignant", "0" * 64, "100", "a", "../a", "a\nb", "x" * 5000]),
)
VALID = st.builds(
    ImageRow,
    image_id=st.sampled_from([row.image_id for row in study()]),
    path=st.just("a.png"),
    label=st.sampled_from(["benign", "malignant"]),
    subtype=st.just(""),
    slide=st.just("s"),
    case=st.just("c"),
    magnification=st.sampled_from(["", 40, 100]),
    width=st.integers(0, 2**31 - 1),
    height=st.integers(0, 2**31 - 1),
    sha256=st.just("0" * 64),
)


@settings(max_examples=150)
@given(
    rows=st.lists(VALID, max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), ANY), max_size=3),
    columns=st.permutations(range(10)),
    more=st.lists(st.text(max_size=8), max_size=2),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_values_in_any_columns_give_a_manifest_or_an_error(
    tmp_path_factory, rows, changes, columns, more, quoting, end
):
    fields = [list(row) for row in rows]
    for line, column, value in changes:
        if line < len(fields):
            fields[line][column] = value
    header = [*(ImageRow._fields[i] for i in columns), *more]
    lines = [[*(line[i] for i in columns), *more] for line in fields]
    path = tmp_path_factory.getbasetemp() / "manifest.csv"
    data = table(tuple(header), lines, quoting=quoting, lineterminator=end)
    path.write_bytes(data.replace(b"\0", b"?"))
    try:
        found = read_manifest(path)
    except (CacheError, PipelineError) as error:
        assert str(path) in str(error)
        return
    assert len(found) == len(rows)
    assert len({row.image_id for row in found}) == len(found)
    assert not any(set(row.image_id) & set("/\\\n") for row in found)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([row.image_id for row in study()]) | ANY,
            st.integers(0, 2) | ANY,
            st.sampled_from(ROLES) | ANY,
            st.sampled_from(["case", "slide", "image", "official"]) | ANY,
            st.integers(0, 1) | ANY,
        ),
        max_size=30,
    )
)
def test_any_roles_give_splits_that_name_every_image_once_a_fold_or_an_error(
    tmp_path_factory, lines
):
    path = tmp_path_factory.getbasetemp() / "splits.csv"
    path.write_bytes(table(COLUMNS, lines))
    try:
        found = read_splits(path, study())
    except PipelineError as error:
        assert str(path) in str(error)
        return
    for roles in found.table:
        assert sorted(roles) == [row.image_id for row in study()]
        assert set(roles.values()) <= set(ROLES)
