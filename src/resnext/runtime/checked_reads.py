"""CheckedReads: a checkpoint file for torch.load. It checks the bytes that torch reads, and keeps none of them.

check_memory tells too little memory from damage: torch raises a RuntimeError for both. is_pickle tells a pickle from
damage.
"""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import torch

from resnext.terminal import describe_bytes

LOCAL_HEADER_BYTES = 30  # of a zip record: the lengths of its name and of its extra field end it, then both follow


class CheckedReads:
    """Passes reads on to `file`, and notes the CRC-32 of each.

    It has no `readinto`, so that torch calls `read`: if `readinto` raises OSError, torch 2.14 may hide the error.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksums: dict[tuple[int, int], int] = {}  # (position, bytes) of a read → its CRC-32
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        start, data = self._file.tell(), self._file.read(count)
        self._checksums[start, len(data)] = zlib.crc32(data)
        return data

    def find_damaged(self, archive: zipfile.ZipFile) -> str | None:
        """The first record of `archive` whose bytes, as they were read, do not have its CRC-32.

        Raises:
            BadZipFile: if a record is damaged that no single call has read; it is read now.
        """
        for record in archive.infolist():
            found = self._checksums.get((self._find_start(record), record.file_size))
            if found is None:
                archive.read(record)
            elif found != record.CRC:
                return record.filename
        return None

    def _find_start(self, record: zipfile.ZipInfo) -> int:
        """The position of the record's bytes. Only its local header tells it: torch aligns them with an extra field."""
        lengths = os.pread(self._file.fileno(), 4, record.header_offset + LOCAL_HEADER_BYTES - 4)
        return record.header_offset + LOCAL_HEADER_BYTES + sum(struct.unpack("<HH", lengths))


def check_memory(path: Path) -> None:
    """Raises MemoryError if there is no room for the content of the file."""
    size = path.stat().st_size
    try:
        torch.empty(size, dtype=torch.uint8)
    except RuntimeError as error:
        raise MemoryError(f"{path} needs {describe_bytes(size)} of memory, which are not free") from error


def is_pickle(path: Path) -> bool:
    """Whether the file begins like a pickle of protocol 2 to 5. Before version 1.6, torch.save wrote such files."""
    with path.open("rb") as file:
        return file.read(2) in (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
