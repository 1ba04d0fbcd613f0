"""How much memory a pass is said to take, against tensors counted by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seenet.model import create_model
from seenet.prediction.memory import OVERHEAD, UNKNOWN_BYTES, pass_bytes


class Net(nn.Module):
    """Layers one after the other; called as every network here."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, *, own_grid: bool) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


class Asks(nn.Module):
    """Needs a number, which torch's meta device has none of."""

    def forward(self, images: Tensor, **_: Any) -> Tensor:
        return images * images.mean().item()


WIDE = nn.Conv2d(3, 8, 1, bias=False)


@pytest.mark.parametrize(
    ("layers", "floats"),
    [
        ([WIDE], 3 + 8),
        # The picture is its caller's, and lives as long as the pass; what the first layer gave goes when the second is done.
        ([WIDE, nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)], 3 + 8 + 2),
        ([WIDE, nn.ReLU(inplace=True)], 3 + 8),
        ([WIDE, nn.ReLU()], 3 + 8 + 8),
        ([nn.Conv2d(3, 16, 8, 8)], 3 + 16 / 64),
    ],
)
def test_the_tensors_that_live_at_once(layers: list[nn.Module], floats: float) -> None:
    assert pass_bytes(Net(*layers), 3) == pytest.approx(4 * floats * OVERHEAD)


def test_a_network_that_needs_numbers_gets_a_guess() -> None:
    assert pass_bytes(Asks(), 3) == UNKNOWN_BYTES


def test_the_network_stays_as_it_is() -> None:
    model = create_model("seenet", backbone="mobilenetv3_small_050", num_classes=6).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert pass_bytes(model, 3) > 4 * 3 * OVERHEAD
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
