"""The numbers and types of a proto file's fields, enums and methods, to compare two copies of a protocol."""

from typing import Any

from google.protobuf import descriptor_pb2


def numbers_of(module: Any) -> dict[str, Any]:
    """Everything that must agree for two copies to understand each other, by full name."""
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    found: dict[str, Any] = {}
    for message in file.message_type:
        _add_message(found, f"{file.package}.", message)
    for enum in file.enum_type:
        _add_enum(found, f"{file.package}.", enum)
    for service in file.service:
        for method in service.method:
            streams = [method.client_streaming, method.server_streaming]
            found[f"{service.name}/{method.name}"] = [method.input_type, method.output_type, *streams]
    return found


def _add_message(found: dict[str, Any], prefix: str, message: descriptor_pb2.DescriptorProto) -> None:
    prefix += f"{message.name}."
    for field in message.field:
        found[prefix + field.name] = [field.number, field.type, field.label, field.type_name]
    for nested in message.nested_type:
        _add_message(found, prefix, nested)
    for enum in message.enum_type:
        _add_enum(found, prefix, enum)


def _add_enum(found: dict[str, Any], prefix: str, enum: descriptor_pb2.EnumDescriptorProto) -> None:
    for value in enum.value:
        found[f"{prefix}{enum.name}.{value.name}"] = value.number
