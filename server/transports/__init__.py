"""Bytes on a wire to requests and back: nothing below this package knows HTTP or gRPC."""
