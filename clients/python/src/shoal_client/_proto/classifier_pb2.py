"""Message classes of `shoal.v1`, from `classifier.binpb`; their types are in `classifier_pb2.pyi`.

protoc's own Python output would register the file in the process's one descriptor pool, where it clashes with any other
copy of the contract (the server's, an older client's), and would ask for the very protobuf release it was made with. Here
the classes live in a pool of their own: any copies go together, with every protobuf that the package allows.
"""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_files = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("classifier.binpb").read_bytes())
_pool = descriptor_pool.DescriptorPool()
for _file in _files.file:
    _pool.Add(_file)

DESCRIPTOR = _pool.FindFileByName("classifier.proto")
globals().update(
    {name: message_factory.GetMessageClass(message) for name, message in DESCRIPTOR.message_types_by_name.items()}
)
