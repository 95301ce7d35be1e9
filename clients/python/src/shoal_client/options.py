"""What a caller may ask for besides the pictures."""

from dataclasses import dataclass

from shoal_client.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may ask for besides the pictures.

    Args:
        model: The model; "" is the server's default.
        version: Its version; None is the one that the server chooses.
        top_k: How many classes to answer for each picture.
    """

    model: str = ""
    version: int | None = None
    top_k: int = 5

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InvalidInput: One is out of its range.
        """
        if self.top_k < 1:
            raise InvalidInput(f"expected top_k of at least 1, received {self.top_k}")
        if self.version is not None and self.version < 1:
            raise InvalidInput(f"expected a version of at least 1, received {self.version}")
