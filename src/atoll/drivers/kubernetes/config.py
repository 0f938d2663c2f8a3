"""What the site file of a Kubernetes site may say under `config`."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from atoll.core.resources import Bytes, Milli, Seconds
from atoll.core.spec import Document, JobClass, Name, Text, explain_validation

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")

DnsLabel = Annotated[str, StringConstraints(pattern=_DNS_LABEL)]
LabelKey = Annotated[str, StringConstraints(pattern=_LABEL_KEY, max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=_LABEL_VALUE)]
Labels = dict[LabelKey, LabelValue]


def _template(*known: str) -> AfterValidator:
    """A text whose placeholders are all among `known`."""

    def check(text: str) -> str:
        for found in _PLACEHOLDER.findall(text):
            if found[1:-1] not in known:
                raise ValueError(f"{found} means nothing here; write {' or '.join(f'{{{name}}}' for name in known)}")
        return text

    return AfterValidator(check)


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} must be an absolute path")
    return path


Path = Annotated[str, AfterValidator(_absolute)]
ByPerson = Annotated[str, StringConstraints(min_length=1, max_length=255), _template("account", "person", "project")]
ByProject = Annotated[str, StringConstraints(min_length=1, max_length=63), _template("project")]


class Impersonation(Document):
    """As whom the cluster is to take what is made for a person."""

    user: Annotated[ByPerson, Field(description="Name of the user.")] = "{account}"
    group: Annotated[ByPerson | None, Field(description="A group of the user, as in atoll:{project}.")] = None


class Toleration(Document):
    """A taint that jobs tolerate, as Kubernetes has it."""

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Claim(Document):
    """A volume of the site: a PersistentVolumeClaim in the job's namespace."""

    claim: DnsLabel
    read_only: bool = False
    folder: Annotated[
        Annotated[str, _template("account", "person", "project")] | None,
        Field(description="Folder of the claim that is mounted, as in home/{account}. Default: all of it."),
    ] = None


class UnixId(Document):
    """The numbers that a job's processes run with; never root's."""

    user: Annotated[int, Field(ge=1, le=4_294_967_294)] = 1000
    group: Annotated[int, Field(ge=1, le=4_294_967_294)] = 1000
    groups: Annotated[list[Annotated[int, Field(ge=1, le=4_294_967_294)]], Field(default_factory=list, max_length=1000)]


class FlavorRule(Document):
    """A kind of hardware: the nodes that have all these labels, and what a GPU is called there."""

    labels: Annotated[Labels, Field(default_factory=dict)]
    resource: Annotated[
        LabelKey | None,
        Field(description="What counts as one GPU, as in nvidia.com/mig-1g.10gb. Default: gpu_resource."),
    ] = None


class Queue(Document):
    """Hands jobs to Kueue."""

    name: Annotated[LabelValue, Field(min_length=1, description="The LocalQueue of the job's namespace.")]


class Keeper(Document):
    """The container beside each job, which keeps its files readable until they are collected."""

    cpu: Annotated[Milli, Field(ge=1)] = 50
    memory: Bytes = 32 << 20
    seconds: Annotated[Seconds, Field(ge=1, le=86400, description="How long after the end it waits to be read.")] = 30
    files_seconds: Annotated[Seconds, Field(ge=1, le=7 * 86400, description="The same for jobs with files_out.")] = 600


