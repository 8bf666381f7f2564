"""Writing a file whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` at the end, removed when anything is raised.

    **Raises:** `OSError` that names the path when its folder does not exist, is no folder or cannot be written.
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
    finally:
        temporary.unlink(missing_ok=True)
