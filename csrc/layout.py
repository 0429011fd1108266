"""Sizes that the packer fills and the kernels read: the one place where both find them."""

SHORT = 64  # rows of a short attention tile, and the longest segment of the short class
LONG = 128  # rows of a long attention tile

WINDOW = 4096  # tokens of an embedding window: 8 MB of gradient in sixteen bits at width 1,024
TILE = 64  # tokens of an embedding tile
PIECE = 256  # bag entries of one row and window that one program sums


def capacities(tokens: int) -> tuple[int, int]:
    """(short, long) attention tiles that `tokens` tokens can need at most.

    Two neighbouring short tiles hold more than SHORT tokens together, unless a long segment stands
    between them; a long segment has more than SHORT tokens and wastes less than one tile.
    """
    return 2 * tokens // SHORT + 2, tokens // LONG + tokens // (SHORT + 1) + 1


def tiles_a_window(window: int, kinds: int) -> int:
    """Embedding tiles of a window: each of the kinds + 2 groups wastes less than a tile."""
    return -(-window // TILE) + kinds + 2
