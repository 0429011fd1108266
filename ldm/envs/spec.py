"""What the catalogue knows about an environment before it is built."""

from dataclasses import dataclass, field

from ldm.envs import spaces

BEHAVIOUR = (
    *("id", "make", "backend", "group", "adapter", "options", "leaves", "horizon"),
    *("data_driven", "hidden_state_spans_episodes"),
)
DOMAINS = ("robotics", "driving", "inventory", "cybersecurity", "trading", "energy", "games")


@dataclass(frozen=True)
class EnvSpec:
    """One configuration of a base task.

    id: "library/name". library: the catalogue file it stands in. make: the name that the library's
    own constructor takes. backend: "envpool" (in this process) or "worker". group: which set of
    pinned libraries it lives in. horizon: steps after which it is truncated.
    """

    id: str
    library: str
    make: str
    backend: str
    domain: str
    modality: str  # "vector", "image", "symbols", "text", "mixed"
    base_task: str
    horizon: int
    licence: str
    group: str = "main"
    adapter: str = "gymnasium"  # file in ldm/envs/adapters that builds it inside a worker
    options: dict = field(default_factory=dict)  # arguments of the constructor
    leaves: dict = field(default_factory=dict)  # observation leaves declared anew: spaces.override
    data_driven: bool = False  # replays data: has a "train" and a "test" range
    hidden_state_spans_episodes: bool = False  # then a segment runs over several episodes
    alone: bool = False  # its library holds one instance a process: every stream has its own
    step_seconds: float = 60.0  # deadline of one call to a worker: a step, or a reset, of its rows
    memory_gb: float = 8.0  # a worker that holds more is restarted
    packages: list[str] = field(default_factory=list)  # distributions behind it; default: library
    shared: list[str] = field(default_factory=list)  # libraries of the system that it links
    experts: list[str] = field(default_factory=list)  # modules of a user's own experts for it
    held_out: bool = False  # its base task is one that recipes keep out of training: held_out.py

    def identity(self) -> dict:
        """The fields that decide how it behaves, as plain data: results are keyed by them. Labels
        (domain, base task, licence, held out ...) may change without making anything anew."""
        return {name: getattr(self, name) for name in BEHAVIOUR}


def domain_order(domain: str) -> tuple:
    """Sorts domains: ours as they stand in DOMAINS, then users' own by name."""
    return (DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS), domain)


def slug(id: str) -> str:
    """The name of an environment's files and folders."""
    return id.replace("/", "__").replace(":", ".")


def modality_of(kinds: set[str]) -> str:
    """EnvSpec.modality of an observation whose leaves are of these kinds."""
    if spaces.TEXT in kinds:
        return "text" if spaces.IMAGE not in kinds else "mixed"
    names = {spaces.CONTINUOUS: "vector", spaces.DISCRETE: "symbols", spaces.IMAGE: "image"}
    return names[next(iter(kinds))] if len(kinds) == 1 else "mixed"
