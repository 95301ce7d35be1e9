"""A folder that export wrote becomes a checked `Bundle`, or an error that says what is wrong with it.

    models/<name>/<version>/ ──manifest.json──▶ signed? ─▶ schema? ─▶ sizes, sha256? ─▶ labels, image input? ──▶ Bundle
                             └──only model.onnx──▶ a plain Bundle: tensors only, nothing to check it against

Signatures are asked for only where keys are given; then a plain folder is refused, and so is a bundle under another
name or number than the signed one.

The folder's own name and number are what is served: a bundle copied to another number (to bring it back, say) is that
version. Everything here blocks (it hashes whole files), so the event loop calls it in a thread.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import json_format

from protos.bundle_pb2 import Manifest, Tensor
from server.errors import BundleError
from server.images import RESIZE, ImageSpec
from server.signatures import SIGNATURE_FILE, check_signature
from server.tensors import DTYPES, TensorSpec

SCHEMA: Final = 1
MANIFEST_FILE: Final = "manifest.json"
PLAIN_FILE: Final = "model.onnx"
PLAIN_VARIANT: Final = "model"  # the variant's name where no manifest gives one
REFERENCE_VARIANT: Final = "float32"
EXPLAIN_VARIANT: Final = "explain"  # no variant that answers requests: it gives the class-activation map too


@dataclass(frozen=True, slots=True)
class VariantFile:
    """One graph of a bundle.

    Args:
        name: "float32", "int8", …; "model" in a folder with no manifest.
        path: The ONNX file.
        sha256: Its digest in hexadecimal, or None where no manifest gives one.
        accuracy: Top-1 on the hold-out split when it was exported, 0..1; 0 where unknown.
        agreement: Share of hold-out rows with the Keras model's top-1, 0..1; 0 where unknown.
        measured_rows: Hold-out rows behind these two; 0 where unknown.
    """

    name: str
    path: Path
    sha256: str | None = None
    accuracy: float = 0.0
    agreement: float = 0.0
    measured_rows: int = 0


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of one model on disk, checked.

    Args:
        folder: `<models>/<name>/<version>`.
        name: The model's name: that of the folder above.
        version: The folder's number.
        manifest: What export wrote, or None for a plain `model.onnx`.
        variants: Its graphs, in the manifest's order; never empty.
        labels: `labels[i]` names class i; empty where unknown.
        image: The geometry of the image input, or None where encoded pictures cannot be taken.
        image_input: That input's name; empty where there is none.
        explanation: The graph that gives the class-activation map too, or None where there is none. Not loaded until
            somebody asks for a map.
    """

    folder: Path
    name: str
    version: int
    manifest: Manifest | None
    variants: tuple[VariantFile, ...]
    labels: tuple[str, ...] = ()
    image: ImageSpec | None = None
    image_input: str = ""
    explanation: VariantFile | None = None

    def variant(self, name: str) -> VariantFile:
        """The variant of that name; a plain folder's only one whatever the name.

        Raises:
            BundleError: The manifest lists no such variant.
        """
        if self.manifest is None:
            return self.variants[0]
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise BundleError(
            f"expected a variant '{name}' in {self.folder}, it has {_spell(v.name for v in self.variants)};"
            " ask for one of these or 'auto', or export the missing one"
        )


def read_bundle(folder: Path, trusted_keys: Path | None = None) -> Bundle:
    """Reads one version's folder and checks all that can be checked without running it.

    Args:
        folder: `<models>/<name>/<version>`.
        trusted_keys: Public keys one of which must have signed the manifest; None to ask for no signature.

    Returns:
        The bundle. Each file listed in its manifest is there with the size and sha256 that are written there.

    Raises:
        BundleError: It is missing, damaged, not signed as asked, of an unknown schema, or contradicts itself.
    """
    name, version = folder.parent.name, _version_of(folder)
    if not (folder / MANIFEST_FILE).is_file():
        return _plain(folder, name, version, signed=trusted_keys is not None)
    manifest = _read_manifest(folder / MANIFEST_FILE, trusted_keys)
    if trusted_keys is not None:
        _check_identity(folder, manifest, name, version)
    variants = tuple(_variants(folder, manifest))
    for file in (manifest.golden, manifest.sbom):
        if file.file:
            _check_file(folder, file.file, file.sha256, None)
    _check_labels(folder, manifest)
    image, image_input = _image_input(folder, manifest)
    labels = tuple(manifest.labels)
    explanation = _explanation(folder, manifest)
    return Bundle(folder, name, version, manifest, variants, labels, image, image_input, explanation)


def manifest_specs(tensors: Iterable[Tensor]) -> tuple[TensorSpec, ...]:
    """A manifest's tensors as the server's own.

    Raises:
        BundleError: A type's name is unknown.
    """
    specs = tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
    for spec in specs:
        if spec.datatype not in DTYPES:
            raise BundleError(
                f"expected one of {_spell(DTYPES)} as the type of '{spec.name}', received '{spec.datatype}';"
                " export the bundle again"
            )
    return specs


def _version_of(folder: Path) -> int:
    try:
        return int(folder.name)
    except ValueError:
        raise BundleError(
            f"expected <models>/<name>/<version> with a whole number for a version, received {folder}"
        ) from None


