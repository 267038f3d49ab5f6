"""Whether the replica has what the primary has."""

import time

CONVERGE_SECONDS = 900  # walbig.test commits 5 million pages


def positions(node):
    status = node.status()
    if status is None:
        return None
    return status["log"]["index"], {
        entry["name"]: (entry["txid"], entry["digest"], entry["pages"], entry["page_size"],
                        entry["state"])
        for entry in status["databases"]}


def restart_dead(cluster):
    """Starts nodes again that have died; returns their names."""
    dead = [node for node in cluster.nodes if node.process.poll() is not None]
    for node in dead:
        node.process = None
        node.start()
    return [node.name for node in dead]


class Convergence:
    def __init__(self, cluster):
        self.cluster = cluster
        self.databases = 0  # that were the same on both nodes

    def check(self, test):
        """Waits until the replica has every database as the primary has it. Says what differs."""
        dead = restart_dead(self.cluster)
        if dead:
            return [f"node {node} died in {test}, and was started again" for node in dead]
        end = time.monotonic() + CONVERGE_SECONDS
        while True:
            found = [positions(node) for node in self.cluster.nodes]
            if found[0] is not None and found[0] == found[1]:
                self.databases += len(found[0][1])
                return []
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        if None in found:
            return ["a node does not answer"]
        (primary_index, primary), (replica_index, replica) = found
        differences = [f"{name} is {primary.get(name)}, on the replica {replica.get(name)}"
                       for name in sorted(primary.keys() | replica.keys())
                       if primary.get(name) != replica.get(name)]
        return differences or [
            f"the log's index is {primary_index}, on the replica {replica_index}"]
