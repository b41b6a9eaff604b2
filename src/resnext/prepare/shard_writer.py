"""Tar shards in WebDataset's naming: CLASS/NUMBER.jpg and CLASS/NUMBER.cls, which holds the label."""

import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

END = bytes(2 * tarfile.BLOCKSIZE)


class Place(NamedTuple):
    """Where an image's bytes lie."""

    shard: int
    start: int
    length: int


@dataclass
class ShardWriter:
    """The shards of one split, each under a temporary name until it is whole. Takes up what an earlier call ended.

    Attributes:
        names: the whole shards' names, after those of other splits.
        places: image → where it lies.
    """

    root: Path
    split: str
    shard_bytes: int
    names: list[str]
    places: dict[int, Place] = field(default_factory=dict)
    _file: IO[bytes] | None = None
    _first: int = 0

    def __post_init__(self) -> None:
        self._first = len(self.names)
        while (found := self._read_whole(self.root / self._name())) is not None:
            self.places |= found
            self.names.append(self._name())

    def add(self, image: int, member: str, data: bytes, label: int) -> None:
        file = self._file or self._begin()
        start = self._add_member(file, member, data)
        self._add_member(file, f"{member.rpartition('.')[0]}.cls", str(label).encode())
        self.places[image] = Place(len(self.names), start, len(data))
        if file.tell() >= self.shard_bytes:
            self.end_shard()

    def end_shard(self) -> None:
        """Makes the open shard, if there is one, a whole one."""
        if self._file is None:
            return
        self._file.write(END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self.root / self._name())
        self._file = None
        self.names.append(self._name())

    def abandon_shard(self) -> None:
        """Leaves no half-written shard, and gives its space back."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._aside.unlink(missing_ok=True)

    @property
    def _aside(self) -> Path:
        return self.root / f".{self._name()}.part"

    def _name(self) -> str:
        return f"{self.split}-{len(self.names) - self._first:06d}.tar"

    def _begin(self) -> IO[bytes]:
        self._file = self._aside.open("wb")
        return self._file

    @staticmethod
    def _add_member(file: IO[bytes], name: str, data: bytes) -> int:
        """Returns where the data begins."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        start = file.tell()
        file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return start

    def _read_whole(self, path: Path) -> dict[int, Place] | None:
        """The images of a shard that has its end; None for another, which is written anew."""
        places: dict[int, Place] = {}
        end = 0
        try:
            with tarfile.open(path, "r:", errors="surrogateescape") as shard:
                for member in shard:
                    end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    if not member.name.endswith(".cls"):
                        image = int(member.name.rpartition("/")[2].partition(".")[0])
                        places[image] = Place(len(self.names), member.offset_data, member.size)
        except (FileNotFoundError, tarfile.TarError):
            return None
        return places if path.stat().st_size == end + len(END) else None
