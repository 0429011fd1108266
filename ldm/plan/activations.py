"""Bytes that a step's tokens take: what each part keeps for its backward, and what that needs.

Two ways of computing: `cpu`, whose kernels keep what spares arithmetic (kernels/*/cpu.py), and
`cuda`, a block that torch.compile has made (docs/scaling.md has both lists). Every number is one of
a tensor that is alive; nothing is rounded up to an allocator's blocks.
"""

from dataclasses import dataclass

from ldm.model.presets import Architecture
from ldm.plan.batch import BatchSize

CHUNK = 2048  # tokens of gated_mlp on a CPU
PIECE = 4096  # padded tokens of attention on a CPU
SPANS = 8  # partial sums of the head's gradients on a GPU
WIDE = 4  # bytes of sums


@dataclass(frozen=True)
class Work:
    """kept: until its backward. moments: what its backward needs beside that, and the share of kept
    that is still there, in order. parameters: whose gradients it makes."""

    kept: float
    moments: tuple[tuple[float, float], ...]
    parameters: int = 0


@dataclass(frozen=True)
class Activations:
    """Of one model over one batch; element, weight: bytes of an activation and of a weight."""

    sizes: Architecture
    batch: BatchSize
    element: int
    weight: int
    cuda: bool
    recompute: str = "none"

    @property
    def input(self) -> float:
        """Of a block: what is kept of one that is computed again."""
        return self.batch.tokens * self.sizes.width * self.element

    @property
    def products(self) -> float:
        """Of a block: what selective recomputation keeps."""
        a, n = self.sizes, self.batch.tokens
        return self.input + n * (self._qkv + a.width + 2 * a.ffn) * self.element

    @property
    def _qkv(self) -> int:
        return (self.sizes.heads + 2 * self.sizes.kv_heads) * self.sizes.head_dim

    @property
    def _head(self) -> int:
        return self.sizes.heads * self.sizes.head_dim

    @property
    def _casts(self) -> bool:
        return self.element != self.weight

    def block(self, last: bool) -> Work:
        """One block. The last spends its feed-forward on tokens that are read alone."""
        read = self.batch.reads if last else self.batch.tokens
        parameters = self.sizes.block_parameters - self.sizes.width
        make = self._cuda_block if self.cuda else self._cpu_block
        return make(read, parameters // self.sizes.layers)

    def _cpu_block(self, read: int, parameters: int) -> Work:
        a, b, e = self.sizes, self.batch, self.element
        n, width, ffn, qkv, head = b.tokens, a.width, a.ffn, self._qkv, self._head
        into = n * (width + 1) * e + qkv * width * e
        shared = a.heads != a.kv_heads  # keys and values are repeated; else all that was gathered
        rotated = (a.heads + a.kv_heads) * a.head_dim
        attention = b.places * (rotated + (2 * head if shared else qkv)) * e
        attention += a.heads * b.padded_squares * e
        out = read * head * e + self._casts * width * head * e
        mlp = (read * (width + 1) + 3 * ffn * read + 2 * ffn * width) * e
        mlp += self._casts * ffn * width * e
        kept = into + attention + out + mlp

        chunk = min(CHUNK, read) * (3 * ffn + width) * e
        sums = WIDE * 3 * ffn * width + 2 * read * width * e
        unfold = 2 * WIDE * 2 * ffn * width
        feed = sums + chunk + max(2 * ffn * width * e, unfold)
        gathered = min(PIECE, b.places)
        per_place = head + rotated + 2 * a.heads * b.padded_squares / max(b.places, 1)
        attend = n * (width + head) * e + b.places * qkv * e + gathered * per_place * e
        joined = n * (width + head) * e + (b.places + n) * qkv * e
        project = n * (qkv + 3 * width) * e + (2 * WIDE + e) * qkv * width
        return Work(
            kept,
            (
                (feed, 1.0),
                (max(attend, joined), (into + attention) / kept),
                (project, into / kept),
            ),
            parameters,
        )

    def _cuda_block(self, read: int, parameters: int) -> Work:
        a, b, e = self.sizes, self.batch, self.element
        n, width, ffn, qkv = b.tokens, a.width, a.ffn, self._qkv
        rotated = (a.heads + a.kv_heads) * a.head_dim
        attention = n * (2 * width + qkv + rotated + self._head) * e + 4 * a.heads * n
        kept = attention + read * (2 * width + 3 * ffn + 2) * e
        kept += self._casts * parameters * e
        feed = read * (3 * ffn + width) * e + self.weight * ffn * width
        attend = n * (qkv + 2 * width) * e + self.weight * 3 * ffn * width
        return Work(kept, ((feed, 1.0), (attend, attention / kept)), parameters)

    def _layout(self) -> float:
        """How attention on a CPU arranges a batch: tables by length, and int64 places."""
        a, b = self.sizes, self.batch
        rotated = (a.heads + a.kv_heads) * a.head_dim
        tables = sum(2 * n * rotated + n * n for n in b.padded_lengths) * self.element
        return tables + 8 * (b.places + b.tokens) * (self._qkv + self._head) // a.head_dim

    def loss(self) -> Work:
        """The head and its cross-entropy."""
        a, b, e = self.sizes, self.batch, self.element
        summed = a.width * (2 * a.slots + a.classes)
        parameters = summed + a.width * (1 + 2 * a.owners)
        hidden = 2 * b.reads * (a.width + 1) * e
        if self.cuda:
            sums = WIDE * SPANS * summed
            return Work(2 * hidden, ((b.labels * a.classes * e + hidden + sums, 1.0),), parameters)
        rows = 3 * b.labels * a.width * e
        kept = hidden + rows + b.labels * b.classes * e + self._casts * b.classes * a.width * e
        forward = b.labels * b.classes * (e + 2 * WIDE)
        return Work(kept, ((max(forward, rows + hidden), 1.0),), parameters)

    def embedding(self) -> Work:
        """Table, numbers and patches, in the weights' type on a CPU."""
        a, b = self.sizes, self.batch
        parameters = a.width * (a.rows + 2 * 64 + a.patch_bytes + 1)
        if self.cuda:
            grown = b.tokens * a.width * (self.element + WIDE)
            return Work(WIDE * b.tokens, ((grown, 1.0),), parameters)
        numbers = b.numbers * 64 * self.weight + b.patches * a.patch_bytes * self.element
        kept = b.tokens * (a.width + 1) * self.weight + numbers + self._layout()
        rows = min(a.rows, b.entries) * a.width * self.weight
        norm = b.tokens * a.width * (2 * self.weight + WIDE)
        return Work(kept, ((max(norm, b.tokens * a.width * self.weight + rows), 1.0),), parameters)

    def timeline(self) -> list[tuple[str, float, float, int]]:
        """(part, kept by all that is still needed, needed now, gradients made so far) from the
        loss to the embedding."""
        blocks = [self.block(i == self.sizes.layers - 1) for i in range(self.sizes.layers)]
        left = [self._left(block) for block in blocks]
        head, table = self.loss(), self.embedding()
        found = [("loss", table.kept + sum(left) + head.kept, head.moments[0][0], 0)]
        made = head.parameters
        for i in reversed(range(len(blocks))):
            before = table.kept + sum(left[:i])
            for needed, share in blocks[i].moments:
                again = self.input if self.recompute != "none" else 0
                found.append(("blocks", before + again + blocks[i].kept * share, needed, made))
            made += blocks[i].parameters
        found.append(("embedding", table.kept, table.moments[0][0], made + table.parameters))
        return found

    def _left(self, block: Work) -> float:
        if self.recompute == "none":
            return block.kept
        return self.input if self.recompute == "full" else self.products
