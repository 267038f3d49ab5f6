"""What bench.py makes of its results: a table, JSON, a section of a document, a picture."""

import os
import platform
import re

import places
from nodes import Failed, read_text

BEGIN = "<!-- made by ./dev bench --markdown: -->"
END = "<!-- end of what is made -->"


def machine():
    model = re.search(r"model name\s*: (.*)", read_text("/proc/cpuinfo"))
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "cpu": model.group(1) if model else "",
            "load": os.getloadavg()[0]}


def summarize(raw, themes):
    """Medians and ratios of the raw results, in the order of the themes."""
    return {name: theme.summarize(name, raw[name]) for theme in themes for name in theme.NAMES if raw.get(name)}


def tables(summary, themes):
    found = [places.speed_table(summary), places.use_table(summary)]
    for theme in themes:
        found += theme.tables(summary)
    return [table for table in found if table.rows]


def sentences(report, themes):
    lines = [line for theme in themes for line in theme.sentences(report["summary"])]
    lines += [f"{name}: skipped: {why}" for name, why in report["skipped"].items()]
    lines += [f"{name}: FAILED: {why}" for name, why in report["errors"].items()]
    return lines


def warning(report):
    return "measured with --quick: the figures mean nothing" if report["quick"] else ""


def text(report, themes):
    parts = [table.text() for table in tables(report["summary"], themes)]
    parts.append("\n".join([line for line in [warning(report)] if line] + sentences(report, themes)))
    return "\n\n".join(part for part in parts if part)


def markdown(report, themes):
    m = report["machine"]
    about = (f"Measured on {m['cpus']} CPUs ({m['cpu']}), Linux {m['kernel']}; {report['sizes']['rounds']} rounds, "
             f"{report['sizes']['seconds']:g} s a run, load before it {m['load']:.1f}.")
    parts = [about, warning(report), *(table.markdown() for table in tables(report["summary"], themes)),
             "\n".join("- " + line for line in sentences(report, themes))]
    return "\n\n".join(part for part in parts if part)


def replace_section(document, section):
    """The document with what is between the marks replaced."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise Failed(f"the document needs one line '{BEGIN}' and, below it, one line '{END}'")
    before, rest = document.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{rest.split(END)[1]}"
