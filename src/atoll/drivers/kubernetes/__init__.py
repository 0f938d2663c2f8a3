"""The Kubernetes driver: one Job for each attempt, at any conformant cluster from 1.29 on."""

from atoll.drivers.kubernetes.driver import KubernetesDriver

__all__ = ["KubernetesDriver"]
