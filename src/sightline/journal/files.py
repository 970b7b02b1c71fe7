"""Files that only grow: opened, locked, appended to, and brought back when they were removed under us."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

with contextlib.suppress(ImportError):  # Windows has none: there the recorded process alone says who writes
    import fcntl

_COPY_BYTES = 2**20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LockedElsewhere(Exception):
    """Another open file holds the lock."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, device or directory in its place raises OSError at once."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(fd, "rb")


class AppendFile:
    """A file that only grows, held open for appending.

    Parameters
    ----------
    path : Path
        The file; its folders are made when it is opened.
    locked : bool
        Hold an exclusive ``flock`` on it. Another process that wants the same finds the file in use; the lock goes with
        the last process that holds the open file.
    """

    def __init__(self, path: Path, *, locked: bool = False) -> None:
        self.path = path
        self.locked = locked
        self.fd = -1
        self.has_lock = False
        """Whether the lock is held; False on a file system that has none."""
        self.stopped_by = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        """Why the last append wrote only a part."""

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self.fd >= 0

    def open(self) -> None:
        """Open the file, made if need be, and lock it.

        Raises
        ------
        OSError
            If it cannot be opened for writing.
        LockedElsewhere
            If another process holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = self._opened(os.O_CREAT)

    def _opened(self, flags: int) -> int:
        """Return a locked descriptor of the file at the path."""
        flags |= os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        fd = os.open(self.path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(self.path))
            if self.locked:
                self.has_lock = _lock(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def append(self, data: bytes) -> int:
        """Append bytes; return how many, fewer than all where the disk refused in between (``stopped_by``).

        Raises
        ------
        OSError
            If not one byte could be written.
        """
        written = os.write(self.fd, data)
        while written < len(data):
            try:
                written += os.write(self.fd, data[written:])
            except OSError as error:
                self.stopped_by = error
                return written
        return written

    def size(self) -> int:
        """Return its size in bytes."""
        return os.fstat(self.fd).st_size

    def tail(self, size: int) -> bytes:
        """Return the last bytes of the file."""
        end = self.size()
        return os.pread(self.fd, min(size, end), max(0, end - size))

    def first(self, size: int) -> bytes:
        """Return the first bytes of the file."""
        return os.pread(self.fd, size, 0)

    def truncate(self, size: int) -> None:
        """Cut the file to a size."""
        os.ftruncate(self.fd, size)

    def sync(self) -> None:
        """Wait until everything written stands on the disk."""
        os.fsync(self.fd)

    @property
    def is_removed(self) -> bool:
        """Whether the open file has no name any more."""
        return self.is_open and os.fstat(self.fd).st_nlink == 0

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is the one that stands at its path: not removed, moved or replaced."""
        try:
            return os.path.samestat(os.fstat(self.fd), self.path.stat())
        except OSError:
            return False

    def bring_back(self) -> None:
        """Give a removed file its name back by copying the open one, which still has every byte.

        Raises
        ------
        OSError
            If the path cannot be written, or something else stands there by now; the open file stays in use then.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = self._opened(os.O_CREAT | os.O_EXCL)
        try:
            offset = 0
            while chunk := os.pread(self.fd, _COPY_BYTES, offset):
                offset += len(chunk)
                while chunk:
                    chunk = chunk[os.write(fd, chunk) :]
            os.fsync(fd)
        except OSError:
            os.close(fd)
            self.path.unlink(missing_ok=True)
            raise
        os.close(self.fd)
        self.fd = fd

    def close(self) -> None:
        """Close the file, which frees the lock."""
        if self.is_open:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of space only, so that the open file is still good."""
    return error.errno in _FULL


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder stand on the disk; a system that cannot do that for folders is let be."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _lock(fd: int) -> bool:
    """Take the exclusive lock; False on a system without locks."""
    if "fcntl" not in globals():
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedElsewhere from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return False
    return True