class KubernetesConfig(Document):
    """How a cluster is reached, as whom, and what its jobs look like."""

    kubeconfig: Annotated[
        Path | None, Field(description="Path of a kubeconfig file. Default: the pod that the platform itself runs in.")
    ] = None
    context: Annotated[Text | None, Field(description="Context of the kubeconfig. Default: its current one.")] = None
    timeout: Annotated[Seconds, Field(ge=1, le=600, description="Longest wait for an answer.")] = 30

    namespace: Annotated[ByProject, Field(description="Namespace of each project.")] = "atoll-{project}"
    make_namespaces: Annotated[bool, Field(description="Whether namespaces that are missing are made.")] = True
    impersonate: Annotated[Impersonation | None, Field(description="The user as whom jobs are made.")] = None
    service_account: Annotated[ByPerson | None, Field(description="ServiceAccount of the pods.")] = None
    mount_token: Annotated[bool, Field(description="Whether pods get a token of their ServiceAccount.")] = False
    run_as: Annotated[UnixId, Field(default_factory=UnixId, description="Numeric user and group of processes.")]
    accounts: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=255)], UnixId],
        Field(default_factory=dict, description="The same for single accounts."),
    ]

    image: Annotated[Text | None, Field(description="Image of jobs that name none.")] = None
    pull: Annotated[Literal["Always", "IfNotPresent", "Never"], Field(description="When images are pulled.")] = (
        "IfNotPresent"
    )
    pull_secrets: Annotated[
        list[DnsLabel], Field(default_factory=list, description="Secrets with the registries' passwords.")
    ]
    image_patience: Annotated[Seconds, Field(description="After so long an image that cannot be had is given up.")] = (
        300
    )
    keeper: Annotated[Keeper, Field(description="The container beside each job.")] = Keeper()

    node_selector: Annotated[Labels, Field(default_factory=dict, description="Labels of the nodes that are used.")]
    tolerations: Annotated[
        list[Toleration], Field(default_factory=list, max_length=100, description="Taints that jobs tolerate.")
    ]
    priority_classes: Annotated[
        dict[JobClass, DnsLabel], Field(default_factory=dict, description="PriorityClass of each class of jobs.")
    ]
    runtime_class: Annotated[DnsLabel | None, Field(description="RuntimeClass of the pods.")] = None
    gpu_runtime_class: Annotated[DnsLabel | None, Field(description="RuntimeClass of pods with GPUs.")] = None
    queue: Annotated[Queue | None, Field(description="Hands jobs to Kueue.")] = None
    nodes: Annotated[
        Literal["cluster", "owned"],
        Field(description="Who chooses the node of each pod: the cluster's scheduler, or Atoll."),
    ] = "cluster"
    autoscaling: Annotated[
        bool, Field(description="Whether the cluster may grow, so that nothing is refused for its size.")
    ] = False

    flavors: Annotated[
        dict[Name, FlavorRule],
        Field(default_factory=dict, description="Kinds of hardware; the first that fits counts."),
    ]
    flavor_label: Annotated[LabelKey | None, Field(description="Label whose value names the kind of other nodes.")] = (
        "nvidia.com/gpu.product"
    )
    gpu_resource: Annotated[LabelKey, Field(description="What counts as one GPU.")] = "nvidia.com/gpu"

    volumes: Annotated[dict[Name, Claim], Field(default_factory=dict, description="Volumes that jobs may name.")]
    checkpoints: Annotated[
        DnsLabel | None, Field(description="Claim that keeps checkpoint folders. Default: they end with the attempt.")
    ] = None
    environment: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")], str],
        Field(default_factory=dict, description="Variables that all jobs get."),
    ]
    start_within: Annotated[
        Seconds,
        Field(description="How long the nodes of one job wait for each other, and a job for the node chosen for it."),
    ] = 300

    @model_validator(mode="after")
    def _context_of_a_file(self) -> Self:
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("context: there is no kubeconfig that it could be in")
        return self

    @model_validator(mode="after")
    def _nodes_of_one(self) -> Self:
        if self.owns_nodes and (self.queue is not None or self.autoscaling):
            other = "autoscaling" if self.autoscaling else "queue"
            raise ValueError(f"nodes: with {other} it is not Atoll that decides where and when a pod starts; use one")
        return self

    @property
    def owns_nodes(self) -> bool:
        """Whether Atoll chooses the nodes."""
        return self.nodes == "owned"

    @property
    def many_namespaces(self) -> bool:
        """Whether projects have namespaces of their own."""
        return "{" in self.namespace


_NESTED: dict[str, type[Document]] = {
    "impersonate": Impersonation, "tolerations": Toleration, "volumes": Claim, "run_as": UnixId, "accounts": UnixId,
    "flavors": FlavorRule, "queue": Queue, "keeper": Keeper,
}  # fmt: skip
_KNOWN = {"": list(KubernetesConfig.model_fields)} | {name: list(each.model_fields) for name, each in _NESTED.items()}


def read_config(config: Mapping[str, Any]) -> KubernetesConfig:
    """The configuration that plain data says. Raises Invalid, naming the field."""
    try:
        return KubernetesConfig.model_validate(dict(config))
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "site", "config.") from None
