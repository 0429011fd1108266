"""The sizes of the decoder."""

from dataclasses import dataclass

from ldm.data.batch import PATCH_CHANNELS, SLOTS
from ldm.errors import LdmError, nearest

# Far beyond any model: what is larger is a slip, or a file that was tampered with.
LARGEST = {"layers": 1024, "width": 1 << 16, "heads": 1024, "kv_heads": 1024, "head_dim": 4096}
LARGEST |= {"ffn": 1 << 20, "rows": 1 << 28, "classes": 1 << 20, "slots": SLOTS, "owners": 1 << 24}
LARGEST |= {"patch_bytes": 1 << 22}


@dataclass(frozen=True)
class Architecture:
    """A decoder's sizes. The table and the head stand apart from the blocks."""

    layers: int
    width: int
    heads: int  # query heads
    kv_heads: int  # key and value heads; divides heads
    head_dim: int
    ffn: int  # inner width of SwiGLU
    rows: int = 32_768  # rows of the hashed table
    classes: int = 256  # classes of an action component at most
    slots: int = SLOTS  # action components
    owners: int = 1  # rows that the head keeps: nobody's, then one an environment
    patch_bytes: int = 8 * 8 * PATCH_CHANNELS

    def __post_init__(self):
        for name, most in LARGEST.items():
            if not 0 < (value := getattr(self, name)) <= most:
                raise LdmError(f"{name} is {value}, expected 1 to {most}")
        if self.heads % self.kv_heads:
            raise LdmError(
                f"{self.heads} heads cannot share {self.kv_heads} kv_heads: not a multiple"
            )
        if self.head_dim % 2:
            raise LdmError(f"head_dim {self.head_dim} is odd: rotary positions need pairs")

    @property
    def block_parameters(self) -> int:
        """Parameters of the blocks and the final norm."""
        attention = self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * self.width * (attention + 3 * self.ffn + 2) + self.width


def _square(layers: int, width: int, heads: int, ffn: int, **sizes) -> Architecture:
    """Heads that fill the width, no sharing unless said."""
    defaults = {"kv_heads": heads, "head_dim": width // heads}
    return Architecture(layers=layers, width=width, heads=heads, ffn=ffn, **defaults | sizes)


# After each its parameters as the packaged recipes make it: those of the blocks, and all, with the
# table of hashed rows, the patches' map and the head (ldm.model.decoder.whole_parameters).
PRESETS = {
    # Few wide heads: on CPU the products of narrow ones are slow.
    "nano": _square(4, 160, 2, 384),  # 1.15 M, 6.59 M
    "micro": _square(6, 256, 4, 704),  # 4.8 M, 13.5 M
    "mini": _square(8, 512, 8, 1408),  # 25.7 M, 43.1 M
    "base": _square(12, 768, 12, 2048),  # 85 M, 111 M
    "ldm-v0": _square(24, 1024, 16, 2816),  # 308 M, 578 M
    "1b": _square(22, 2048, 16, 5632, kv_heads=4),  # 992 M, 1,531 M
    "7b": _square(32, 4096, 32, 14_336, kv_heads=8),  # 6,980 M, 8,058 M
}


def architecture(preset: str, **overrides: int) -> Architecture:
    """The preset with some fields changed. Raises LdmError for an unknown preset or field."""
    if preset not in PRESETS:
        raise LdmError(
            f'no preset "{preset}"{nearest(preset, PRESETS)}; known: {", ".join(PRESETS)}'
        )
    fields = vars(PRESETS[preset])
    for key in overrides:
        if key not in fields:
            raise LdmError(f'no architecture field "{key}"{nearest(key, fields)}')
    return Architecture(**fields | overrides)
