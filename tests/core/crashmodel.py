"""Every state that a power cut can leave on a disk, computed from the file-system calls that were really made.

The model is the weakest reading of POSIX: the bytes of a file and the entries of a folder reach the disk independently
and in any order, unless an fsync of that file or folder has returned. Bytes that were not synced may be absent, half
there, zeros or whole. A rename is atomic. What real file systems do is kinder; what survives here survives there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.storage.filesystem import TEMPORARY, FileSystem

MAX_STATES = 4096

Tree = dict[str, "Tree | bytes"]
Call = tuple[str, ...]


class Recorder(FileSystem):
    """Carry out all calls and write them down, with paths relative to a root; leave one kind of fsync out if asked.

    Args:
        root: the folder that is durable from the beginning.
        dropped: the role (see `role`) of the fsync that is not carried out and not recorded.
    """

    def __init__(self, root: Path, dropped: str = "") -> None:
        self.root, self.dropped = root, dropped
        self.calls: list[tuple[str, str, str | bytes]] = []
        self.roles: list[str] = []
        self._paths: dict[int, str] = {}
        self._renamed = ""

    def note(self, kind: str, what: int) -> None:
        """Record what the caller was told: 'confirmed' or 'best', with a step."""
        self.calls.append((kind, str(what), ""))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self.calls.append(("mkdir", self._name(path), ""))

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._paths[descriptor] = self._name(path)
        self.calls.append(("create", self._name(path), ""))
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        # Half at a time, so that the loop over short writes is part of what is recorded.
        written = super().write(descriptor, data[: max(1, len(data) // 2)])
        self.calls.append(("write", self._paths[descriptor], bytes(data[:written])))
        return written

    def fsync(self, descriptor: int) -> None:
        path = self._paths[descriptor]
        self._sync("fsync", path, "file " + role(path))

    def fsync_folder(self, path: Path) -> None:
        name = self._name(path)
        what = f"folder {role(name)}" + (f" after {role(self._renamed)}" if name == "checkpoints" else "")
        self._sync("fsync_folder", name, what)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._renamed = self._name(target)
        self.calls.append(("rename", self._name(source), self._name(target)))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.calls.append(("unlink", self._name(path), ""))

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self.calls.append(("unlink", self._name(path), ""))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _sync(self, kind: str, name: str, what: str) -> None:
        if what == self.dropped:
            return
        if what not in self.roles:
            self.roles.append(what)
        self.calls.append((kind, name, ""))


def role(path: str) -> str:
    """Return what a file or folder is for, whatever its step."""
    name = Path(path).name
    if name.startswith(TEMPORARY):
        return "best.json" if "best.json" in name else "temporary"
    return "checkpoint" if name.startswith("checkpoint-") else name or "root"


@dataclass
class _File:
    content: bytes = b""
    synced: bool = False

    def variants(self) -> list[bytes]:
        if self.synced or not self.content:
            return [self.content]
        half = self.content[: len(self.content) // 2]
        return [self.content, b"", half, bytes(len(self.content))]


@dataclass
class _Folder:
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    current: dict[str, _File | _Folder] = field(default_factory=dict)
    # Each change is atomic: names that go, and names that come with what they stand for.
    pending: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, change: dict[str, _File | _Folder | None]) -> None:
        self.pending.append(change)
        _apply(self.current, change)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.current), []


def _apply(entries: dict[str, _File | _Folder], change: dict[str, _File | _Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


@dataclass(frozen=True)
class Crash:
    """Hold a disk after a power cut, and what the caller had been told before it.

    Args:
        tree: names -> bytes of files or trees of folders.
        confirmed: the newest step whose save had been confirmed, or -1.
        best: the step whose mark as the best had been confirmed, or -1.
        calls: how many calls had been made.
    """

    tree: Tree
    confirmed: int
    best: int
    calls: int


def crashes(calls: list[tuple[str, str, str | bytes]]) -> Iterator[Crash]:
    """Yield every different state after every prefix of the calls, at most MAX_STATES a prefix."""
    root = _Folder()
    confirmed = best = -1
    seen: set[tuple[int, int, str]] = set()
    for count, (kind, name, argument) in enumerate(calls):
        if kind == "confirmed":
            confirmed = int(name)
        elif kind == "best":
            best = int(name)
        else:
            _replay(root, kind, name, argument)
        for tree in _trees(root):
            key = (confirmed, best, repr(tree))
            if key not in seen:
                seen.add(key)
                yield Crash(tree, confirmed, best, count + 1)


def _replay(root: _Folder, kind: str, name: str, argument: str | bytes) -> None:
    if kind == "fsync_folder":
        folder = root if name == "." else _find(root, name)
        assert isinstance(folder, _Folder)
        folder.sync()
        return
    parent, own = _parent(root, name)
    node = parent.current.get(own)
    if kind == "mkdir":
        parent.change({own: _Folder()})
    elif kind == "create":
        parent.change({own: _File()})
    elif kind == "unlink":
        parent.change({own: None})
    elif kind == "rename":
        assert isinstance(argument, str)
        assert node is not None
        assert Path(argument).parent == Path(name).parent
        parent.change({own: None, Path(argument).name: node})
    elif kind == "write":
        assert isinstance(node, _File)
        assert isinstance(argument, bytes)
        node.content, node.synced = node.content + argument, False
    else:
        assert kind == "fsync"
        assert isinstance(node, _File)
        node.synced = True


def _find(root: _Folder, name: str) -> _File | _Folder:
    parent, own = _parent(root, name)
    return parent.current[own]


def _parent(root: _Folder, name: str) -> tuple[_Folder, str]:
    folder = root
    *above, own = name.split("/")
    for part in above:
        node = folder.current[part]
        assert isinstance(node, _Folder)
        folder = node
    return folder, own


def _trees(root: _Folder) -> Iterator[Tree]:
    """Yield what a disk may hold; if there are too many ways, a fixed random choice of them, the extremes first."""
    ways = list(itertools.islice(_folder_trees(root), MAX_STATES + 1))
    if len(ways) > MAX_STATES:
        ways = random.Random(0).sample(ways, MAX_STATES)
    yield from ways


def _folder_trees(folder: _Folder) -> Iterator[Tree]:
    for chosen in itertools.product((True, False), repeat=len(folder.pending)):
        entries = dict(folder.durable)
        for take, change in zip(chosen, folder.pending, strict=True):
            if take:
                _apply(entries, change)
        names = sorted(entries)
        options = [_node_ways(entries[name]) for name in names]
        for combination in itertools.product(*options):
            yield dict(zip(names, combination, strict=True))


def _node_ways(node: _File | _Folder) -> list[Tree] | list[bytes]:
    return node.variants() if isinstance(node, _File) else list(_folder_trees(node))


def materialise(tree: Tree, folder: Path) -> None:
    """Write a tree to a real folder."""
    folder.mkdir()
    for name, node in tree.items():
        if isinstance(node, bytes):
            (folder / name).write_bytes(node)
        else:
            materialise(node, folder / name)
