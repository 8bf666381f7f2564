"""Writing a file whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` at the end, removed when anything is raised.

    **Raises:** `OSError` that names the path when its folder does not exist, is no folder or cannot be written, and
    when the disk fills up on the way.
    """
    path = Path(path)
    if not path.parent.is_dir():
        code = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
        raise OSError(code, f"cannot write: {path.parent} is no folder", str(path))
    if not os.access(path.parent, os.W_OK):
        raise OSError(errno.EACCES, f"cannot write: folder {path.parent} is not writable", str(path))
    if path.is_dir():
        raise OSError(errno.EISDIR, "cannot write: it is a folder", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk names no file, or the temporary one
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: bytes) -> Path:
    """Write a file atomically, from memory. **Raises** `OSError` as `replacing`, and leaves nothing then."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)
