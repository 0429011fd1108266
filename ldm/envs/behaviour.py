"""What an environment's results are keyed by: a user's own by its source, others by what they do.

    digests.json                   what every environment of the catalogue did, and its code then
    <cache>/ldm/behaviour/<code>   the same of code that is not known there

What it does is the digest of a play with a fixed seed and fixed actions (trace.py). Code is the
entry, the adapter with what it imports of ours, and the versions of the library. Where the code is
known nothing is played; else it is played twice, for some seconds, once a machine. So an edit that
changes nothing of what an environment does leaves all its results as they are. The border
(worker.py, spaces.py …) is not part of the code: BORDER rises when it gives or takes other things.

`python -m ldm.envs.behaviour` brings digests.json up to date after an edit of an adapter.
"""

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from ldm.envs import groups, source
from ldm.envs.spec import EnvSpec
from ldm.envs.trace import trace_digest
from ldm.errors import let_pass
from ldm.parallel.jobs import run_jobs

BORDER = 1
ADAPTERS = Path(__file__).with_name("adapters")
TABLE = Path(__file__).with_name("digests.json")
_played: dict[str, str] = {}  # code → digest


def identity(spec: EnvSpec) -> dict:
    """What decides how it behaves, as plain data: the entry, with "behaviour" and the "versions" of
    its library unless it is a user's own, and with "source" of what is the user's.

    Raises MachineError where it has to be played and this machine lacks what that needs."""
    entry = spec.identity()
    if not source.own(spec):
        entry |= {"behaviour": behaviour(spec), "versions": groups.library_versions(spec)}
    theirs = source.digest(spec)
    return entry | ({"source": theirs} if theirs else {})


def behaviour(spec: EnvSpec) -> str:
    """16 hexadecimal digits that name what it does. Where it cannot be played, or does not repeat
    itself, they name its code."""
    now = code(spec)
    return _known(spec.id, now) or _play(spec, now)


def learn(specs: list[EnvSpec], workers: int) -> None:
    """Plays those whose behaviour is not known, side by side."""
    theirs = [spec for spec in specs if not source.own(spec)]
    jobs = [(spec, code(spec)) for spec in theirs if not _known(spec.id, code(spec))]
    run_jobs(_play, jobs, workers, "behaviour", lambda job: job[0].id, lost=lambda spec, now: now)


def code(spec: EnvSpec) -> str:
    """Names all that the behaviour depends on."""
    files = source.shipped(ADAPTERS / f"{spec.adapter}.py") if spec.backend == "worker" else {}
    facts = [BORDER, spec.identity(), groups.library_versions(spec), files]
    return _hash(json.dumps(facts, sort_keys=True))


def _known(id: str, now: str) -> str:
    """The digest that goes with the code `now`, or an empty string."""
    then, _, found = _table().get(id, "").partition(" ")
    if then == now:
        return found
    with suppress(OSError, ValueError):  # none, or damaged: it is played again
        found, seal = _cached(now).read_text().split()
        return found if seal == _hash(now + found) else ""
    return ""


@cache
def _table() -> dict[str, str]:
    """Id → "code digest"."""
    return json.loads(TABLE.read_text())


def _cached(now: str) -> Path:
    return groups.cache_folder("behaviour") / now


def _play(spec: EnvSpec, now: str) -> str:
    """Plays it, and keeps the digest: in this process, and where it could be played, for others."""
    if now in _played:
        return _played[now]
    try:
        first, second = (trace_digest(spec) for _ in range(2))
    except Exception as error:  # what is wrong with it, the stage that plays it says
        let_pass(error)
        first = second = now
    found = _played[now] = first if first == second else now
    if first != now:
        _keep(_cached(now), f"{found} {_hash(now + found)}\n")
    return found


def _keep(path: Path, text: str) -> None:
    """Writes a file in one step, where there is room and leave to: else it is played again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        os.replace(temporary, path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Brings the table up to date: plays what is new or changed, and names what plays otherwise."""
    from ldm.envs.catalogue import load
    from ldm.parallel.progress import console

    specs = load()
    table = {id: _table().get(id, "") for id in specs}
    stale = [s for s in specs.values() if table[s.id].partition(" ")[0] != code(s)]
    playable = [s for s in stale if s.group == "main" or groups.group(s.group).installed]
    learn(playable, os.cpu_count() or 1)
    for spec in playable:
        found = behaviour(spec)
        if found != table[spec.id].partition(" ")[2]:
            console.print(f"{spec.id} plays otherwise", markup=False, highlight=False)
        table[spec.id] = f"{code(spec)} {found}"
    write(table)


def write(table: dict[str, str]) -> None:
    TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=0) + "\n")


if __name__ == "__main__":
    main()
