"""The record of a Jacobian that is being written: which rows are done, and of which Jacobian."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from gpujac.array.common import on_host
from gpujac.core.aval import dtype_of, shape_of
from gpujac.errors import ArgumentError


class Record:
    """A small file of text beside the result, there as long as rows are missing."""

    __slots__ = ("what", "path", "facts")

    def __init__(self, what: str, path: Any, facts: dict[str, Any]) -> None:
        self.what, self.path, self.facts = what, Path(path), facts

    def found(self) -> tuple[int, str]:
        """The first row that is not done, and the digest of rows before it; (0, "") where there is no file.

        Raises if the file is the record of another Jacobian.
        """
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
            done, digest = int(told["rows_done"]), str(told["digest"])
        except FileNotFoundError:
            return 0, ""
        except (ValueError, KeyError, TypeError):
            raise ArgumentError(
                f"{self.what}: resume={str(self.path)!r} is no record of rows; give the path of one, or of a file "
                "that is not there yet"
            ) from None
        for name, now in self.facts.items():
            if told.get(name) != now:
                raise ArgumentError(
                    f"{self.what}: resume={str(self.path)!r} is the record of another Jacobian: its {name} is "
                    f"{told.get(name)}, here it is {now}. Call as before to go on from row {done}, or remove the "
                    "file to begin again"
                )
        return done, digest

    def write(self, done: int, digest: str) -> None:
        """Say that `done` rows are in place, and `digest` of some; a crash leaves the old file or the new one."""
        beside = self.path.with_name(self.path.name + ".new")
        with open(beside, "w", encoding="utf-8") as file:
            json.dump({"rows_done": done, "digest": digest, **self.facts}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)

    def drop(self) -> None:
        """All rows are done: nothing is left to resume."""
        self.path.unlink(missing_ok=True)


def fingerprint(arrays: list) -> str:
    """A digest of the values, shapes and dtypes of arrays; waits for a device."""
    digest = hashlib.blake2b(digest_size=16)
    for x in arrays:
        digest.update(f"{tuple(shape_of(x))} {dtype_of(x)};".encode())
        digest.update(np.ascontiguousarray(on_host(x)).tobytes())
    return digest.hexdigest()
