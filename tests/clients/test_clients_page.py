"""The commands of docs/clients.md, word for word: stubs in each language, and its example against a server.

What has to be compiled, or comes from npm, is run by clients/check-stubs.sh only: it takes minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from benchmarks.server_process import Address

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "clients.md").read_text()
WHOLE: Final = os.environ.get("SHOAL_STUBS") == "all"
LIMIT_S: Final = 300
GO_LIBRARY: Final = "/usr/share/gocode/src/google.golang.org/grpc"


class Needs(NamedTuple):
    """What a language's commands need: programs, or files where there is a slash.

    Args:
        generate: For its first command.
        run: For the others; None where there are none.
        makes: What its first command writes.
    """

    generate: tuple[str, ...]
    run: tuple[str, ...] | None
    makes: tuple[str, ...]


LANGUAGES: Final = {
    "Python": Needs((), (), ("python/classifier_pb2.py", "python/classifier_pb2.pyi", "python/classifier_pb2_grpc.py")),
    "Go": Needs(
        ("protoc", "protoc-gen-go", "protoc-gen-go-grpc"),
        ("go", GO_LIBRARY),
        ("go/src/example.com/client/shoalpb/classifier_grpc.pb.go",),
    ),
    "C++": Needs(
        ("protoc", "grpc_cpp_plugin"),
        ("g++", "pkg-config", "/usr/include/grpcpp/grpcpp.h"),
        ("cpp/classifier.pb.cc", "cpp/classifier.grpc.pb.cc"),
    ),
    "Java": Needs(
        ("protoc", "grpc_java_plugin"),
        ("javac", "/usr/share/java/grpc-netty.jar", "/usr/share/java/perfmark-api.jar"),
        ("java/shoal/v1/ClassifierGrpc.java",),
    ),
    "JavaScript": Needs(("npm",), ("node",), ("node/node_modules/@grpc/grpc-js/package.json",)),
    "TypeScript": Needs(("npm", "protoc"), None, ("ts-proto/classifier.ts",)),
    "C#": Needs(("protoc",), None, ("csharp/Classifier.cs",)),
}
FROM_NPM: Final = ("JavaScript", "TypeScript")


def section(language: str) -> list[tuple[str, str]]:
    """The blocks below a language's heading."""
    (text,) = re.findall(rf"^### {re.escape(language)}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def missing(needs: tuple[str, ...]) -> list[str]:
    return [need for need in needs if not (Path(need).exists() if "/" in need else shutil.which(need))]


def shell(text: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", text],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONWARNINGS": "error"},
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A folder in which the commands find what they name, and write beside no one's files."""
    for name in ("protos", "docs"):
        (tmp_path / name).symlink_to(root / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_commands_of(language: str, checkout: Path, server: Address) -> None:
    needs = LANGUAGES[language]
    if language in FROM_NPM and not WHOLE:
        pytest.skip("its tools come from npm: clients/check-stubs.sh runs it")
    if lacking := missing(needs.generate):
        pytest.skip(f"generating needs {', '.join(lacking)}")
    commands = [text for kind, text in section(language) if kind == "sh"]
    shell(commands[0], checkout)
    for name in needs.makes:
        assert (checkout / "build" / "stubs" / name).stat().st_size > 0
    if language == "TypeScript":
        shell(commands[1], checkout)
        assert (checkout / "build" / "stubs" / "protobuf-es" / "classifier_pb.ts").stat().st_size > 0
    if needs.run is None:
        return
    if language != "Python" and not WHOLE:
        return
    if lacking := missing(needs.run):
        pytest.skip(f"stubs are generated; running the example needs {', '.join(lacking)}")
    for kind, text in section(language):
        if kind not in {"sh", "xml"}:
            (checkout / text.split("\n", 1)[0].split()[1]).write_text(text)
    assert "7 0.7" in shell(commands[1].replace("127.0.0.1:8001", server.grpc), checkout)


def test_every_language_of_the_page_is_here() -> None:
    told = set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
    assert told == {*LANGUAGES, "Rust"}
    table = set(re.findall(r"^\| ([\w+#]+) \| .*(?:protoc|grpcio|@grpc|nothing)", PAGE, re.MULTILINE))
    assert told == table
