"""Methods of continual personalization, a file each."""

from cns_jax.methods.cns import CNS
from cns_jax.methods.protected import Protected

METHODS = {"cns": CNS, "protected": Protected}
