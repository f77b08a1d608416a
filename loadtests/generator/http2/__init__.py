"""HTTP/2 with gRPC messages: frames, connections, and the transport over several of them."""

from loadtests.generator.http2.transport import Http2Transport

__all__ = ["Http2Transport"]
