"""What the catalogue knows about an environment before it is built."""

from dataclasses import dataclass, field

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
    held_out: bool = False  # never trained on
