"""Refusals: counted, bounded, and not multiplied in the log."""

from __future__ import annotations

import logging

import pytest

from moim.edge.refusals import Refusals


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_same_refusal_is_one_entry(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            refusals.for_listener("edge-https")("192.0.2.1", "no rule covers it")
        assert len(caplog.records) == 1
        clock.now += 11
        refusals.add("192.0.2.1", "edge-https", "no rule covers it")
    assert len(caplog.records) == 2
    assert "4 more times" in caplog.records[1].message
    (entry,) = refusals.list()
    assert (entry.times, entry.at) == (6, clock.now)
    assert refusals.counters["refused.edge-https"] == 6


def test_the_list_and_the_log_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(clock=Clock())
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            refusals.add(f"192.0.2.{number}", "edge-https", "x" * 1000)
    assert len(refusals.list()) == 200
    assert refusals.list()[0].client == "192.0.2.999"
    assert len(refusals.list()[0].reason) == 300
    assert len(caplog.records) <= 101


def test_a_reason_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(clock=Clock())
    refusals.add("192.0.2.1", "edge-https", "a\r\n2026 forged\x1b[0m")
    assert "\n" not in caplog.text.strip()
    assert "\x1b" not in refusals.list()[0].reason
