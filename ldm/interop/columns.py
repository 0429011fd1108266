"""Long columns, a row a step, cut into episodes: what D4RL files and NumPy archives hold.

A column's name is its role or begins with it ("observations/camera"): such names are parts of a
dict. Episodes end where `terminals` or `timeouts` say, begin where `episode_starts` says, end at
the rows that `episode_ends` counts, or are as long as a horizon.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ldm.interop.reader import NO_FINAL, About, Raw, with_final

OBSERVATIONS = ("observations", "observation", "obs", "states", "state")
ACTIONS = ("actions", "action", "acts")
REWARDS = ("rewards", "reward", "rews")
TERMINATED = (
    "terminals",
    "terminations",
    "terminated",
    "terminateds",
    "is_terminal",
    "dones",
    "done",
)
TRUNCATED = ("timeouts", "truncations", "truncated", "truncateds")
NEXT = ("next_observations", "next_observation", "next_obs")
STARTS = ("episode_starts", "is_first")
ENDS = ("episode_ends",)


class Columns:
    """Episodes of a table of columns: h5py's datasets or arrays, whatever has rows.

    horizon: the length of episodes where no column tells of their ends; 0: all rows are one.
    Raises ValueError where a role has no column, or columns are not alike in length.
    """

    def __init__(self, table: Mapping[str, Any], about: About, horizon: int = 0):
        self.table, self.about = table, about
        self.seen = self._role(OBSERVATIONS)
        self.done, self.next = self._role(ACTIONS), self._role(NEXT)
        for role, names in ((self.seen, OBSERVATIONS), (self.done, ACTIONS)):
            if role is None:
                raise ValueError(f"no {names[0]} among {', '.join(sorted(table)) or 'nothing'}")
        self.rows = len(next(_columns(self.done)))
        rewards = self._flags(REWARDS, np.float32)
        if rewards is None:
            about.note("it has no rewards: they count as 0, so its return says nothing")
        self.rewards = np.zeros(self.rows, np.float32) if rewards is None else rewards
        terminated, truncated = self._flags(TERMINATED, bool), self._flags(TRUNCATED, bool)
        nothing = np.zeros(self.rows, bool)
        self.terminated = nothing if terminated is None else terminated
        self.truncated = (nothing if truncated is None else truncated) & ~self.terminated
        self.ends = self._ends(terminated is not None or truncated is not None, horizon)
        more = {len(column) - self.rows for column in _columns(self.seen)}
        self.keeps_final = more == {len(self.ends)} and more != {0}
        if not self.keeps_final and more != {0}:
            raise ValueError(
                f"{self.rows} actions and {self.rows + max(more, key=abs)} observations in "
                f"{len(self.ends)} episodes"
            )

    def __iter__(self) -> Iterator[tuple[int, Raw | Exception]]:
        start = 0
        for number, end in enumerate(self.ends.tolist()):
            try:
                yield number, self._episode(number, start, end)
            except (ValueError, OSError, RuntimeError) as error:
                yield number, error
            start = end

    def _episode(self, number: int, start: int, end: int) -> Raw:
        seen = _rows(self.seen, start, end)
        if self.keeps_final:  # of every episode, among the rows
            seen = _rows(self.seen, start + number, end + number + 1)
        elif self.next is not None:
            seen = _joined(seen, _rows(self.next, end - 1, end))
        else:
            self.about.note(NO_FINAL)
            seen = with_final(seen)
        flags = (self.rewards[start:end], self.terminated[start:end], self.truncated[start:end])
        return Raw(seen, _rows(self.done, start, end), *flags)

    def _role(self, names: tuple[str, ...]):
        """The column of that role, or the dict of its parts; None without any."""
        for name in names:
            if name in self.table:
                return self.table[name]
            parts = {
                k[len(name) + 1 :]: self.table[k] for k in self.table if k.startswith(f"{name}/")
            }
            if parts:
                return dict(sorted(parts.items()))
        return None

    def _flags(self, names: tuple[str, ...], dtype) -> np.ndarray | None:
        """One number a row, read whole."""
        found = next((self.table[name] for name in names if name in self.table), None)
        if found is None:
            return None
        if len(found) != self.rows or int(np.prod(found.shape)) != self.rows:
            raise ValueError(f"{names[0]}: shape {tuple(found.shape)} for {self.rows} actions")
        return np.asarray(found[:]).reshape(-1).astype(dtype)

    def _ends(self, flagged: bool, horizon: int) -> np.ndarray:
        """The row after every episode's last, int64 (E,)."""
        starts = self._flags(STARTS, bool)
        counted = next((self.table[name][:] for name in ENDS if name in self.table), None)
        if counted is not None:
            ends = np.asarray(counted, np.int64).reshape(-1)
        elif starts is not None:
            ends = np.append(np.flatnonzero(starts[1:]) + 1, self.rows)
        else:
            ends = np.flatnonzero(self.terminated | self.truncated) + 1
        if horizon:
            ends = _at_most(ends, self.rows, horizon)
        elif not flagged and counted is None and starts is None:
            self.about.note("no column tells where its episodes end: all rows are one episode")
        if self.rows and (not len(ends) or ends[-1] < self.rows):
            ends = np.append(ends, self.rows)
        if len(ends) and (np.diff(ends, prepend=0).min() < 1 or ends[-1] > self.rows):
            raise ValueError(f"its episodes do not end in order within {self.rows} rows")
        # what ends without saying so was cut, but for the last rows, which may go on elsewhere
        last = ends[:-1] - 1
        self.truncated = self.truncated.copy()
        self.truncated[last] |= ~self.terminated[last]
        return ends


def _at_most(ends: np.ndarray, rows: int, horizon: int) -> np.ndarray:
    """The ends, and one more wherever an episode is as long as the horizon."""
    found, start = [], 0
    for end in [*ends.tolist(), rows]:
        found += [*range(start + horizon, end, horizon), *([end] if end > start else [])]
        start = end
    return np.array(found, np.int64)


def _columns(role) -> Iterator[Any]:
    yield from role.values() if isinstance(role, dict) else (role,)


def _rows(role, start: int, end: int):
    if isinstance(role, dict):
        return {key: _rows(part, start, end) for key, part in role.items()}
    rows = role[start:end]
    return (
        [t.decode() if isinstance(t, bytes) else str(t) for t in rows]
        if rows.dtype.kind in "OSU"
        else rows
    )


def _joined(a, b):
    if isinstance(a, dict):
        return {key: _joined(a[key], b[key]) for key in a}
    return [*a, *b] if isinstance(a, list) else np.concatenate([a, b])
