"""A disk that keeps, when the power goes, no more than what fsync promised.

A file keeps the content of its last fsync. A folder keeps the names of its last fsync; what
happened to its names since then may have reached the disk or not, in order.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from fault_runs import Operation


@dataclass(eq=False)
class File:
    """A file; its content at the last fsync is the snapshot of that number, if there was one."""

    synced: int | None = None
    changed: bool = True


@dataclass(eq=False)
class Folder:
    """A folder: its names now, at the last fsync, and what was done to them in between."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    kept: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[Callable[[dict], object]] = field(default_factory=list)

    def change(self, step: Callable[[dict], object]) -> None:
        step(self.names)
        self.pending.append(step)

    def sync(self) -> None:
        self.kept, self.pending = dict(self.names), []

    def after_loss(self, pending: int) -> dict[str, "File | Folder"]:
        """The names after the power went, if so many of the pending changes arrived."""
        names = dict(self.kept)
        for step in self.pending[:pending]:
            step(names)
        return names


class DiskModel:
    """What a disk holds, and what it would hold if the power went, after some operations."""

    def __init__(self) -> None:
        self.root = Folder()

    def at(self, path: str) -> "File | Folder | None":
        """What has a path now."""
        node: File | Folder | None = self.root
        for part in PurePath(path).parts:
            node = node.names.get(part) if isinstance(node, Folder) else None
        return node

    def is_safe(self, path: str) -> bool:
        """Whether a file would be there, with its present content, if the power went."""
        node: File | Folder | None = self.root
        for part in PurePath(path).parts:
            node = node.after_loss(0).get(part) if isinstance(node, Folder) else None
        return isinstance(node, File) and not node.changed

    def _folder(self, path: str) -> tuple[Folder, str]:
        folder = self.at(str(PurePath(path).parent))
        assert isinstance(folder, Folder), f"{path}: its folder was never made"
        return folder, PurePath(path).name

    def apply(self, operation: Operation) -> None:
        """Do one operation of a trace; those that failed changed nothing."""
        if operation.result >= 0 and "(deleted)" not in operation.path:
            getattr(self, f"_{operation.name}")(operation)

    def _open(self, operation: Operation) -> None:
        node = self.at(operation.path)
        if isinstance(node, File):
            node.changed = node.changed or bool(operation.offset)
        else:
            self._add(operation.path, File())

    def _mkdir(self, operation: Operation) -> None:
        self._add(operation.path, Folder())

    def _add(self, path: str, node: "File | Folder") -> None:
        folder, name = self._folder(path)
        folder.change(lambda names: names.__setitem__(name, node))

    def _write(self, operation: Operation) -> None:
        node = self.at(operation.path)
        if isinstance(node, File):
            node.changed = True

    _truncate = _write

    def _fsync(self, operation: Operation) -> None:
        node = self.at(operation.path)
        if isinstance(node, Folder):
            node.sync()
        elif node is not None:
            node.synced, node.changed = operation.number, False

    _fdatasync = _fsync

    def _rename(self, operation: Operation) -> None:
        node = self.at(operation.path)
        (folder, name), (other, target) = map(self._folder, (operation.path, operation.target))
        assert folder is other, "a rename between folders is not modelled"
        folder.change(lambda names: (names.pop(name, None), names.__setitem__(target, node)))

    def _link(self, operation: Operation) -> None:
        node = self.at(operation.path)
        assert node is not None, f"{operation.path}: linked, but never made"
        self._add(operation.target, node)

    def _unlink(self, operation: Operation) -> None:
        folder, name = self._folder(operation.path)
        folder.change(lambda names: names.pop(name, None))

    _rmdir = _unlink

    def lose_power(self, to: Path, snapshots: Path, chance: random.Random, luck: str) -> None:
        """Write down what is left.

        Args:
            to: a new folder.
            snapshots: what each fsync of a file kept, under the operation's number.
            chance: decides.
            luck: how much of what no fsync promised arrived: `none`, `all` names, or `some`.
        """
        _write_folder(self.root, to, snapshots, chance, luck)


def _write_folder(folder: Folder, to: Path, snapshots: Path, chance, luck: str) -> None:
    to.mkdir(parents=True)
    most = len(folder.pending)
    pending = {"none": 0, "all": most, "some": chance.randint(0, most)}[luck]
    for name, node in folder.after_loss(pending).items():
        if isinstance(node, Folder):
            _write_folder(node, to / name, snapshots, chance, luck)
        else:
            _write_file(node, to / name, snapshots, chance)


def _write_file(file: File, to: Path, snapshots: Path, chance: random.Random) -> None:
    if file.synced is None:
        to.write_bytes(b"\0" * chance.choice((0, 4096)))
        return
    shutil.copyfile(snapshots / str(file.synced), to)
    if file.changed:  # newer blocks may have arrived, or some of them
        with to.open("r+b") as opened:
            opened.seek(chance.randrange(max(1, to.stat().st_size)))
            opened.write(chance.randbytes(64))


def model_after(trace: Sequence[Operation], count: int) -> DiskModel:
    """The disk after the first operations of a trace."""
    model = DiskModel()
    for operation in trace[:count]:
        model.apply(operation)
    return model
