"""The edge: metadata in, statuses out."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest

from pydock._proto.containerd.services.leases.v1 import leases_pb2 as pb
from pydock.base import errors, request
from pydock.services import calls


class Handlers:
    """A service whose every answer is up to the test."""

    wire = pb.DESCRIPTOR.services_by_name["Leases"]
    raw = frozenset[str]()

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def list(self, _: pb.ListRequest, call: calls.Call) -> pb.ListResponse:
        found = self._answer(call)
        if asyncio.iscoroutine(found):
            found = await found
        return pb.ListResponse(leases=[pb.Lease(id=str(found))])


def _raise(error: BaseException) -> Any:
    def answer(_: calls.Call) -> None:
        raise error

    return answer


async def _refused(dial: Any, answer: Any, ns: str = "default") -> tuple[grpc.StatusCode, str | None]:
    async with dial(Handlers(answer)) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.List(pb.ListRequest(), ns)
    return caught.value.code(), caught.value.details()


async def test_namespace_and_lease_are_bound_from_the_metadata(dial: Any) -> None:
    async with dial(Handlers(lambda call: f"{call.ns} {call.lease}")) as client:
        assert (await client.List(pb.ListRequest(), "moby", "l1")).leases[0].id == "moby l1"


async def test_a_missing_namespace_is_refused_in_containerds_words(dial: Any) -> None:
    told = await _refused(dial, lambda call: call.ns, ns="")
    assert told == (grpc.StatusCode.FAILED_PRECONDITION, "namespace is required: failed precondition")


@pytest.mark.parametrize("ns", ["a/b", "..", "-a", "a" * 77, "a b"])
async def test_a_namespace_out_of_its_grammar_is_an_invalid_argument(dial: Any, ns: str) -> None:
    code, text = await _refused(dial, lambda call: call.ns, ns=ns)
    assert code is grpc.StatusCode.INVALID_ARGUMENT and str(text).startswith("namespace validation: identifier")


async def test_a_call_that_needs_no_namespace_works_without(dial: Any) -> None:
    async with dial(Handlers(lambda _: "fine")) as client:
        assert (await client.List(pb.ListRequest(), ns="")).leases[0].id == "fine"


async def test_an_error_becomes_its_status_with_its_words(dial: Any) -> None:
    told = await _refused(dial, _raise(errors.NotFound('image "x"')))
    assert told == (grpc.StatusCode.NOT_FOUND, 'image "x": not found')


async def test_an_unexpected_error_is_internal_and_the_log_has_its_traceback(dial: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "pydock"):
        code, text = await _refused(dial, _raise(ZeroDivisionError("secret")))
    assert code is grpc.StatusCode.INTERNAL and text is not None and "secret" not in text
    assert caplog.records[-1].exc_info is not None
    number = text.partition("request ")[2].partition(")")[0]
    assert number.count("-") == 1


async def test_every_request_has_an_id_of_its_own(dial: Any) -> None:
    async with dial(Handlers(lambda _: request.request_id.get())) as client:
        ids = {(await client.List(pb.ListRequest())).leases[0].id for _ in range(3)}
    assert len(ids) == 3 and "" not in ids


async def test_the_deadline_of_the_client_is_known_and_cancels_the_handler(dial: Any) -> None:
    seen: list[float | None] = []
    cancelled = asyncio.Event()

    async def answer(call: calls.Call) -> None:
        seen.append(call.remaining)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with dial(Handlers(answer)) as client:
        await client.channel.channel_ready()
        with pytest.raises(grpc.RpcError) as caught:
            await client.List(pb.ListRequest(), timeout=0.5)
        await asyncio.wait_for(cancelled.wait(), 5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert seen[0] is not None and seen[0] < 60


async def test_a_method_that_is_not_offered_is_unimplemented(dial: Any) -> None:
    async with dial(Handlers(lambda _: "")) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.Create(pb.CreateRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "method Create: not implemented"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/containerd.services.leases.v1.Leases/Nope", "unknown method Nope for service containerd.services.leases.v1.Leases"),
        ("/containerd.services.nope.v1.Nope/Get", "unknown service containerd.services.nope.v1.Nope"),
    ],
)
async def test_what_nobody_offers_is_answered_at_once(dial: Any, path: str, text: str) -> None:
    async with dial(Handlers(lambda _: "")) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.channel.unary_unary(path)(b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)
