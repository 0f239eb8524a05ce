"""Find the images of a dataset, and what its layout says of each, before any is opened."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cache.errors import ImageTableError
from cache.schema import TEXT_COLUMNS, ImageRow, check_row
from pipeline.dataset.breakhis import LABELS, SUBTYPES, BreakHisName, parse_name
from pipeline.dataset.images import SUFFIXES
from pipeline.dataset.manifest import parse_magnification
from pipeline.errors import UsageError
from pipeline.tables import read_table
from pipeline.user_file import printable

LAYOUTS = (
    "expected the BreakHis tree, a folder with one subfolder a class "
    "(class/image.png or class/slide/image.png), or a CSV file with the columns path and label"
)

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

_DOCUMENTS = frozenset({".csv", ".md", ".pdf", ".sh", ".txt"})
"""Files that accompany a dataset. In a folder that holds no images they are passed over."""

_UNMEASURED = "0" * 64


class Found(NamedTuple):
    """An image that is still to be opened: its file, and its row without size and digest."""

    file: Path
    row: ImageRow


class Problem(NamedTuple):
    """A file that is not in the manifest, and why.

    `path` is relative to the manifest's folder. `kind` is `unreadable` (no such file, or not a
    usable image), `name` (the layout does not explain it, or contradicts itself), `repeat` (the
    pixels of another image) or `conflict` (the same, under another label).
    """

    path: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.reason}"


@dataclass
class Listing:
    """The images of a dataset and the files that cannot be among them."""

    folder: Path
    found: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def path(self, file: Path) -> str:
        """The path of `file` from the manifest's folder."""
        return Path(os.path.relpath(file, self.folder)).as_posix()

    def add(self, file: Path, row: ImageRow) -> None:
        """Add an image, unless its row cannot be in a manifest."""
        reason = _text_problem(row)
        if reason:
            self.refuse(file, "name", reason)
        else:
            self.found.append(Found(file, row))

    def refuse(self, file: Path, kind: str, reason: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(printable(self.path(file)), kind, reason))


def discover(dataset: Path, manifest: Path) -> Listing:
    """List the images of a dataset, whichever its layout is.

    Args:
        dataset: a folder or a CSV file.
        manifest: the file whose folder the paths will be relative to.

    Raises:
        UsageError: there is no such dataset, it has none of the layouts, or holds no images.
    """
    listing = Listing(manifest.parent.resolve())
    if dataset.is_dir():
        _list_folder(dataset, listing)
    elif dataset.is_file():
        _list_table(dataset, listing)
    else:
        raise UsageError(f"{dataset}: no such folder or file: {LAYOUTS}")
    return listing


def _list_folder(dataset: Path, listing: Listing) -> None:
    root = dataset.resolve()
    images = _image_files(root, listing)
    if not images:
        raise UsageError(f"{dataset}: no images in this folder: {LAYOUTS}")
    if any(parse_name(file.name) for file in images):
        for file in images:
            _list_breakhis(file, root, listing)
        return
    loose = [file.name for file in images if file.parent == root]
    if loose:
        raise UsageError(
            f"{dataset}: {len(loose)} images, such as {printable(loose[0])}, are in the folder "
            f"itself, so their class is not known: {LAYOUTS}"
        )
    for file in images:
        _list_class_folder(file, root, listing)


def _image_files(root: Path, listing: Listing) -> list[Path]:
    files = list(_walk(root, listing))
    of_images = {file.parent for file in files if _is_image(file)}
    images = []
    for file in files:
        if file.suffix.lower() in _DOCUMENTS and file.parent not in of_images:
            continue
        reason = _file_problem(file, root)
        if reason:
            listing.refuse(file, "unreadable", reason)
        else:
            images.append(file)
    return images


