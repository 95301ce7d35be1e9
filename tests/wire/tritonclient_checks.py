"""What an unmodified tritonclient is asked to do, by gRPC and by HTTP. Runs in the clients' environment."""

import asyncio
import functools
import queue
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

# By name, because the environment that checks this project's types does not have them.
triton_grpc: Any = import_module("tritonclient.grpc")
triton_grpc_aio: Any = import_module("tritonclient.grpc.aio")
triton_http: Any = import_module("tritonclient.http")
triton_http_aio: Any = import_module("tritonclient.http.aio")
utils: Any = import_module("tritonclient.utils")

ADDRESS: dict[str, str] = {}
PICTURE: list[bytes] = []
NUMPY = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)


def connect(grpc_address: str, http_address: str, picture_file: str) -> None:
    ADDRESS.update(grpc=grpc_address, http=http_address)
    PICTURE.append(Path(picture_file).read_bytes())


def by_both(check: Callable[[Any, Any], None]) -> Callable[[], None]:
    """Runs a check with the gRPC client and with the HTTP one."""

    @functools.wraps(check)
    def run() -> None:
        for module, name in ((triton_grpc, "grpc"), (triton_http, "http")):
            with module.InferenceServerClient(ADDRESS[name]) as client:
                check(module, client)

    return run


def tensor(module: Any, name: str, array: Any, **how: Any) -> Any:
    made = module.InferInput(name, list(array.shape), utils.np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, **how)
    return made


def pair(module: Any, rows: int = 1) -> tuple[list[Any], Any, Any]:
    one = np.arange(16 * rows, dtype=np.int32).reshape(rows, 16)
    other = np.full((rows, 16), 3, np.int32)
    return [tensor(module, "INPUT0", one), tensor(module, "INPUT1", other)], one, other


