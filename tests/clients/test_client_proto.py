"""The client's copy of the wire contract beside others in one process, and that it is current."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
assert ours.ClassifyRequest is not theirs.ClassifyRequest
message = ours.ClassifyRequest(id="a", encoded=ours.EncodedImages(images=[b"x"]))
assert theirs.ClassifyRequest.FromString(message.SerializeToString()).encoded.images[0] == b"x"
from google.protobuf import descriptor_pool
file = descriptor_pool.Default().FindFileContainingSymbol("shoal.v1.ClassifyRequest")
assert file.name == "protos/classifier.proto"
"""
OURS = "from shoal_client._proto import classifier_pb2 as ours\n"
THEIRS = "from protos import classifier_pb2 as theirs\n"
# A contract that has gone on: one more field, and so not the same file under any name.
LATER = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from shoal_client._proto import classifier_pb2 as ours
later = descriptor_pb2.FileDescriptorProto()
ours.DESCRIPTOR.CopyToProto(later)
later.name = "protos/classifier.proto"
later.message_type[0].field.add(name="later", number=99, type=9, label=1)
descriptor_pool.Default().Add(later)
"""


def run(program: str, root: Path) -> None:
    path = os.pathsep.join((str(root), str(root / "clients" / "python" / "src")))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", [OURS + THEIRS + CHECK, THEIRS + OURS + CHECK, LATER])
def test_it_goes_with_the_servers_in_one_process(program: str, root: Path) -> None:
    run(program, root)


@pytest.mark.slow
def test_the_generated_files_are_current_and_a_change_is_noticed(root: Path, tmp_path: Path) -> None:
    for folder in ("protos", "clients/python"):
        ignore = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
        shutil.copytree(root / folder, tmp_path / folder, ignore=ignore)
    script = str(tmp_path / "clients" / "python" / "generate.sh")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run([script, "--check"], env=environment, check=False, capture_output=True, text=True)

    assert check().returncode == 0
    contract = tmp_path / "protos" / "classifier.proto"
    contract.write_text(contract.read_text() + "// one more remark\n")
    done = check()
    assert done.returncode == 1
    assert "run clients/python/generate.sh" in done.stderr
    subprocess.run([script], env=environment, check=True)
    assert check().returncode == 0
