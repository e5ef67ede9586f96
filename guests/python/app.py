"""A component made by another toolchain: says what was asked, counts and reads."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from componentize_py_types import Err
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

asked = 0


def whole(request: IncomingRequest) -> bytes:
    body = request.consume()
    read = b""
    with body.stream() as stream:
        while True:
            try:
                read += stream.blocking_read(4096)
            except Err as end:
                if isinstance(end.value, StreamError_Closed):
                    break
                raise
    IncomingBody.finish(body)
    return read


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        global asked
        asked += 1
        path = request.path_with_query()
        said = f"{path}, asked {asked}, with {len(whole(request))} bytes".encode()
        length = str(len(said)).encode()
        response = OutgoingResponse(Fields.from_list([("content-length", length)]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(said)
        OutgoingBody.finish(body, None)
