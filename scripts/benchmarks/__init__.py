"""The benchmark: `scripts/bench`.

    harness (this package) ──starts──► upstream · server (`wunder serve`) · client, each in its own process
       │ line of JSON: prepare ► ready ► measure ► measured ► report
       └ reads /proc of all of them right before `measure` and right after `measured`

Every delta carries the time at which upstream wrote it; the client keeps what it reads with the time of reading and
looks into it only after the measurement. CLOCK_MONOTONIC is one for all processes of a machine.
"""
