"""Which test brings a node to which failpoint, and how.

A point belongs to the entry with the longest start of its name. An entry: the test, what the test is to do (for the
most part a step of failpoint_application.Churn), and at which hits of the point the daemon is killed: in short form, and in
addition in long form (ECHOFS_LONG=1). ECHOFS_TEST_POINT limits a test to the points that have this in their names.
"""

import collections
import os

from processes import LONG, run

Area = collections.namedtuple("Area", "test step hits more", defaults=((1,), (2, 3, 7)))

TABLE = {
    # The node under test is the primary.
    "commit.page_write": Area("PrimaryTest.test_rollback_journals", "delete"),
    "commit.journal_": Area("PrimaryTest.test_rollback_journals", "delete truncate persist"),
    "commit.wal_": Area("PrimaryTest.test_wal", "load"),
    "checkpoint.": Area("PrimaryTest.test_wal", "load"),
    "checkpoint.wal_truncate": Area("PrimaryTest.test_wal", "solo"),
    "checkpoint.wal_remove": Area("PrimaryTest.test_wal", "solo"),
    "drop.": Area("PrimaryTest.test_wal", "drop"),
    # A static primary opens a term at its start, which is the first hit.
    "log.append": Area("PrimaryTest.test_log", "load", (1, 10)),
    "log.sync": Area("PrimaryTest.test_log", "load", (1, 10)),
    "log.watermark": Area("PrimaryTest.test_log", "load", (1, 10)),
    "log.header": Area("PrimaryTest.test_log", "big"),
    "state.": Area("PrimaryTest.test_log", "load", (1,), ()),
    # It is the replica.
    "apply.": Area("ReplicaTest.test_apply", "load"),
    "apply.new_file": Area("ReplicaTest.test_apply", "drop"),
    "apply.drop": Area("ReplicaTest.test_apply", "drop"),
    "apply.leave_wal": Area("ReplicaTest.test_apply", "modes"),
    "apply.checkpoint": Area("ReplicaTest.test_checkpoint", "big"),
    "apply.wal_restart": Area("ReplicaTest.test_checkpoint", "big"),
    "apply.sync_": Area("ReplicaTest.test_checkpoint", "end", (1,), ()),
    # Recovery: a daemon that was killed before is killed again at its next start. See RecoveryTest.
    "log.open_cut": Area("RecoveryTest.test_recovery", "log.header.before:1 big", (1,), ()),
    "recover.rollback": Area("RecoveryTest.test_recovery", "commit.page_write.after:1 load", (1,), ()),
    "recover.take_journal": Area("RecoveryTest.test_recovery", "commit.journal_end.before:1 attached", (1,), ()),
    "recover.wal_log": Area("RecoveryTest.test_recovery", "commit.wal_log.before:1 load", (1,), ()),
    "recover.redo": Area("RecoveryTest.test_recovery", "commit.journal_end.before:1 load", (1,), ()),
    "recover.fold": Area("RecoveryTest.test_recovery", "apply.position.before:20 load", (1,), ()),
    "recover.position": Area("RecoveryTest.test_recovery", "apply.position.before:20 load", (1,), (2,)),
    # Old segments go, new nodes come.
    "log.roll": Area("SegmentTest.test_segments_and_copies", "primary big"),
    "log.retain": Area("SegmentTest.test_segments_and_copies", "primary big"),
    "log.create": Area("SegmentTest.test_segments_and_copies", "empty load", (1,), ()),
    "log.reset": Area("SegmentTest.test_segments_and_copies", "empty load", (1,), ()),
    "copy.": Area("SegmentTest.test_segments_and_copies", "empty load", (1,), (2, 3)),
    # A former primary goes back to the history.
    "rewind.": Area("RewindTest.test_rewind", "", (1,), ()),
    "rewind.position": Area("RewindTest.test_rewind", "", (1,), (2,)),
    "log.cut": Area("RewindTest.test_rewind", "", (1,), ()),
    "recover.as_replica": Area("RewindTest.test_rewind", "", (1,), (2,)),
    # With a lease and min-sync-replicas. See LeaseTest.
    "commit.ack": Area("LeaseTest.test_lease", "lead"),
    "lease.renew": Area("LeaseTest.test_lease", "lead"),
    "lease.acquire": Area("LeaseTest.test_lease", "failover", (1,), ()),
    "lease.release": Area("LeaseTest.test_lease", "release", (1,), ()),
    "lease.transfer": Area("StepdownTest.test_stepdown", "give", (1,), ()),
    "lease.in_sync": Area("InSyncTest.test_in_sync", "", (1, 2), ()),
    "stepdown.": Area("StepdownTest.test_stepdown", "give", (1,), (2,)),
    "takeover.": Area("TakeoverTest.test_takeover", "take failover", (1,), (2,)),
}


def area_of(name):
    """None when no test brings a node there."""
    starts = [start for start in TABLE if name.startswith(start)]
    return TABLE[max(starts, key=len)] if starts else None


def names():
    """Of all failpoints of the program under test."""
    return run([os.environ["ECHOFS"], "failpoints"]).stdout.split()


def points_of(test):
    """(name, step, hit) of each death that a test brings about."""
    found = []
    for name in names():
        area = area_of(name)
        if area and area.test == test and os.environ.get("ECHOFS_TEST_POINT", "") in name:
            found += [(name, area.step, hit) for hit in (*area.hits, *(area.more if LONG else ()))]
    return found
