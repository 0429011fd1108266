"""Supply networks of gym-invmgmt: base-stock ordering, hosted by the environment."""

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Hosted, expert


@expert("gym-invmgmt/*", hosted="base-stock")
def base_stock(spec: EnvSpec) -> Hosted:
    """Every node orders up to its lead time's demand, from what the observation shows."""
    return Hosted("hosted/base-stock@1")
