"""How large the workloads are. Each size is an option of bench.py."""

import dataclasses


@dataclasses.dataclass
class Sizes:
    rounds: int = 5
    seconds: float = 1  # of each run that goes by time
    cold_rows: int = 500_000  # of 100 bytes, in the database that is read from the disk
    cold_reads: int = 2000
    rate: int = 1000  # commits a second in 'visible' and 'stream'
    bulk_megabytes: int = 100
    vacuum_megabytes: int = 200
    wal_pages: int = 1000  # in 'wal-1k'; those of 'wal-100k' and 'wal-500k' are 100 and 500 times as many
    speedtest_size: int = 40
    databases: int = 1000  # in 'rest-1k' and 'commit-1k'; ten times as many in 'rest-10k' and 'open'
    opened: int = 1000  # of them in 'open'
    rest_seconds: float = 10
    copy_megabytes: int = 1000
    sparse_gigabytes: int = 10
    handoffs: int = 30
    failovers: int = 5


# Shows that everything works; the figures mean nothing.
QUICK = Sizes(rounds=1, seconds=0.1, cold_rows=20_000, cold_reads=100, bulk_megabytes=4, vacuum_megabytes=8,
              wal_pages=20, speedtest_size=2, databases=24, opened=50, rest_seconds=0.5, copy_megabytes=100,
              sparse_gigabytes=1, handoffs=2, failovers=1)


def add_options(parser):
    for field in dataclasses.fields(Sizes):
        parser.add_argument("--" + field.name.replace("_", "-"), type=field.type, metavar="N",
                            help=f"default: {field.default}, with --quick {getattr(QUICK, field.name)}")


def chosen(options):
    sizes = dataclasses.replace(QUICK if options.quick else Sizes())
    for field in dataclasses.fields(Sizes):
        value = getattr(options, field.name)
        if value is not None:
            setattr(sizes, field.name, value)
    return sizes
