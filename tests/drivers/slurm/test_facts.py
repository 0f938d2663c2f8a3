"""What scontrol says of a cluster becomes flavors, limits and notes."""

import pytest

from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.drivers.base import DriverError
from atoll.drivers.slurm.config import ClassOptions
from atoll.drivers.slurm.facts import MARK, Facts, flavors, notes, read_facts

GIB = 1 << 30
CONFIG = """Configuration data as of 2026-11-23T02:43:00
AccountingStorageType   = accounting_storage/none
ClusterName             = blue
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
PrivateData             = none
ProctrackType           = proctrack/cgroup
SLURM_VERSION           = 23.11.4
TaskPlugin              = task/affinity,task/cgroup
"""
PARTITIONS = """PartitionName=short AllowQos=ALL Default=YES MaxNodes=UNLIMITED MaxTime=1-00:00:00 State=UP
PartitionName=gpu AllowGroups=ALL Default=NO MaxNodes=4 MaxTime=UNLIMITED Nodes=g1 State=DOWN
"""


def node(name: str, partition: str = "short", **fields: str) -> str:
    usual = {
        "Arch": "x86_64", "CPUAlloc": "4", "CPUEfctv": "16", "CPUTot": "16", "ActiveFeatures": "(null)",
        "Gres": "(null)", "GresUsed": "gpu:0", "NodeAddr": "10.0.0.1", "OS": "Linux 6.1 #1 SMP", "RealMemory": "65536",
        "AllocMem": "1024", "State": "MIXED", "Partitions": partition,
    }  # fmt: skip
    return " ".join([f"NodeName={name}", *(f"{key}={value}" for key, value in {**usual, **fields}.items())])


GPU = node("g1", "gpu", Gres="gpu:A100:4(S:0-1)", GresUsed="gpu:A100:3(IDX:0-2)", ActiveFeatures="nvlink,fast")


def said(
    *nodes: str, config: str = CONFIG, reservations: str = "No reservations in the system\n", rest: str = "",
    qos: str = "", accounts: str = "",
) -> str:  # fmt: skip
    described = "".join(f"{line}\n" for line in nodes)
    return f"{MARK}\n".join([config, PARTITIONS, described, reservations, rest, qos, accounts])


def facts(*nodes: str, **parts: str) -> Facts:
    return read_facts(said(*nodes, **parts))


def test_nodes_become_flavors_with_what_is_free() -> None:
    cpu, gpu = flavors(facts(node("c1"), node("c2", CPUAlloc="0", AllocMem="0"), GPU).nodes)
    assert (cpu.name, cpu.nodes, gpu.name, gpu.nodes) == ("cpu", 2, "gpu-a100", 1)
    assert cpu.total == Resources(32_000, 128 * GIB)
    assert cpu.free == Resources(28_000, 127 * GIB)
    assert cpu.node == Resources(16_000, 64 * GIB)
    assert (gpu.total.gpu, gpu.free and gpu.free.gpu) == (4000, 1000)


def test_class_runs_as_long_as_its_partition_and_its_quality_of_service_allow() -> None:
    found = facts(node("c1"), qos="normal|\ndebug|00:30:00\nlong|14-00:00:00\n")
    longest = {
        options: found.longest(ClassOptions(**dict(pair.split("=") for pair in options.split())))
        for options in ("", "qos=normal", "qos=debug", "qos=long", "partition=gpu", "partition=gpu qos=long", "qos=new")
    }
    day = 86400
    assert longest == {
        "": day, "qos=normal": day, "qos=debug": 1800, "qos=long": day, "partition=gpu": None,
        "partition=gpu qos=long": 14 * day, "qos=new": day,
    }  # fmt: skip


def test_what_the_site_file_names_and_the_cluster_has_not_is_said() -> None:
    classes = {
        JobClass.BATCH: ClassOptions(qos="lnog", account="lab", reservation="course"),
        JobClass.SERVICE: ClassOptions(qos="long", account="lba"),
    }
    told = facts(
        node("c1"), qos="normal|\nlong|\n", accounts="root\nlab\n", reservations="ReservationName=course Nodes=c1\n"
    )
    assert told.unknown(classes) == [
        "classes.batch.qos: the cluster has no quality of service 'lnog'; it has: long, normal.",
        "classes.service.account: the cluster has no account 'lba'; it has: lab, root.",
    ]
    silent = facts(node("c1")).unknown(classes)
    assert silent == ["classes.batch.reservation: the cluster has no reservation 'course'; it has: none."]


def test_programs_and_the_clusters_oci_conf_are_known_by_their_names() -> None:
    found = facts(node("c1"), rest="/usr/bin/ch-run\n/etc/slurm/oci.conf\nconda is a function\n").programs
    assert found == {"ch-run": "/usr/bin/ch-run", "oci.conf": "/etc/slurm/oci.conf"}


@pytest.mark.parametrize("state", ["DOWN", "IDLE+DRAIN", "MIXED*", "DOWN*+NOT_RESPONDING", "IDLE+MAINT", "UNKNOWN"])
def test_node_that_is_away_has_nothing_free(state: str) -> None:
    (flavor,) = flavors(facts(node("c1", State=state)).nodes)
    assert flavor.free == Resources()
    assert flavor.total.cpu == 16_000


def test_untyped_and_several_gpus_are_counted() -> None:
    plain, mixed = facts(node("g1", Gres="gpu:2"), node("g2", Gres="gpu:a100:2,gpu:h100:4(S:0),shard:8")).nodes
    assert (plain.total.gpu, plain.flavor) == (2000, "gpu-unknown")
    assert (mixed.total.gpu, mixed.flavor, mixed.gpu_types) == (6000, "gpu-h100", frozenset({"a100", "h100"}))


def test_partitions_have_their_limits_and_the_default_one_is_known() -> None:
    read = facts(node("c1"))
    assert read.partitions["short"].max_time == 86_400
    assert read.partitions["gpu"].max_time is None
    assert list(read.partitions_of([None])) == ["short"]
    assert list(read.partitions_of(["gpu,short"])) == ["gpu", "short"]


def test_unknown_partition_is_named_with_those_there_are() -> None:
    with pytest.raises(DriverError, match=r"no partition 'long'; it has: gpu, short"):
        facts(node("c1")).partitions_of(["long"])


def test_version_settings_reservations_and_programs_are_read() -> None:
    read = facts(GPU, reservations="ReservationName=course StartTime=now\n", rest="/usr/bin/apptainer\n")
    assert (read.version, read.cluster, read.accounting) == ((23, 11), "blue", False)
    assert read.number("MinJobAge", 1) == 300
    assert read.reservations == ("course",)
    assert read.programs == {"apptainer": "/usr/bin/apptainer"}


def test_operator_is_told_what_works_less_well() -> None:
    plain = CONFIG.replace("task/affinity,task/cgroup", "task/none").replace(
        "PrivateData             = none", "PrivateData = jobs"
    )
    told = " ".join(notes(facts(node("c1"), config=plain)))
    assert "task/cgroup" in told
    assert "PrivateData" in told
    assert "300 s" in told
    assert not notes(facts(node("c1"), config=CONFIG.replace("accounting_storage/none", "accounting_storage/slurmdbd")))


def test_garbage_is_an_error() -> None:
    with pytest.raises(DriverError):
        read_facts("Welcome to blue!\n")
