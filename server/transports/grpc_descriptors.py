"""What reflection tells of messages: those of protobuf's own pool, and TensorFlow's from theirs."""

# ruff: noqa: N802  the methods' names are those of a descriptor pool

from typing import Any

from google.protobuf import descriptor_pool

from protos import tensorflow_pool


class DescriptorPools:
    """As much of a descriptor pool as reflection asks for, over several of them."""

    def __init__(self) -> None:
        self._pools = (descriptor_pool.Default(), tensorflow_pool.Default())

    def FindFileByName(self, name: str) -> Any:
        """The file of that name."""
        return self._find("FindFileByName", name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """The file that defines a message, an enumeration or a service."""
        return self._find("FindFileContainingSymbol", symbol)

    def FindMessageTypeByName(self, name: str) -> Any:
        """The message of that full name."""
        return self._find("FindMessageTypeByName", name)

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:
        """The extension of a message that has that number."""
        return self._find("FindExtensionByNumber", message, number)

    def FindAllExtensions(self, message: Any) -> list[Any]:
        """Every extension of a message."""
        return [extension for pool in self._pools for extension in pool.FindAllExtensions(message)]

    def _find(self, method: str, *given: Any) -> Any:
        for pool in self._pools:
            try:
                return getattr(pool, method)(*given)
            except KeyError:
                continue
        raise KeyError(given[0])