def _plain(folder: Path, name: str, version: int, *, signed: bool) -> Bundle:
    path = folder / PLAIN_FILE
    if not path.is_file():
        raise BundleError(
            f"expected {MANIFEST_FILE} or {PLAIN_FILE} in {folder}, found neither; export a model there or remove it"
        )
    if signed:
        raise BundleError(
            f"expected a signed bundle, {folder} has no {MANIFEST_FILE} and so no {SIGNATURE_FILE}; export the model,"
            " or start the server without --trusted-keys"
        )
    return Bundle(folder, name, version, None, (VariantFile(PLAIN_VARIANT, path),))


def _check_identity(folder: Path, manifest: Manifest, name: str, version: int) -> None:
    # A signature is for one version of one model: else any signed bundle could be put in another's place.
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(
            f"expected a bundle signed as {name} version {version} in {folder}, it is signed as {manifest.name} version"
            f" {manifest.version}; put it back under its own name and number (to bring a version back, use the policy)"
        )


def _explanation(folder: Path, manifest: Manifest) -> VariantFile | None:
    graph = manifest.explanation.graph
    if not graph.file:
        return None
    path = _check_file(folder, graph.file, graph.sha256, graph.size_bytes)
    return VariantFile(EXPLAIN_VARIANT, path, graph.sha256)


def _read_manifest(path: Path, trusted_keys: Path | None) -> Manifest:
    try:
        content = path.read_bytes()
        if trusted_keys is not None:
            check_signature(path.parent, content, trusted_keys)
        fields = json.loads(content)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:  # before parsing: a later schema's fields may mean something else
        raise BundleError(
            f"expected schema {SCHEMA} in {path}, received {schema!r};"
            " serve it with the release that exported it, or export it again with this one"
        )
    try:
        # Fields added within a schema are additions only, so an older server may pass over them.
        return json_format.ParseDict(fields, Manifest(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise BundleError(f"{path} is no manifest: {error}; export the bundle again") from error


def _variants(folder: Path, manifest: Manifest) -> Iterable[VariantFile]:
    if not manifest.variants:
        raise BundleError(f"expected at least one variant in {folder / MANIFEST_FILE}, received none; export it again")
    names = [variant.name for variant in manifest.variants]
    if len(set(names)) != len(names):
        raise BundleError(f"expected each variant once in {folder / MANIFEST_FILE}, received {_spell(names)}")
    for variant in manifest.variants:
        path = _check_file(folder, variant.file, variant.sha256, variant.size_bytes)
        yield VariantFile(
            variant.name, path, variant.sha256, variant.accuracy, variant.agreement, variant.measured_rows
        )


def _check_file(folder: Path, file: str, sha256: str, size_bytes: int | None) -> Path:
    if not file or Path(file).name != file:
        raise BundleError(f"expected the name of a file inside {folder}, its manifest names '{file}'")
    path = folder / file
    try:
        found_bytes = path.stat().st_size
        if size_bytes is not None and found_bytes != size_bytes:
            raise BundleError(
                f"expected {size_bytes:,} bytes in {path}, found {found_bytes:,}; copy or export the bundle again"
            )
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} is in the manifest but cannot be read: {error.strerror}; export again") from error
    if digest != sha256:
        raise BundleError(
            f"expected sha256 {sha256 or '(none given)'} of {path}, found {digest}: it is not the file that was"
            " verified; copy or export the bundle again"
        )
    return path


def _check_labels(folder: Path, manifest: Manifest) -> None:
    labels = list(manifest.labels)
    if len(set(labels)) != len(labels):
        raise BundleError(f"expected each label once in {folder / MANIFEST_FILE}, received {_spell(labels)}")
    shape = manifest.outputs[0].shape if manifest.outputs else ()
    if labels and shape and shape[-1] not in (-1, len(labels)):
        raise BundleError(
            f"expected {shape[-1]} labels in {folder / MANIFEST_FILE} (the first output's classes), received"
            f" {len(labels)}; export the bundle again"
        )


def _image_input(folder: Path, manifest: Manifest) -> tuple[ImageSpec | None, str]:
    inputs = manifest_specs(manifest.inputs)
    if not manifest.HasField("preprocessing"):
        return None, ""
    wanted = manifest.preprocessing
    if wanted.resize != RESIZE:
        raise BundleError(f"expected '{RESIZE}' preprocessing in {folder}, received '{wanted.resize}'; export it again")
    try:
        image = ImageSpec(wanted.height, wanted.width, wanted.channels)
    except ValueError as error:
        raise BundleError(
            f"the preprocessing in {folder / MANIFEST_FILE} is wrong: {error}; export it again"
        ) from error
    for spec in inputs:
        if spec.datatype == "UINT8" and spec.shape == (-1, *image.shape):
            return image, spec.name
    raise BundleError(
        f"expected a UINT8 input of shape [n, {wanted.height}, {wanted.width}, {wanted.channels}] in"
        f" {folder / MANIFEST_FILE} as its preprocessing says, received {_spell(f'{s.name} {s.shape}' for s in inputs)}"
    )


def _spell(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names) or "none"
