"""Cases that `make bench` and `make bench-full` measure, by line of the table."""

from dataclasses import dataclass

LIGHT_BACKBONE = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class Case:
    """A comparison of all contestants.

    Attributes:
        line: Of the table.
        kind: "training" or "inference".
        size: Height and width.
        seconds: Duration of all rounds; there are at least three.
        full: Measured by `make bench-full` only, because it takes minutes.
    """

    line: int
    kind: str
    backbone: str
    size: tuple[int, int]
    batch: int
    runtime: str = "eager"
    precision: str = "fp32"
    seconds: float = 15
    full: bool = False

    @property
    def long(self) -> bool:
        """Whether a round takes more than half a minute on two slow cores."""
        return self.size[0] * self.size[1] * self.batch >= 2**20

    @property
    def name(self) -> str:
        """Name of the result file."""
        height, width = self.size
        backbone = self.backbone.removeprefix("tf_efficientnet_")
        return (
            f"{self.kind}-{backbone}-{height}x{width}x{self.batch}-{self.runtime}-{self.precision}"
        )


RUNTIMES = ("eager", "compiled", "onnx", "openvino")


def _training() -> list[Case]:
    steps = [Case(1, "training", backbone, (320, 320), 4) for backbone in ("resnet50", "resnet18")]
    bf16 = [
        Case(1, "training", case.backbone, case.size, case.batch, precision="bf16")
        for case in steps
    ]
    light = [Case(1, "training", LIGHT_BACKBONE, (256, 256), 8, full=True)]
    paper = [
        Case(1, "training", backbone, (320, 320), 10, full=True)
        for backbone in ("resnet50", "resnet18")
    ]
    return [*steps, *bf16, *light, *paper]


def _inference() -> list[Case]:
    found = []
    for backbone in ("resnet50", "resnet18", LIGHT_BACKBONE):
        light = backbone == LIGHT_BACKBONE
        found += [
            Case(
                2,
                "inference",
                backbone,
                (360, 480),
                1,
                runtime,
                full=light and runtime == "compiled",
            )
            for runtime in RUNTIMES
        ]
    for backbone in ("resnet50", "resnet18"):
        for runtime in RUNTIMES:
            named = runtime in ("eager", "onnx")
            found += [
                Case(2, "inference", backbone, (512, 512), 1, runtime, full=not named),
                Case(2, "inference", backbone, (512, 512), 8, runtime, full=not named),
                Case(2, "inference", backbone, (1024, 2048), 1, runtime, full=not named),
            ]
    return found


CASES = (*_training(), *_inference())
