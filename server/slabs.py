"""Memory that batches are gathered in: written once per row, allocated once per batcher.

ticket A rows ─┐
ticket B rows ─┼─▶ slab 0 [max_batch_rows, ...] ─▶ the engine reads it
ticket C rows ─┘   slab 1 is written meanwhile
"""

from collections.abc import Mapping

import numpy as np

from server.errors import InvalidInput
from server.tensors import Array, TensorSpec, bytes_held
from server.ticket_queue import Span


class Stacking:
    """How requests to one engine may be put together.

    Args:
        inputs: The engine's inputs.
        outputs: Its outputs.
    """

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        plain = all(-1 not in spec.shape[1:] and spec.datatype != "BYTES" for spec in inputs)
        #: All inputs and outputs count rows, so a request may run in parts.
        self.splittable = bool(inputs) and all(spec.batched for spec in (*inputs, *outputs))
        #: Rows of different requests may share a batch: besides, all other dimensions are fixed. Strings stay alone,
        #: because one that ONNX Runtime refuses would fail its whole batch.
        self.stackable = self.splittable and plain
        # What an array must be like to need no closer look; the row's shape is None where it always needs one.
        self._columns = tuple((spec, spec.dtype, spec.shape[1:] if spec.batched else None) for spec in inputs)

    def measure(self, inputs: Mapping[str, Array]) -> tuple[int, int]:
        """Checks a request, so that it cannot fail the others of its batch, and counts it.

        Returns:
            Its rows (1 where the inputs do not count any) and bytes.

        Raises:
            InvalidInput: An input is missing, unknown or of another type or shape, or they differ in rows.
        """
        rows, n_bytes = -1, 0
        for spec, dtype, row_shape in self._columns:
            array = inputs.get(spec.name)
            if array is None or len(inputs) != len(self._columns):
                raise InvalidInput(f"expected inputs {self._spell()}, received {', '.join(inputs) or 'none'}")
            shape = array.shape
            # Plain dtypes are singletons, and `is` takes a third of the time of `==`.
            if array.dtype is not dtype or not shape or shape[1:] != row_shape:
                spec.validate(array)
            if rows != -1 and self.splittable and shape[0] != rows:
                raise InvalidInput(f"expected {rows} rows in '{spec.name}' as in the other inputs, received {shape[0]}")
            rows = shape[0] if self.splittable else 1
            n_bytes += array.nbytes if not dtype.hasobject else bytes_held(array)
        return abs(rows), n_bytes

    def _spell(self) -> str:
        return ", ".join(spec.name for spec, _, _ in self._columns)


class Slabs:
    """Two slabs, so that one is written while the engine reads the other.

    Args:
        inputs: The engine's inputs.
        rows: Rows in a batch at most.
    """

    def __init__(self, inputs: tuple[TensorSpec, ...], rows: int) -> None:
        self._inputs = inputs
        self._rows = rows
        self._slabs: dict[int, dict[str, Array]] = {}

    def write(self, slab: int, spans: list[Span], rows: int) -> dict[str, Array]:
        """Writes spans one behind the other.

        Args:
            slab: 0 or 1, one that no running batch lies in.
            spans: What to write.
            rows: How many rows that is, no more than a batch holds.

        Returns:
            The written rows by input name: views of the slab.
        """
        targets = self._slabs.get(slab)
        if targets is None:
            targets = self._slabs[slab] = self._allocate()
        for name, target in targets.items():
            stop = 0
            for ticket, first, count in spans:
                start, stop = stop, stop + count
                source = ticket.inputs[name]
                target[start:stop] = source if count == ticket.rows else source[first : first + count]
        return {name: target[:rows] for name, target in targets.items()}

    def detach(self, outputs: Mapping[str, Array], slab: int | None) -> Mapping[str, Array]:
        """Copies outputs that lie in the slab themselves, as those of an engine that hands its input through."""
        if slab is None:
            return outputs
        targets = self._slabs[slab].values()
        return {
            name: array.copy() if any(np.may_share_memory(array, target) for target in targets) else array
            for name, array in outputs.items()
        }

    def _allocate(self) -> dict[str, Array]:
        return {spec.name: np.empty((self._rows, *spec.shape[1:]), dtype=spec.dtype) for spec in self._inputs}
