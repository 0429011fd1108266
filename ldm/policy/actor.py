"""The model acting in streams of many environments at once: one forward pass for all of them.

Every environment has its own spaces and tokens (streams.py); the rows that they make lie side by
side, ragged, in one key-value cache.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ldm.envs.interface import Arrays, TimeStep
from ldm.model.decoder import Decoder
from ldm.model.memory import sent
from ldm.model.passes import Passes
from ldm.policy.memory import joined
from ldm.policy.streams import Feed, Streams

Turn = tuple[Streams, TimeStep]
Parts = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]


class UnderWay:
    """Actions that the model was asked for. values_L: of every component, on its device."""

    def __init__(self, streams: list[Streams], values_L: torch.Tensor):
        self.streams, self.values_L = streams, values_L
        self.done: torch.cuda.Event | None = None
        if values_L.is_cuda:  # waits for this alone, not for what was begun since
            self.values_L = torch.empty_like(values_L, device="cpu", pin_memory=True)
            self.values_L.copy_(values_L, non_blocking=True)
            self.done = torch.cuda.Event()
            self.done.record()

    @property
    def ready(self) -> bool:
        """Whether `actions` need not wait."""
        return self.done is None or self.done.query()

    def actions(self) -> list[Arrays]:
        """Those of every stream, turn after turn."""
        if self.done is not None:
            self.done.synchronize()
        values_L, actions, start = self.values_L.numpy(), [], 0
        for streams in self.streams:
            size = streams.num_envs * len(streams.ways_J)
            values = values_L[start : start + size].reshape(streams.num_envs, -1)
            actions.append(streams.codec.decode(values))
            start += size
        return actions


class SharedActor:
    """One model, one cache, any number of environments; they join, take turns and leave.

    The actions of a stream are those it would get alone, to rounding.
    """

    under_way = UnderWay

    def __init__(self, model: Decoder, context: int, graphs: bool = False):
        """graphs: passes are recorded as CUDA graphs."""
        self.cache = model.new_cache(context)
        self._model, self._device = model, model.head.out.device
        self._extend = Passes(model).extend if graphs else model.extend
        self._rows: dict[Streams, torch.Tensor] = {}
        self._components: dict[tuple[int, ...], Parts] = {}

    def join(self, streams: Streams, group: int = 0) -> Streams:
        """Rows for `streams`, which begin with nothing. group: of those that take turns together,
        which costs less."""
        per_step = streams.codec.tokens_per_step
        self._rows[streams] = self.cache.take(streams.num_envs, per_step, group)
        return streams

    def leave(self, streams: Streams) -> None:
        """Their rows are for others."""
        self.cache.give_back(self._rows.pop(streams))
        self._components.clear()

    def act(self, turns: Sequence[Turn]) -> list[Arrays]:
        """The action of every stream of each turn, its components read as the facts say."""
        return self.begin(turns).actions()

    def begin(self, turns: Sequence[Turn]) -> UnderWay:
        """The same, begun: a GPU may still compute when this returns. Other streams may begin
        before these have their actions."""
        hidden_WD, parts = self.read(turns), self._parts(turns)
        chance_L = heat_L = None
        if any(streams.samples for streams, _ in turns):
            chances = [streams.chance().reshape(-1) for streams, _ in turns]
            chance_L = sent(torch.from_numpy(np.concatenate(chances)), self._device)
            heats = [
                np.full(len(chance), streams.temperature, np.float32)
                for chance, (streams, _) in zip(chances, turns)
            ]
            heat_L = sent(torch.from_numpy(np.concatenate(heats)), self._device)
        values_L = self._model.head.decode(hidden_WD, *parts, chance_L, heat_L)
        return self.under_way([streams for streams, _ in turns], values_L)

    def read(self, turns: Sequence[Turn]) -> torch.Tensor:
        """hidden_WD of every stream's last observation token, turn after turn; meaningless where an
        episode ended. Raises ValueError where a timestep has another number of streams."""
        rows = [self._rows[streams] for streams, _ in turns]
        seen = [streams.see(timestep) for streams, timestep in turns]
        anew = [r[torch.from_numpy(anew_W)] for r, (anew_W, _, _) in zip(rows, seen)]
        self.cache.restart(torch.cat(anew))
        ends = np.cumsum([0, *map(len, rows)])
        hidden_WD: torch.Tensor | None = None
        for feeds in ([feed for _, feed, _ in seen], [refill for _, _, refill in seen]):
            chosen = [(r, at, f) for r, at, f in zip(rows, ends, feeds) if f is not None]
            if chosen:
                found = self._feed([(r, feed) for r, _, feed in chosen])
                places = np.concatenate([at + feed.streams_W for _, at, feed in chosen])
                if hidden_WD is None and len(places) == ends[-1]:
                    hidden_WD = found
                    continue
                if hidden_WD is None:
                    hidden_WD = found.new_empty(int(ends[-1]), found.shape[1])
                hidden_WD[sent(torch.from_numpy(places), self._device)] = found
        for r, (streams, timestep) in zip(rows, turns):
            self._forget(r, streams, timestep)
        assert hidden_WD is not None
        return hidden_WD

    def _feed(self, chosen: list[tuple[torch.Tensor, Feed]]) -> torch.Tensor:
        rows = torch.cat([r[torch.from_numpy(feed.streams_W)] for r, feed in chosen])
        counts = torch.from_numpy(np.concatenate([feed.counts_W for _, feed in chosen]))
        tokens = joined([feed.tokens for _, feed in chosen]).to("cpu")
        return self._extend(tokens, counts, self.cache, rows)

    def _forget(self, rows: torch.Tensor, streams: Streams, timestep: TimeStep) -> None:
        ended_W = streams.forgotten(timestep)
        if len(ended_W):
            ended = rows[torch.from_numpy(ended_W)]
            left_W = self.cache.lengths_W[ended] - streams.codec.tokens_per_step
            self.cache.lengths_W[ended] = left_W.clamp(min=0)
            streams.mark_empty(ended_W[(left_W <= 0).numpy()])

    def _parts(self, turns: Sequence[Turn]) -> Parts:
        """The owner of every stream (W,); rows, slots, classes, smooth and ways (L,) of every
        component of every stream, and the most classes that one has."""
        key = tuple(id(streams) for streams, _ in turns)
        if key not in self._components:
            columns: list[list[np.ndarray]] = [[], [], [], [], [], []]
            start = 0
            for streams, _ in turns:
                n, parts = streams.num_envs, streams.codec.components
                found = parts.slots, parts.classes, parts.smooth, streams.ways_J
                columns[0].append(np.full(n, streams.codec.owner))
                columns[1].append(np.repeat(start + np.arange(n), len(parts.slots)))
                for column, part in zip(columns[2:], found):
                    column.append(np.tile(part, n))
                start += n
            owners, rows, slots, classes, smooth, ways = (
                torch.from_numpy(np.concatenate(column)).to(self._device) for column in columns
            )
            widest = int(np.concatenate(columns[3]).max(initial=1))
            self._components[key] = owners, rows, slots, classes, smooth, ways, widest
        return self._components[key]


class ModelActor:
    """An Actor (envs/interface.py) in `num_envs` streams of one environment; made by
    `Policy.actor`."""

    def __init__(self, id: str, model: Decoder, streams: Streams):
        self.id, self.num_envs = id, streams.num_envs
        self.spans_episodes = streams.spans_episodes
        self._shared = SharedActor(model, streams.codec.config.context)
        self._streams = self._shared.join(streams)

    def act(self, timestep: TimeStep) -> Arrays:
        """The action of every stream, its components read as the environment's facts say."""
        return self._shared.act([(self._streams, timestep)])[0]

    def read(self, timestep: TimeStep) -> torch.Tensor:
        """hidden_WD of every stream's last observation token; meaningless where an episode ended.

        Raises ValueError for another number of streams than the actor was made for.
        """
        return self._shared.read([(self._streams, timestep)])
