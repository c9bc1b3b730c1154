"""How much a request may bring: refused as it arrives, before anything of it is kept, parsed or believed."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.contracts.errors import DataInvalidError

LARGEST_BODY = 8 * 1024 * 1024
_TOO_LARGE = "The request is too large; upload large content to the object store."


class BodyLimit:
    """ASGI middleware. The framework reads a body before any dependency of ours runs, so the limit stands in front.

    A length that is announced is refused unread; one that is not (chunked) is cut off at the limit.
    """

    def __init__(self, app: ASGIApp, *, largest: int = LARGEST_BODY) -> None:
        self.app = app
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or len(announced) > 15 or int(announced) > self._largest:
            answer = JSONResponse(
                {"code": DataInvalidError.code, "message": _TOO_LARGE}, status_code=413, headers={"Connection": "close"}
            )
            await answer(scope, receive, send)
            return
        taken = 0

        async def receive_within() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._largest:
                raise DataInvalidError(_TOO_LARGE)
            return message

        await self.app(scope, receive_within, send)
