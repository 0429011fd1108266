"""Batches whose loss or gradient is not finite: no engine applies them; here they are named by
environment, shard and trajectory, and counted up to a limit.

Every rank sees the same sums, so that all count alike; each names what is in its own streams. The
count is kept in the log, so that a restart goes on counting.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from ldm.data.loader import streams_of
from ldm.data.manifest import read_manifest
from ldm.data.mixed import limits, read_blocks
from ldm.data.stream import Stream
from ldm.errors import LdmError

NAMED = 8  # trajectories that a rank names of one batch at most


@dataclass
class Seen:
    """Of a micro-batch, until its figures are there: losses of its labels, and where those are."""

    per_label: torch.Tensor  # (L,), on the device
    tokens_L: torch.Tensor  # that labels read, on the CPU
    cu_seqlens_S1: torch.Tensor


class BadBatches:
    """limit: batches that are skipped at most, over all starts of the run. origin(step, part,
    segment): where a segment of micro-batch `part` of this rank is from."""

    def __init__(self, limit: int, batch_name: Callable[[int], str], origin: Callable | None):
        self.limit, self.batch_name, self.origin = limit, batch_name, origin
        self.count = 0
        self._seen: dict[int, list[Seen]] = {}

    def see(self, step: int, batches: list, per_label: torch.Tensor) -> None:
        """Before anything is known of step `step`; per_label: of all its micro-batches."""
        parts = per_label.clone().split([batch.label_count for batch in batches])
        self._seen[step] = [
            Seen(part, batch.labels.tokens_L, batch.cu_seqlens_S1)
            for part, batch in zip(parts, batches)
        ]

    def judge(self, first: int, losses, norms, environments: list[str], rank: int) -> list[dict]:
        """Of the steps from `first` on, an event for each that was skipped. Raises LdmError for the
        first beyond the limit; environments: whose labels' losses were not finite."""
        events = []
        for at in (~(losses.isfinite() & norms.isfinite())).nonzero().flatten().tolist():
            event = self._event(first + at, float(losses[at]), float(norms[at]), environments)
            where = self._where(self._seen[first + at])
            self.count += 1
            if self.count > self.limit:
                raise LdmError(
                    f"{event['told']}{where}. {self.limit} such batches were skipped before, which "
                    "is what train.skip_bad allows; the last checkpoint is kept: look at these "
                    "trajectories (ldm data verify), lower train.lr, or set "
                    "train.precision=fp32, then run again"
                )
            if where or rank == 0:
                count = f"{self.count} of at most {self.limit}"
                told = f"ldm, rank {rank}: SKIPPED {event['told']}{where}; {count}"
                print(told, file=sys.stderr, flush=True)
            events.append(event | {"event": "skipped", "count": self.count})
        for step in range(first, first + len(losses)):
            self._seen.pop(step, None)
        return events

    def _event(self, step: int, loss: float, norm: float, environments: list[str]) -> dict:
        what = f"gradient norm is {norm}" if torch.tensor(loss).isfinite() else f"loss is {loss}"
        named = f" (labels of {', '.join(environments)} are not finite)" if environments else ""
        told = (
            f"step {step + 1}: the {what}, expected a finite number; its batch is "
            f"{self.batch_name(step)}{named}"
        )
        return {"step": step + 1, "told": told, "environments": environments}

    def _where(self, parts: list[Seen]) -> str:
        """The trajectories of this rank whose labels' losses are not finite."""
        found: list[str] = []
        step = next((s for s, seen in self._seen.items() if seen is parts), None)
        for number, seen in enumerate(parts):
            bad = (~seen.per_label.isfinite()).nonzero().flatten().cpu()
            tokens = torch.as_tensor(seen.tokens_L)[bad]
            starts = torch.as_tensor(seen.cu_seqlens_S1)
            segments = torch.searchsorted(starts, tokens.to(starts.dtype), right=True) - 1
            for segment in segments.unique().tolist():
                start = int(starts[segment])
                found.append(self.origin(step, number, start) if self.origin else f"token {start}")
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return f"; from {', '.join(sorted(set(found))[:NAMED])}{more}" if found else ""


def origin_in(folder: Path, rank: int, world: int, parts: int) -> Callable[[int, int, int], str]:
    """origin(step, part, token): environment, recorded shard, trajectory and step of the segment
    that starts at `token` of a micro-batch, by reading the mix at `folder` again."""

    def origin(step: int, part: int, token: int) -> str:
        manifest = read_manifest(folder, "mix")
        streams = streams_of(manifest, rank + part * world, parts * world)
        bin_tokens = manifest["settings"]["mix"]["bin_tokens"]
        stream = streams[token // bin_tokens]
        shards = manifest["streams"][stream]
        places = [(shard, n) for shard in shards for n in range(shard["blocks"])]
        blocks, segments, _ = Stream(folder, manifest, stream, 0, step).next_bin()
        read = cache(lambda number: read_blocks(folder, places[number][0], limits(manifest)))
        left = token % bin_tokens
        for number, segment in zip(blocks.tolist(), segments.tolist()):
            block = read(number)[places[number][1]]
            if left == 0:
                environment = manifest["environments"][block.environment_S[segment]]
                recorded = environment["shards"][block.shard_S[segment]]["name"]
                return (
                    f"{environment['id']}, shard {recorded}, trajectory "
                    f"{block.trajectory_S[segment]}, step {block.first_step_S[segment]}"
                )
            left -= int(block.tokens_S[segment])
        return f"token {token} of stream {stream}"

    return origin
