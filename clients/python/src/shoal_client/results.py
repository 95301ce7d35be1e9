"""What calls return: plain frozen values, the same over gRPC and HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass

from shoal_client.errors import ShoalError


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of a prediction.

    Args:
        index: The class's number in the model.
        label: Its name.
        probability: 0..1.
    """

    index: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one picture shows.

    Args:
        classes: As many as `top_k` asked for, best first.
    """

    classes: tuple[ClassScore, ...]

    @property
    def best(self) -> ClassScore:
        """The most probable class."""
        return self.classes[0]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the server spent its time, in microseconds.

    Args:
        queue_us: Waiting for the model.
        decode_us: From files to pixels.
        infer_us: In the model, with the batch's other pictures.
    """

    queue_us: int
    decode_us: int
    infer_us: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call brought.

    Args:
        predictions: One for each picture, in the order in which they were given.
        model: Who answered.
        version: Which version of it.
        timing: Where the server spent its time.
        request_id: The request's name in the server's log; "" in a stream's answers.
    """

    predictions: tuple[Prediction, ...]
    model: str
    version: int
    timing: Timing
    request_id: str = ""

    @property
    def best(self) -> ClassScore:
        """The first picture's most probable class."""
        return self.predictions[0].best


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture of a stream.

    Args:
        position: The picture's place in what was given, from 0.
        answer: The answer with its one prediction, or None.
        error: Why there is no answer, or None.
    """

    position: int
    answer: Answer | None
    error: ShoalError | None

    def unwrap(self) -> Answer:
        """The answer.

        Raises:
            ShoalError: There is none.
        """
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model: what it takes, what it answers, how well it was measured to do.

    Args:
        name: The model.
        version: Its version.
        architecture: What it is.
        framework: What trained it.
        parameters: How many it has; 0: unknown.
        labels: The classes' names by number.
        input_shape: `[n, height, width, channels]`; -1: any number.
        output_shape: `[n, classes]`.
        variant: The graph being served: float32, int8, ...
        providers: ONNX Runtime's execution providers in use.
        metrics: Measured at training.
    """

    name: str
    version: int
    architecture: str
    framework: str
    parameters: int
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    variant: str
    providers: tuple[str, ...]
    metrics: Mapping[str, float]