def refusal(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    try:
        call(*given, **named)
    except utils.InferenceServerException as error:
        return error
    raise AssertionError("it was not refused")


def status_of(error: Any) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def is_in(text: str, answer: Any) -> None:
    assert text in str(answer), answer


# ---- health and metadata ----


@by_both
def check_health(module: Any, client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sum")
    assert client.is_model_ready("sum", "1")
    assert not client.is_model_ready("sum", "2")
    assert not client.is_model_ready("nothing")


@by_both
def check_metadata(module: Any, client: Any) -> None:
    as_json = {"as_json": True} if module is triton_grpc else {}
    server = client.get_server_metadata(**as_json)
    assert server["name"] == "shoal"
    assert {"classification", "binary_tensor_data", "statistics"} <= {*server["extensions"]}
    model = client.get_model_metadata("sum", **as_json)
    assert (model["name"], model["versions"], model["platform"]) == ("sum", ["1"], "onnxruntime_onnx")
    assert [(t["name"], t["datatype"], [*map(int, t["shape"])]) for t in model["inputs"]] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert client.get_model_metadata("sum", "1", **as_json)["outputs"][1]["name"] == "OUTPUT1"
    error = refusal(client.get_model_metadata, "nothing")
    assert status_of(error) in ("NOT_FOUND", "404")
    is_in("'nothing'", error.message())
    assert status_of(refusal(client.get_model_metadata, "sum", "x")) in ("INVALID_ARGUMENT", "400")


@by_both
def check_config(module: Any, client: Any) -> None:
    def config(name: str) -> Any:
        if module is triton_grpc:
            return client.get_model_config(name, as_json=True)["config"]
        return client.get_model_config(name)

    batched = config("sum")
    assert (batched["max_batch_size"], batched["backend"]) == (32, "onnxruntime")
    assert [(t["name"], t["data_type"], [*map(int, t["dims"])]) for t in batched["input"]] == [
        ("INPUT0", "TYPE_INT32", [16]),
        ("INPUT1", "TYPE_INT32", [16]),
    ]
    assert int(batched["dynamic_batching"]["default_priority_level"]) == 100
    assert config("echo_BYTES")["output"][0]["data_type"] == "TYPE_STRING"
    fixed = config("fixed")
    assert fixed.get("max_batch_size", 0) == 0
    assert [*map(int, fixed["input"][0]["dims"])] == [2, 3]
    assert "dynamic_batching" not in fixed
    assert config("grey")["input"][0]["format"] == "FORMAT_NHWC"


@by_both
def check_statistics(module: Any, client: Any) -> None:
    def numbers() -> Any:
        as_json = {"as_json": True} if module is triton_grpc else {}
        return client.get_inference_statistics("sum", "1", **as_json)["model_stats"][0]

    def count(stats: Any, key: str) -> int:
        return int(stats["inference_stats"].get(key, {}).get("count", 0))

    before = numbers()
    client.infer("sum", pair(module, rows=3)[0])
    refusal(client.infer, "sum", pair(module)[0][:1])
    after = numbers()
    assert count(after, "success") == count(before, "success") + 1
    assert count(after, "fail") == count(before, "fail") + 1
    assert int(after["inference_count"]) == int(before.get("inference_count", 0)) + 3
    assert int(after["execution_count"]) == int(before.get("execution_count", 0)) + 1
    assert int(after["last_inference"]) > 1.7e12
    assert int(after["inference_stats"]["compute_infer"]["ns"]) > 0
    assert 3 in [int(batch["batch_size"]) for batch in after["batch_stats"]]
    everything = client.get_inference_statistics(**({"as_json": True} if module is triton_grpc else {}))
    assert len(everything["model_stats"]) > 10
    assert status_of(refusal(client.get_inference_statistics, "nothing")) in ("NOT_FOUND", "404")


@by_both
def check_repository(module: Any, client: Any) -> None:
    index = client.get_model_repository_index(**({"as_json": True} if module is triton_grpc else {}))
    models = index["models"] if module is triton_grpc else index
    assert {"name": "sum", "version": "1", "state": "READY"}.items() <= next(
        model for model in models if model["name"] == "sum"
    ).items()
    for refused in (refusal(client.load_model, "sum"), refusal(client.unload_model, "sum")):
        assert status_of(refused) in ("UNAVAILABLE", "503")
        is_in("--model-control explicit", refused.message())
    assert client.is_model_ready("sum")


@by_both
def check_shared_memory_is_not_there(module: Any, client: Any) -> None:
    as_json = {"as_json": True} if module is triton_grpc else {}
    assert client.get_system_shared_memory_status(**as_json) in ({}, [])
    assert client.get_cuda_shared_memory_status(**as_json) in ({}, [])
    refusal(client.register_system_shared_memory, "region", "/key", 64)
    lying = module.InferInput("INPUT0", [1, 16], "INT32")
    lying.set_shared_memory("region", 64)
    error = refusal(client.infer, "sum", [lying, pair(module)[0][1]])
    is_in("shares no memory", error.message())


@by_both
def check_settings(module: Any, client: Any) -> None:
    as_json = {"as_json": True} if module is triton_grpc else {}

    def trace(answer: Any) -> Any:
        return answer["settings"]["trace_rate"]["value"] if module is triton_grpc else [answer["trace_rate"]]

    assert trace(client.get_trace_settings(**as_json)) == ["1000"]
    changed = client.update_trace_settings("sum", {"trace_rate": "1", "trace_level": ["TIMESTAMPS"]}, **as_json)
    assert trace(changed) == ["1"]
    assert trace(client.get_trace_settings(**as_json)) == ["1000"]
    assert trace(client.update_trace_settings("sum", {"trace_rate": None, "trace_level": "OFF"}, **as_json)) == ["1000"]
    is_in("server's log", refusal(client.update_trace_settings, None, {"trace_file": "/tmp/x"}).message())
    is_in("nothing", refusal(client.get_trace_settings, "nothing").message())

    def info(answer: Any) -> Any:
        return answer["settings"]["log_info"]["bool_param"] if module is triton_grpc else answer["log_info"]

    assert info(client.get_log_settings(**as_json)) is True
    assert info(client.update_log_settings({"log_info": False}, **as_json)) is False
    assert info(client.update_log_settings({"log_info": True}, **as_json)) is True
    is_in("always logged", refusal(client.update_log_settings, {"log_error": False}).message())


# ---- inference ----


@by_both
def check_several_inputs_and_outputs(module: Any, client: Any) -> None:
    inputs, one, other = pair(module, rows=5)
    answer = client.infer("sum", inputs, request_id="mine")
    assert np.array_equal(answer.as_numpy("OUTPUT0"), one + other)
    assert np.array_equal(answer.as_numpy("OUTPUT1"), one - other)
    response = answer.get_response(as_json=True) if module is triton_grpc else answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "sum", "1")


@by_both
def check_outputs_come_as_asked(module: Any, client: Any) -> None:
    inputs, one, other = pair(module)
    answer = client.infer("sum", inputs, outputs=[module.InferRequestedOutput("OUTPUT1")], model_version="1")
    assert np.array_equal(answer.as_numpy("OUTPUT1"), one - other)
    assert answer.as_numpy("OUTPUT0") is None
    error = refusal(client.infer, "sum", inputs, outputs=[module.InferRequestedOutput("OUTPUT7")])
    is_in("OUTPUT7", error.message())


@by_both
def check_every_datatype(module: Any, client: Any) -> None:
    for name in NUMPY:
        array = np.array([[0, 1], [1, 100]]).astype(name)
        datatype = utils.np_to_triton_dtype(array.dtype)
        for binary in (True, False) if module is triton_http and name != "float16" else (None,):
            how = {} if binary is None else {"binary_data": binary}
            outputs = None if binary is None else [module.InferRequestedOutput("y", binary_data=binary)]
            answer = client.infer(f"echo_{datatype}", [tensor(module, "x", array, **how)], outputs=outputs)
            back = answer.as_numpy("y")
            assert back.dtype == array.dtype, (name, binary)
            assert np.array_equal(back, array), (name, binary)


@by_both
def check_bytes(module: Any, client: Any) -> None:
    array = np.array([[b"", "é".encode()], [b"x" * 300, b"\x00"]], dtype=np.object_)
    back = client.infer("echo_BYTES", [tensor(module, "x", array)]).as_numpy("y")
    assert back.tolist() == array.tolist()


@by_both
def check_a_model_without_rows(module: Any, client: Any) -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert np.array_equal(client.infer("fixed", [tensor(module, "x", array)]).as_numpy("y"), -array)


@by_both
def check_encoded_pictures(module: Any, client: Any) -> None:
    for shape in ([2], [2, 1]):
        pictures = np.empty(2, np.object_)
        pictures[:] = PICTURE * 2
        answer = client.infer("grey", [tensor(module, "image", pictures.reshape(shape))])
        assert answer.as_numpy("probabilities").argmax(axis=1).tolist() == [2, 2]
    broken = np.array([b"no picture"], np.object_)
    is_in("expected a JPEG, PNG", refusal(client.infer, "grey", [tensor(module, "image", broken)]).message())


@by_both
def check_pixels(module: Any, client: Any) -> None:
    pixels = np.stack([np.full((8, 8, 1), level, np.uint8) for level in (10, 120, 250)])
    answer = client.infer("grey", [tensor(module, "image", pixels)])
    assert answer.as_numpy("probabilities").argmax(axis=1).tolist() == [0, 1, 2]
    is_in("expected UINT8", refusal(client.infer, "grey", [tensor(module, "image", pixels / 255)]).message())
    is_in("expected shape", refusal(client.infer, "grey", [tensor(module, "image", pixels[..., 0])]).message())


@by_both
def check_classification(module: Any, client: Any) -> None:
    pixels = np.full((1, 8, 8, 1), 250, np.uint8)
    wanted = [module.InferRequestedOutput("probabilities", class_count=2)]
    classes = client.infer("grey", [tensor(module, "image", pixels)], outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (1, 2)
    value, index, label = classes[0][0].decode().split(":")
    assert (index, label) == ("2", "bright")
    assert float(value) > 0.9


@by_both
def check_priority_and_timeout(module: Any, client: Any) -> None:
    inputs = pair(module)[0]
    assert client.infer("sum", inputs, priority=1, timeout=2_000_000).as_numpy("OUTPUT0") is not None
    error = refusal(client.infer, "sum", inputs, timeout=1)
    assert status_of(error) in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "504", "429"), error


@by_both
def check_errors_name_what_is_wrong(module: Any, client: Any) -> None:
    inputs = pair(module)[0]
    assert status_of(refusal(client.infer, "nothing", inputs)) in ("NOT_FOUND", "404")
    assert status_of(refusal(client.infer, "sum", inputs, model_version="9")) in ("NOT_FOUND", "404")
    is_in("expected the inputs", refusal(client.infer, "sum", inputs[:1]).message())
    uneven = [inputs[0], pair(module, rows=2)[0][1]]
    is_in("as many rows", refusal(client.infer, "sum", uneven).message())


# ---- what only one of them has ----


def check_grpc_async_calls() -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(ADDRESS["grpc"]) as client:
        inputs, one, other = pair(triton_grpc)
        for number in range(20):
            client.async_infer(
                "sum", inputs, lambda result, error: answers.put((result, error)), request_id=str(number)
            )
        for _ in range(20):
            result, error = answers.get(timeout=20)
            assert error is None
            assert np.array_equal(result.as_numpy("OUTPUT0"), one + other)


def check_grpc_stream_keeps_order_and_survives_errors() -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(ADDRESS["grpc"]) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        inputs = pair(triton_grpc)[0]
        for number in range(50):
            model = "nothing" if number % 10 == 7 else "sum"
            client.async_stream_infer(model, inputs, request_id=str(number))
        for number in range(50):
            result, error = answers.get(timeout=20)
            if number % 10 == 7:
                is_in("'nothing'", error)
            else:
                assert error is None, error
                assert result.get_response().id == str(number)
        client.async_stream_infer("sum", inputs, enable_empty_final_response=True)
        assert answers.get(timeout=20)[0].get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()


def check_grpc_compression_and_headers() -> None:
    with triton_grpc.InferenceServerClient(ADDRESS["grpc"]) as client:
        x = tensor(triton_grpc, "x", np.ones((4, 1), np.float32))
        for algorithm in ("gzip", "deflate"):
            answer = client.infer("wide", [x], compression_algorithm=algorithm, headers={"x-request-id": "mine"})
            assert answer.as_numpy("y").sum() == 8000


def check_grpc_client_timeout() -> None:
    with triton_grpc.InferenceServerClient(ADDRESS["grpc"]) as client:
        # gRPC counts in milliseconds, so it takes a model that is slower than that.
        slow = [tensor(triton_grpc, "image", np.zeros((1, 8, 8, 1), np.uint8))]
        error = refusal(client.infer, "slow", slow, client_timeout=0.003)
        assert status_of(error) in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
        assert client.infer("sum", pair(triton_grpc)[0], client_timeout=20).as_numpy("OUTPUT0") is not None


def check_http_compression_both_ways() -> None:
    with triton_http.InferenceServerClient(ADDRESS["http"]) as client:
        x = tensor(triton_http, "x", np.ones((4, 1), np.float32))
        for sent in (None, "gzip", "deflate"):
            for asked in (None, "gzip", "deflate"):
                answer = client.infer(
                    "wide", [x], request_compression_algorithm=sent, response_compression_algorithm=asked
                )
                assert answer.as_numpy("y").sum() == 8000, (sent, asked)


def check_http_async_calls() -> None:
    with triton_http.InferenceServerClient(ADDRESS["http"], concurrency=4) as client:
        inputs, one, other = pair(triton_http)
        calls = [client.async_infer("sum", inputs) for _ in range(20)]
        assert all(np.array_equal(call.get_result().as_numpy("OUTPUT0"), one + other) for call in calls)


def check_aio_clients() -> None:
    async def ask() -> None:
        for module, aio, name in (
            (triton_grpc, triton_grpc_aio, "grpc"),
            (triton_http, triton_http_aio, "http"),
        ):
            async with aio.InferenceServerClient(ADDRESS[name]) as client:
                inputs, one, other = pair(module)
                assert await client.is_server_ready()
                answers = await asyncio.gather(*(client.infer("sum", inputs) for _ in range(10)))
                assert all(np.array_equal(answer.as_numpy("OUTPUT1"), one - other) for answer in answers)
                wide = await client.infer("wide", [tensor(module, "x", np.ones((2, 1), np.float32))])
                assert wide.as_numpy("y").sum() == 4000

    asyncio.run(ask())


def check_aio_stream() -> None:
    async def ask() -> None:
        async def requests() -> Any:
            for number in range(10):
                yield {"model_name": "sum" if number != 4 else "nothing", "inputs": pair(triton_grpc)[0]}

        async with triton_grpc_aio.InferenceServerClient(ADDRESS["grpc"]) as client:
            answers = [answer async for answer in client.stream_infer(requests())]
        assert [error is None for _, error in answers] == [number != 4 for number in range(10)]

    asyncio.run(ask())


def published_numbers() -> Any:
    """The numbers of the published protocol, as the client's package has it."""
    numbers_of = import_module("v2_numbers").numbers_of
    modules = (import_module(f"tritonclient.grpc.{name}") for name in ("model_config_pb2", "service_pb2"))
    return functools.reduce(lambda found, module: found | numbers_of(module), modules, {})
