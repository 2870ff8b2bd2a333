"""Methods of continual personalization, a file each."""

from cns_jax.methods.cns import CNS

METHODS = {"cns": CNS}