def _walk(root: Path, listing: Listing) -> Iterator[Path]:
    """Every file below `root` that is not litter. Links to folders are problems: cycles end there.

    Raises:
        UsageError: `root` itself cannot be read.
    """

    def refuse(error: OSError) -> None:
        if error.filename == str(root):
            raise UsageError(f"{root}: cannot be read ({error.strerror})") from error
        listing.refuse(Path(error.filename), "unreadable", f"cannot be read ({error.strerror})")

    for name, folders, files in os.walk(root, onerror=refuse):
        folder = Path(name)
        folders[:] = [entry for entry in folders if not _is_litter(entry)]
        for entry in folders:
            if (folder / entry).is_symlink():
                reason = "a link to a folder, which is not followed: copy the folder, or remove it"
                listing.refuse(folder / entry, "unreadable", reason)
        yield from (folder / entry for entry in files if not _is_litter(entry))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _file_problem(file: Path, root: Path) -> str:
    if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(root):
        return "a link that leads out of the dataset: put a copy of the file in its place"
    if not file.is_file():
        return "not a regular file, or a link to nothing: remove it"
    if not _is_image(file):
        return f"not an image by its name, expected {', '.join(sorted(SUFFIXES))}: remove it"
    return ""


def _list_breakhis(file: Path, root: Path, listing: Listing) -> None:
    name = parse_name(file.name)
    if name is None:
        example = "SOB_B_TA-14-4659-40-001.png"
        listing.refuse(file, "name", f"not a BreakHis name such as {example}: rename or remove it")
        return
    wrong = _wrong_folder(name, (root.name, *file.relative_to(root).parts[:-1]))
    if wrong:
        reason = f"the name says {name.label}, {name.subtype}, but the folder is {wrong}: move it"
        listing.refuse(file, "name", reason)
        return
    row = ImageRow(
        image_id=file.stem,
        path=listing.path(file),
        label=name.label,
        subtype=name.subtype,
        slide=name.slide,
        case=name.case,
        magnification=name.magnification,
        width=0,
        height=0,
        sha256=_UNMEASURED,
    )
    listing.add(file, row)


def _wrong_folder(name: BreakHisName, folders: Iterable[str]) -> str:
    """The first of `folders` that is a class or subtype other than the name's."""
    for folder in folders:
        is_label, is_subtype = folder in LABELS.values(), folder in SUBTYPES.values()
        if (is_label or is_subtype) and folder not in (name.label, name.subtype):
            return folder
    return ""


def _list_class_folder(file: Path, root: Path, listing: Listing) -> None:
    inside = file.relative_to(root)
    group = inside.parent.name if len(inside.parts) > 2 else ""
    row = ImageRow(
        image_id=_image_id(inside.as_posix()),
        path=listing.path(file),
        label=inside.parts[0],
        subtype="",
        slide=group,
        case=group,
        magnification=0,
        width=0,
        height=0,
        sha256=_UNMEASURED,
    )
    listing.add(file, row)


def _list_table(table: Path, listing: Listing) -> None:
    folder = table.parent.resolve()
    lines = 0
    for line, fields in read_table(table, ("path", "label")):
        lines += 1
        where = f"{table}, line {line}"
        for column in ("path", "label"):
            if not fields[column]:
                raise UsageError(f"{where}: {column} is empty: fill it in, or remove the line")
        file = folder / fields["path"]
        listing.add(file, _table_row(fields, listing.path(file), where))
    if not lines:
        raise UsageError(f"{table}: no images below the header: add one line an image")


def _table_row(fields: dict[str, str], path: str, where: str) -> ImageRow:
    slide = fields.get("slide", "")
    return ImageRow(
        image_id=fields.get("image_id") or _image_id(fields["path"]),
        path=path,
        label=fields["label"],
        subtype=fields.get("subtype", ""),
        slide=slide,
        case=fields.get("case") or slide,
        magnification=parse_magnification(fields.get("magnification", ""), where),
        width=0,
        height=0,
        sha256=_UNMEASURED,
    )


def _image_id(path: str) -> str:
    """The path without its ending, as the name of a file: `benign__s7__a` for `benign/s7/a.png`."""
    parts = PurePosixPath(posixpath.normpath(posixpath.splitext(path)[0])).parts
    return "__".join(part for part in parts if part not in ("/", "//", ".", ".."))


def _text_problem(row: ImageRow) -> str:
    try:
        check_row(row, "rename it")
    except ImageTableError as error:
        return str(error)
    spaced = [name for name in TEXT_COLUMNS if getattr(row, name) != getattr(row, name).strip()]
    # Such spaces do not survive the CSV file.
    return f"rename it: {spaced[0]} begins or ends with a space" if spaced else ""
