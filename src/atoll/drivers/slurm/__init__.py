"""Attempts as jobs of a Slurm cluster, spoken to by its commands, here or at a login node, or by slurmrestd."""

from atoll.drivers.slurm.driver import SlurmDriver

__all__ = ["SlurmDriver"]
