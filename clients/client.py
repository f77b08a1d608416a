"""The blocking client: `Client("localhost:8001").model("text_embedding")(text=["play some jazz"])`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Several
from typing import Any

import grpc

from clients import bulk, codec
from clients.codec import Classification, Outputs
from clients.connection import CLOSED, Abandon, Connection, Metadata, Pause, Send, Steps, T
from clients.errors import InferenceError
from clients.model import BoundModel
from clients.options import Headers
from clients.sequence import Sequence
from clients.servers import Cut, Server


class Model(
    BoundModel[Outputs, list[list[Classification]], Iterator[Outputs], Iterator[Outputs | InferenceError], Sequence]
):
    __doc__ = BoundModel.__doc__
    client: Client
    _in_order = staticmethod(bulk.in_order)
    _sequence = Sequence

    def _ask(
        self,
        inputs: Mapping[str, Any],
        outputs: Several[str] | None,
        timeout_s: float | None,
        request_id: str,
        headers: Headers | None,
    ) -> Outputs:
        client, spec = self.client, self.spec
        if not self._plain:
            return client.run(
                self.infer(inputs, outputs=outputs, timeout_s=timeout_s, request_id=request_id, headers=headers)
            )
        request = codec.encode(spec, inputs, outputs=outputs, request_id=request_id)
        server, timeout_s, metadata = client.begin(timeout_s, headers)
        deadline_s = time.monotonic() + timeout_s
        client.budget.earn()
        reply = client.send(server, server.infer, request, timeout_s, metadata)
        if type(reply) is not bytes:
            first = Send(server, "ModelInfer", request, metadata, timeout_s, deadline_s)
            reply = client.run(client.settle(first, reply, model=spec.name))
        return codec.decode(spec, reply)

    def _parts(self, server: Server, timeout_s: float, call: Any) -> Iterator[Outputs]:
        try:
            for message in call:
                yield self._part(server, message)
        except grpc.RpcError as error:
            raise self._failure(server, timeout_s, error) from None
        finally:
            call.cancel()


class Client(Connection[bool, list[str], Model]):
    __doc__ = f"{Connection.__doc__}\n    Thread-safe; make one per process and keep it."
    _grpc = grpc
    _model = Model

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        if self._closed.is_set():
            return
        if self.pool is not None:
            self.run(self.pool.close(self))
        self._closed.set()
        for server in self._rotation.servers if self._rotation is not None else ():
            server.channel.close()

    def run(self, steps: Steps[T]) -> T:
        """Drive `steps` to their end."""
        reply: Any = None
        try:
            while True:
                step = steps.send(reply)
                if isinstance(step, Send):
                    server, method, request, metadata, _, deadline_s = step
                    left_s = deadline_s - time.monotonic()
                    reply = self.send(server, server.method(method), request, left_s, metadata)
                elif isinstance(step, Pause):
                    self._closed.wait(step.seconds)
                elif isinstance(step, Abandon):
                    channel = step.server.channel
                    step.server.connect()
                    channel.close()  # the only way to cancel blocking calls of other threads
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def send(
        self, server: Server, method: Callable[..., Any], request: Any, timeout_s: float, metadata: Metadata
    ) -> Any:
        """The answer to a request, or the gRPC error."""
        channel = server.channel
        try:
            # A blocking call, not .future(): that costs twice the CPU. Ctrl-C cancels it all the same.
            answer = method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            return Cut() if error.code() is grpc.StatusCode.CANCELLED and channel is not server.channel else error
        except ValueError:  # gRPC's word for a channel that was closed between choosing and calling
            if self._closed.is_set():
                raise ValueError(CLOSED) from None
            if channel is server.channel:
                raise
            return Cut()
        server.answered_s = time.monotonic()
        return answer

    def _start_probing(self) -> None:
        threading.Thread(target=self._probe_for_ever, name="fathom-health", daemon=True).start()

    def _probe_for_ever(self) -> None:
        with contextlib.suppress(ValueError):  # the channels were closed
            self.run(self.probing())
