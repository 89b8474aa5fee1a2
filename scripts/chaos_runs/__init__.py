"""What `scripts/chaos` runs: a service of its own, faults drawn from a seed, and oracles in processes of their own.

submit (O1: acknowledged, fsynced) ──► gateways ──► pools, session actors ──► proxies ──► Postgres
                                                          │ tools
                                                          ▼
                                                      world (O2: what was done)
"""
