"""A descriptor pool for the copies of TensorFlow's messages, so that TensorFlow itself may be in the same process.

Protobuf's default pool takes each message's name once, and TensorFlow puts its own messages there. `generate.sh` has
the code generated from `tensorflow*.proto` use this module in place of `google.protobuf.descriptor_pool`.
"""

from functools import cache

from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool


@cache
def Default() -> DescriptorPool:  # noqa: N802  the name that generated code calls
    """The pool, with the messages of protobuf's own that TensorFlow's are made of."""
    pool = DescriptorPool()
    for module in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
