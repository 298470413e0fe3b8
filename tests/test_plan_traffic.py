"""Who sits where, what transfers and all-reduces take there, and the cluster's file."""

import json

import pytest

from costmodels.plans.fleet import read_fleet
from costmodels.plans.seats import SeatOrder, Seats
from costmodels.plans.traffic import all_reduce_s, transfer_matrix_s
from synth.errors import InputError

CLUSTER = {
    "format": "pipesynth.cluster",
    "version": 1,
    "gpu": "v100",
    "gpus": 16,
    "gpus_per_node": 4,
    "memory_limit": "14GiB",
    "inside": "nvlink2",
    "efficiencies": {"link": 1.0},
    "between": {"bytes_per_second": 4e9, "latency_seconds": 1e-5, "shared_by": "node"},
}


def fleet_of(tmp_path, **changed):
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({**CLUSTER, **changed}))
    return read_fleet(str(path))


def seats(order, **changed):
    given = {"num_ranks": 4, "replicas": 4, "tensor": 1, "gpus_per_node": 4}
    return Seats(order=order, **{**given, **changed})


def test_stages_inside():
    """A pipeline in a node: no transfer leaves it, and all four rings do."""
    placed = seats(SeatOrder.STAGES)
    assert {placed.flows(a, b) for a in range(4) for b in range(4)} == {0}
    assert placed.rings == (4, 4, 4, 4)


def test_replicas_inside():
    """The replicas of a rank in a node: no ring leaves it, and all four transfers do."""
    placed = seats(SeatOrder.REPLICAS)
    assert placed.rings == (0, 0, 0, 0)
    assert placed.flows(0, 1) == 4


def test_tensor_peers_send_together():
    placed = seats(SeatOrder.REPLICAS, tensor=2, replicas=2)
    assert placed.nodes == ((0, 0), (1, 1), (2, 2), (3, 3))
    assert placed.flows(0, 1) == 4
    assert seats(SeatOrder.STAGES, tensor=2, replicas=1).flows(1, 2) == 2


def test_a_replica_over_two_nodes_slows_all():
    """Three ranks on nodes of four: the second pipeline's last two ranks are on the next node."""
    placed = seats(SeatOrder.STAGES, num_ranks=3, replicas=2)
    assert placed.nodes == ((0, 0), (0, 1), (0, 1))
    assert (placed.flows(0, 1), placed.flows(1, 2)) == (1, 0)
    assert placed.rings == (0, 2, 2)


def test_transfers_by_hand(tmp_path):
    """4 MB over a port of 4 GB/s that four share, and inside over 150 GB/s."""
    fleet = fleet_of(tmp_path)
    matrix = transfer_matrix_s(fleet, seats(SeatOrder.REPLICAS), 4_000_000)
    assert matrix[0][1] == pytest.approx(1e-5 + 4e-3)
    assert matrix[2][2] == 0
    inside = transfer_matrix_s(fleet, seats(SeatOrder.STAGES), 4_000_000)
    assert inside[0][1] == pytest.approx(5e-6 + 4e6 / 150e9)


def test_a_port_for_every_gpu(tmp_path):
    own = fleet_of(tmp_path, between={"bytes_per_second": 4e9, "latency_seconds": 1e-5})
    assert transfer_matrix_s(own, seats(SeatOrder.REPLICAS), 4_000_000)[0][1] == pytest.approx(1e-5 + 1e-3)


def test_what_a_runtime_adds(tmp_path):
    """To transfers between pipeline ranks, inside and outside, and to nothing else."""
    slow, fast = fleet_of(tmp_path, transfer_latency_seconds=0.5), fleet_of(tmp_path)
    placed = seats(SeatOrder.STAGES)
    assert transfer_matrix_s(slow, placed, 4)[0][1] == pytest.approx(0.5, rel=1e-6)
    assert all_reduce_s(slow, placed, 0, 4) == all_reduce_s(fast, placed, 0, 4)


def test_all_reduce_by_hand(tmp_path):
    """Six steps of a quarter each: four rings share a port, or each has its node's NVLink."""
    fleet = fleet_of(tmp_path)
    outside = all_reduce_s(fleet, seats(SeatOrder.STAGES), 0, 8_000_000)
    assert outside == pytest.approx(6 * (1e-5 + 2e6 / 1e9))
    assert all_reduce_s(fleet, seats(SeatOrder.REPLICAS), 0, 8_000_000) == pytest.approx(
        6 * (5e-6 + 2e6 / 150e9)
    )
    assert all_reduce_s(fleet, seats(SeatOrder.STAGES, replicas=1), 0, 8_000_000) == 0


def test_the_file(tmp_path):
    fleet = fleet_of(tmp_path)
    assert (fleet.num_gpus, fleet.cluster.gpus_per_node, fleet.shared_network) == (16, 4, True)
    assert fleet.cluster.memory_limit_bytes() == 14 * 2**30
    assert read_fleet("64xh100").num_gpus == 64
    assert fleet_of(tmp_path, memory_limit=123456).cluster.memory_limit_bytes() == 123456


def link(bytes_per_s, latency_s, *, of="between", **more):
    return {of: {"bytes_per_second": bytes_per_s, "latency_seconds": latency_s, **more}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gpus": 0}, "$.gpus is 0: give an integer from 1"),
        ({"gpu": "v1000"}, "'v1000' is no GPU of the catalogue"),
        ({"gpu": None}, "$.gpu is missing: give the name of a GPU"),
        ({"format": "pipesynth.problem"}, '$.format is "pipesynth.problem": give "pipesynth.cluster"'),
        ({"nodes": 3}, "$.nodes is 3: give one of"),
        ({"inside": 3}, "$.inside is 3: give a link of the catalogue"),
        ({"between": {"bytes_per_second": 0}}, "$.between.bytes_per_second is 0: give a number from 1"),
        ({"between": {"bytes_per_second": 1}}, "$.between.latency_seconds is missing: give a number"),
        ({"transfer_latency_seconds": -1}, "$.transfer_latency_seconds is -1: give a number from 0"),
        ({"memory_limit": "much"}, "'much' is no size"),
        ({"efficiencies": {"matmul": 2}}, "$.efficiencies.matmul is 2: give a number from 1e-06 to 1"),
        ({"efficiencies": {"link": 1e-300}}, "$.efficiencies.link is 1e-300: give a number from 1e-06 to 1"),
        (link(1e-300, 0), "$.between.bytes_per_second is 1e-300: give a number from 1 to 1e+18"),
        (link(1e300, 0), "$.between.bytes_per_second is 1e+300: give a number from 1 to 1e+18"),
        (link(1e9, 1e300), "$.between.latency_seconds is 1e+300: give a number from 0 to 3600"),
        ({"transfer_latency_seconds": 4000}, "$.transfer_latency_seconds is 4000: give a number from 0"),
        (link(1e9, 0, of="inside", shared_by="bogus"), '$.inside.shared_by is "bogus": give one of'),
        (link(1e9, 0, of="inside", shared_by="node"), '$.inside.shared_by is "node": give one of'),
        (link(1e9, 0, shared_by="room"), '$.between.shared_by is "room": give "rank" where'),
        ({"efficiencies": {"speed": 1}}, "$.efficiencies.speed is 1: give one of"),
    ],
)
def test_refused(tmp_path, changed, said):
    with pytest.raises(InputError) as refused:
        fleet_of(tmp_path, **changed)
    assert said in str(refused.value)


def test_a_count_is_of_some_gpus():
    with pytest.raises(InputError, match="a cluster of 0 GPUs"):
        read_fleet("0xh100")
