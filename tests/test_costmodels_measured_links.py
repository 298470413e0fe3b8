"""Links: the fit recovers a line, the file says what was measured, and two processes measure one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_models import BYTES_PER_S, LATENCY_S, measured_links

from costmodels.measured.link_costs import fit_link, pair_bytes, read_links, uniform_links, write_links
from costmodels.measured.links import main
from synth.errors import InputError

GOOD = uniform_links(2, 1e-5, 1e9, "by hand")


@given(
    latency=st.floats(1e-7, 1e-2),
    speed=st.floats(1e6, 1e12),
    sizes=st.sets(st.integers(1, 2**30), min_size=2, max_size=8),
)
def test_points_on_a_line_give_the_line(latency, speed, sizes):
    found_latency, found_speed = fit_link({size: latency + size / speed for size in sizes})
    for size in sizes:
        assert found_latency + size / found_speed == pytest.approx(latency + size / speed, rel=1e-4)


def test_latency_and_speed():
    times = {size: 20e-6 + size / 10e9 for size in (1024, 65536, 1 << 24)}
    assert fit_link(times) == pytest.approx((20e-6, 10e9))


def test_latency_is_never_below_zero():
    """Small messages quicker than the line through large ones."""
    latency, speed = fit_link({1000: 0.5e-6, 1_000_000: 1000e-6, 2_000_000: 2000e-6})
    assert latency == 0.0
    assert speed == pytest.approx(1.2e9, rel=0.3)


@pytest.mark.parametrize("wrong", [float("nan"), 0.0, -1e-6, float("inf")])
def test_what_is_no_time_is_refused(wrong):
    with pytest.raises(InputError, match=r"a message of 4096 bytes took .* s: a time is finite and above 0"):
        fit_link({1024: 1e-6, 4096: wrong})


def test_messages_that_take_no_longer_are_refused():
    with pytest.raises(
        InputError, match=r"messages of up to 4096 bytes take no longer .*: measure larger ones"
    ):
        fit_link({1024: 2e-6, 4096: 1e-6})


def test_file_says_the_same():
    assert read_links(write_links(GOOD), "links.json") == GOOD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "pipesynth.problem"}, "holds no measured links"),
        ({"version": 2}, "holds no measured links"),
        ({"latency_s": None}, "latency_s is no matrix"),
        ({"latency_s": [[0, 1e-6]]}, r"latency_s\[0\] does not have 1 entries"),
        (
            {"latency_s": [[0, -1e-6], [0, 0]]},
            r"latency_s\[0\]\[1\] is -1e-06: give a finite number at least 0",
        ),
        ({"bytes_per_s": [[0, 0], [1, 0]]}, r"bytes_per_s\[0\]\[1\] is 0: give a finite number above 0"),
        ({"bytes_per_s": [[0, "fast"], [1, 0]]}, r"bytes_per_s\[0\]\[1\] is fast"),
        ({"bytes_per_s": [[0, True], [1, 0]]}, r"bytes_per_s\[0\]\[1\] is True"),
        ({"bytes_per_s": [[0, float("inf")], [1, 0]]}, r"bytes_per_s\[0\]\[1\] is inf"),
        ({"bytes_per_s": [[0, 10**400], [1, 0]]}, r"bytes_per_s\[0\]\[1\] is 1000"),
        ({"latency_s": [[-1, 1], [0, 0]]}, r"latency_s\[0\]\[0\] is -1: give a finite number at least 0"),
        ({"bytes_per_s": [[0]]}, "latency_s is for 2 ranks and bytes_per_s for 1"),
    ],
)
def test_wrong_file_is_refused(change, words):
    tree = json.loads(write_links(GOOD)) | change
    with pytest.raises(InputError, match=words):
        read_links(json.dumps(tree), "links.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(InputError, match=r"links\.json is no JSON: give a file of measured links"):
        read_links(text, "links.json")


def test_nan_in_a_file_is_refused():
    text = write_links(GOOD).replace("1e-05", "NaN")
    with pytest.raises(InputError, match=r"latency_s\[0\]\[0\] is nan: give a finite number at least 0"):
        read_links(text, "links.json")


def test_a_pair_carries_outputs_one_way_and_gradients_the_other():
    """A V of two ranks: stages 0 to 3 on ranks 0, 1, 1, 0."""
    assert pair_bytes([100, 7, 300], [0, 1, 1, 0]) == {(0, 1): 300, (1, 0): 300, (1, 1): 7}


def test_two_processes_measure_their_link(pool):
    links, other = pool.run(2, measured_links)
    assert other is None
    assert links.latency_s[0][1] == links.latency_s[1][0] == pytest.approx(LATENCY_S)
    assert links.bytes_per_s[0][1] == links.bytes_per_s[1][0] == pytest.approx(BYTES_PER_S)
    assert links.source.startswith("ping-pong over gloo on cpu")
    assert read_links(write_links(links), "links.json") == links


def test_every_pair_of_three_is_measured(pool):
    links, *_ = pool.run(3, measured_links)
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    assert [links.seconds(a, b, 1000) for a, b in pairs] == pytest.approx([LATENCY_S + 1e-6] * 6)


@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        ({}, [], "this process has no rank: start it by torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, [], "one process is started, and a link is between two"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ["--largest", "2000"], "20 rounds up to 2000 bytes are given"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ["--rounds", "0"], "0 rounds up to 16777216 bytes are given"),
    ],
)
def test_probe_says_what_is_missing(monkeypatch, capsys, environment, arguments, words):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["-o", "links.json", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"pipesynth: {words}")
