"""Methods of continual personalization, a file each."""

from cns_jax.methods.base import Method
from cns_jax.methods.cns import CNS
from cns_jax.methods.continual_diffusion import ContinualDiffusion
from cns_jax.methods.protected import Protected
from cns_jax.methods.textual_inversion import TextualInversion

METHODS: dict[str, type[Method]] = {
    "cns": CNS,
    "protected": Protected,
    "textual_inversion": TextualInversion,
    "continual_diffusion": ContinualDiffusion,
}
