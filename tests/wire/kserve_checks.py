"""What kserve's unmodified inference clients are asked to do, by V1 and V2. Runs in the clients' environment."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

# By name, because the environment that checks this project's types does not have them.
kserve: Any = import_module("kserve")
client: Any = import_module("kserve.inference_client")
infer_type: Any = import_module("kserve.protocol.infer_type")
grpc: Any = import_module("grpc")
httpx: Any = import_module("httpx")

ADDRESS: dict[str, str] = {}
PICTURE: list[bytes] = []
TYPES = {
    "BOOL": "bool",
    **{name: name.lower() for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def connect(grpc_address: str, url: str, picture_file: str) -> None:
    ADDRESS.update(grpc=grpc_address, url=url)
    PICTURE.append(Path(picture_file).read_bytes())


@asynccontextmanager
async def rest(protocol: str) -> AsyncIterator[Any]:
    async with client.InferenceRESTClient(client.RESTConfig(protocol=protocol, timeout=20)) as made:
        yield made


@asynccontextmanager
async def grpc_client() -> AsyncIterator[Any]:
    async with client.InferenceGRPCClient(ADDRESS["grpc"], timeout=20) as made:
        yield made


def request(model: str, *, binary: bool, **tensors: Any) -> Any:
    inputs = []
    for name, array in tensors.items():
        datatype = next((kind for kind, numpy in TYPES.items() if numpy == array.dtype.name), "BYTES")
        inputs.append(infer_type.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    parameters = {"binary_data_output": True} if binary else None
    return infer_type.InferRequest(model, inputs, request_id="mine", parameters=parameters)


async def by_each(check: Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]) -> None:
    """Runs a check with V2 over HTTP as JSON, over HTTP as bytes, and over gRPC."""
    async with rest("v2") as by_http, grpc_client() as by_grpc:

        async def as_json(model: str, **tensors: Any) -> Any:
            return await by_http.infer(ADDRESS["url"], request(model, binary=False, **tensors), model_name=model)

        async def as_bytes(model: str, **tensors: Any) -> Any:
            return await by_http.infer(ADDRESS["url"], request(model, binary=True, **tensors), model_name=model)

        async def as_messages(model: str, **tensors: Any) -> Any:
            return await by_grpc.infer(request(model, binary=True, **tensors))

        for infer in (as_json, as_bytes, as_messages):
            await check(infer)


async def refusal(call: Awaitable[Any]) -> Any:
    try:
        await call
    except (grpc.RpcError, httpx.HTTPStatusError) as error:
        return error
    raise AssertionError("it was not refused")


# ---- V1 ----


def check_v1_rows() -> None:
    async def ask() -> None:
        async with rest("v1") as v1:
            encoded = {"b64": base64.b64encode(PICTURE[0]).decode()}
            for row in (encoded, {"image": encoded}, {"image_bytes": encoded}, np.full((8, 8, 1), 250).tolist()):
                answer = await v1.infer(ADDRESS["url"], {"instances": [row, row]}, model_name="grey")
                assert np.argmax(answer["predictions"], axis=1).tolist() == [2, 2]
            for name in TYPES:
                rows = [[True, False]] if name == "BOOL" else [[1, 2], [3, 4]]
                answer = await v1.infer(ADDRESS["url"], {"instances": rows}, model_name=f"echo_{name}")
                assert answer == {"predictions": rows}, name

    asyncio.run(ask())


def check_v1_health() -> None:
    async def ask() -> None:
        async with rest("v1") as v1:
            assert await v1.is_server_live(ADDRESS["url"])
            assert await v1.is_model_ready(ADDRESS["url"], "grey")
            assert (await refusal(v1.is_model_ready(ADDRESS["url"], "nothing"))).response.status_code == 404

    asyncio.run(ask())


def check_v1_errors() -> None:
    async def ask() -> None:
        async with rest("v1") as v1:
            for model, body, status in (
                ("nothing", {"instances": [1]}, 404),
                ("grey", {"instances": ["text"]}, 400),
                ("grey", {}, 400),
            ):
                error = await refusal(v1.infer(ADDRESS["url"], body, model_name=model))
                assert error.response.status_code == status
                assert str(error).startswith("expected"), error  # the client reads the message out of the body
            error = await refusal(v1.explain(ADDRESS["url"], "grey", {"instances": [1]}))
            assert error.response.status_code == 400
            late = {"X-Latency-Budget-Ms": "0.001"}
            error = await refusal(v1.infer(ADDRESS["url"], {"instances": [[0] * 2]}, "echo_INT8", headers=late))
            assert error.response.status_code in (429, 504)

    asyncio.run(ask())


# ---- V2 ----


def check_v2_every_datatype() -> None:
    async def ask(infer: Callable[..., Awaitable[Any]]) -> None:
        for datatype, name in TYPES.items():
            array = np.array([[0, 1], [1, 100]]).astype(name)
            if datatype == "FP16" and infer.__name__ == "as_json":  # refused by the client before it sends anything
                continue
            (output,) = (await infer(f"echo_{datatype}", x=array)).outputs
            assert (output.datatype, list(output.shape)) == (datatype, [2, 2])
            assert np.array_equal(output.as_numpy().astype(name), array), datatype

    asyncio.run(by_each(ask))


def check_v2_several_inputs_and_outputs() -> None:
    async def ask(infer: Callable[..., Awaitable[Any]]) -> None:
        one, other = np.arange(32, dtype=np.int32).reshape(2, 16), np.full((2, 16), 3, np.int32)
        answer = await infer("sum", INPUT0=one, INPUT1=other)
        assert (answer.id, answer.model_name) == ("mine", "sum")
        assert answer.model_version in (None, "1")  # over HTTP the client does not read it
        outputs = {output.name: output.as_numpy() for output in answer.outputs}
        assert np.array_equal(outputs["OUTPUT0"], one + other)
        assert np.array_equal(outputs["OUTPUT1"], one - other)

    asyncio.run(by_each(ask))


def check_v2_encoded_pictures() -> None:
    async def ask() -> None:
        pictures = np.array(PICTURE * 2, dtype=np.object_)
        sent = request("grey", binary=True, image=pictures)
        async with rest("v2") as by_http, grpc_client() as by_grpc:
            for answer in (await by_http.infer(ADDRESS["url"], sent, model_name="grey"), await by_grpc.infer(sent)):
                assert answer.outputs[0].as_numpy().reshape(2, 3).argmax(axis=1).tolist() == [2, 2]

    asyncio.run(ask())


def check_v2_health() -> None:
    async def ask() -> None:
        async with rest("v2") as by_http, grpc_client() as by_grpc:
            assert await by_http.is_server_live(ADDRESS["url"])
            assert await by_http.is_server_ready(ADDRESS["url"])
            assert await by_http.is_model_ready(ADDRESS["url"], "grey")
            assert not await by_http.is_model_ready(ADDRESS["url"], "nothing")
            assert await by_grpc.is_server_live()
            assert await by_grpc.is_server_ready()
            assert await by_grpc.is_model_ready("grey")
            assert not await by_grpc.is_model_ready("nothing")

    asyncio.run(ask())


def check_v2_errors() -> None:
    async def ask() -> None:
        array = np.zeros((1, 2), np.int8)
        async with rest("v2") as by_http, grpc_client() as by_grpc:
            for model, status, code in (("nothing", 404, "NOT_FOUND"), ("sum", 400, "INVALID_ARGUMENT")):
                sent = request(model, binary=True, x=array)
                error = await refusal(by_http.infer(ADDRESS["url"], sent, model_name=model))
                assert error.response.status_code == status
                assert (await refusal(by_grpc.infer(sent))).code().name == code

    asyncio.run(ask())


def check_v2_cancelled_calls() -> None:
    async def ask() -> None:
        async with grpc_client() as by_grpc:
            sent = request("slow", binary=True, image=np.zeros((1, 8, 8, 1), np.uint8))
            error = await refusal(by_grpc.infer(sent, timeout=0.003))
            assert error.code().name in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
            calls = [asyncio.create_task(by_grpc.infer(sent)) for _ in range(10)]
            await asyncio.sleep(0)
            for call in calls[1:]:
                call.cancel()
            assert (await calls[0]).model_name == "slow"

    asyncio.run(ask())
