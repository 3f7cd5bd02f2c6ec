"""A TensorFlow Lite file whose weights are measured."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib

from qgen_tf import errors


@dataclasses.dataclass(frozen=True)
class MeasuredFile:
    """A file of a run, as it was when measuring began.

    Attributes:
      path: of the file.
      content: its bytes.
    """

    path: pathlib.Path
    content: bytes

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, point: str) -> MeasuredFile:
        """Reads a file.

        Args:
          path: of the file.
          point: of weight space that measures are taken at.

        Raises:
          ConfigError: `point` is "latent".
          ExportError: the file cannot be read.
        """
        if point == "latent":
            raise errors.ConfigError(
                f"{path} has no latent weights, which are not shipped: set "
                'point to "deployed", or leave the file away.'
            )
        try:
            return cls(pathlib.Path(path), pathlib.Path(path).read_bytes())
        except OSError as error:
            raise errors.ExportError(
                f"cannot read the TensorFlow Lite file {path}: "
                f"{error.strerror}."
            ) from error

    @property
    def record_file(self) -> str:
        """Name of the record in the run directory."""
        return f"measures-{self.path.stem}.json"

    @property
    def source(self) -> dict[str, str]:
        """What the record says of the file: its name and SHA-256."""
        digest = hashlib.sha256(self.content).hexdigest()
        return {"file": self.path.name, "sha256": digest}
