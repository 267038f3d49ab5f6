"""What a node says over HTTP: JSON answers, events, and metrics in Prometheus' text format, read strictly."""

import http.client
import json
import math
import re

from processes import WAIT_SECONDS

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def connect(node):
    host, port = node.status()["http"].rsplit(":", 1)
    return http.client.HTTPConnection(host, int(port), timeout=WAIT_SECONDS)


def get(node, path):
    """Status and text of an answer."""
    connection = connect(node)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get_json(node, path):
    status, text = get(node, path)
    return status, json.loads(text)


class Events:
    """A reader of /events."""

    def __init__(self, node, query=""):
        self.connection = connect(node)
        self.connection.request("GET", "/events" + query)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, (self.response.status, self.response.read())
        assert self.response.headers["Content-Type"] == "application/x-ndjson"

    def next(self, *types):
        """The next event of one of these types, of any but a heartbeat without them; None at the end."""
        while line := self.response.readline():
            event = json.loads(line)
            if event["type"] in types or not types and event["type"] != "heartbeat":
                return event
        return None

    def close(self):
        self.connection.close()


def labels_of(text):
    labels, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match, f"these are no labels: {text}"
        assert match[1] not in labels, text
        labels[match[1]] = match[2]
        at = match.end()
    return labels


class Metrics:
    """The metrics of a node at one moment."""

    def __init__(self, node):
        status, text = get(node, "/metrics")
        assert status == 200, text
        self.types = {}
        self.samples = {}  # (name, labels in order) -> value
        family = None
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                assert family not in self.types, f"{family} is there twice"
                assert line.split(" ", 3)[3], line
            elif line.startswith("# TYPE "):
                name, kind = line.split(" ")[2:]
                assert name == family and kind in SUFFIXES, line
                assert (kind == "counter") == name.endswith("_total"), line
                self.types[name] = kind
            else:
                self.add(family, line)
        for name, kind in self.types.items():
            if kind == "histogram":
                self.check_histogram(name)

    def add(self, family, line):
        match = SAMPLE.fullmatch(line)
        assert match, f"this is no sample: {line}"
        name, labels = match[1], labels_of(match[2] or "")
        assert name in [family + suffix for suffix in SUFFIXES[self.types[family]]], line
        key = (name, tuple(sorted(labels.items())))
        assert key not in self.samples, f"{line} is there twice"
        self.samples[key] = float(match[3])

    def check_histogram(self, name):
        buckets = sorted((float(labels[0][1]), value) for (sample, labels), value in self.samples.items()
                         if sample == name + "_bucket")
        assert buckets[-1] == (math.inf, self[name + "_count"]), buckets
        assert [value for _, value in buckets] == sorted(value for _, value in buckets), buckets

    def __getitem__(self, name):
        return self.get(name)

    def get(self, name, **labels):
        return self.samples[(name, tuple(sorted(labels.items())))]

    def names(self):
        return {name for name, _ in self.samples}
