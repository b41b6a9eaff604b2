"""Writes tar shards with WebDataset's names: CLASS/NUMBER.jpg, and CLASS/NUMBER.cls with the label."""

import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from resnext.files import atomic_file

END = bytes(2 * tarfile.BLOCKSIZE)


class Place(NamedTuple):
    """The position of an image's bytes."""

    shard: int
    start: int
    length: int


@dataclass
class ShardWriter:
    """Writes the shards of one split, each under a temporary name until it is complete.

    Complete shards of an earlier call are kept. Use it as a context manager: at the end it completes the open shard;
    after an error it removes the open shard, which frees the disk space.

    Attributes:
        names: the names of the complete shards; those of other splits come first.
        places: image → position.
    """

    root: Path
    split: str
    shard_bytes: int
    names: list[str]
    places: dict[int, Place] = field(default_factory=dict)
    _shard: ExitStack = field(default_factory=ExitStack)
    _file: IO[bytes] | None = None  # of the open shard
    _first: int = 0

    def __post_init__(self) -> None:
        self._first = len(self.names)
        while (found := self._read_complete(self.root / self._name())) is not None:
            self.places |= found
            self.names.append(self._name())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shard.__exit__(kind, error, trace)

    def add(self, image: int, member: str, data: bytes, label: int) -> None:
        self._file = file = self._file or self._shard.enter_context(self._open_shard())
        start = self._add_member(file, member, data)
        self._add_member(file, f"{member.rpartition('.')[0]}.cls", str(label).encode())
        self.places[image] = Place(len(self.names), start, len(data))
        if file.tell() >= self.shard_bytes:
            self._shard.close()
            self._file = None

    @contextmanager
    def _open_shard(self) -> Iterator[IO[bytes]]:
        with atomic_file(self.root / self._name()) as file:
            yield file
            file.write(END)
        self.names.append(self._name())

    def _name(self) -> str:
        return f"{self.split}-{len(self.names) - self._first:06d}.tar"

    @staticmethod
    def _add_member(file: IO[bytes], name: str, data: bytes) -> int:
        """Returns the position of the data in the file."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        start = file.tell()
        file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return start

    def _read_complete(self, path: Path) -> dict[int, Place] | None:
        """The images of a complete shard. None for a missing or incomplete one, which is written again."""
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
