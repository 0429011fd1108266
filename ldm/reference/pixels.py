"""Convolutions in front of a stable-baselines3 policy, for vectors that hold an image."""

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from ldm.reference.network import KERNEL, STRIDE, Layer, see

WIDTHS = 8, 16, 32  # a quarter of NatureCNN's (Mnih et al. 2015), half where frames are small
SMALLEST_SIDE = 8  # of what a convolution takes


class Pixels(BaseFeaturesExtractor):
    """image: where it lies in the vector (`Flattener.image`). As many convolutions as its smaller
    side has room for, each half as large as the one before."""

    def __init__(self, observation_space: spaces.Box, image: tuple[int, tuple[int, int, int]]):
        _, (height, width, channels) = image
        convolutions: list[nn.Conv2d] = []
        before, rest = channels, observation_space.shape[0]
        rest -= height * width * channels
        for after in WIDTHS:
            if min(height, width) < SMALLEST_SIDE:
                break
            convolutions.append(nn.Conv2d(before, after, KERNEL, STRIDE))
            height, width = ((side - KERNEL) // STRIDE + 1 for side in (height, width))
            before = after
        super().__init__(observation_space, height * width * before + rest)
        self.image, self.convolutions = image, nn.Sequential(*convolutions)

    def layers(self) -> list[Layer]:
        parameters = list(self.convolutions.parameters())
        return list(zip(parameters[::2], parameters[1::2]))

    def forward(self, observations: Tensor) -> Tensor:
        return see(observations, self.image, self.layers())
