"""Every metric, declared in one place. Labels come from closed sets (a route, a method, an actor's slot), never ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from actors.task_metrics import TaskMetrics

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class GatewayMetrics:
    """The numbers of one gateway process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Histogram(
            "wunder_request_seconds",
            "Duration of HTTP requests (streams: until they end).",
            ("route", "method", "status"),
            buckets=_LATENCY_BUCKETS,
            registry=r,
        )
        self.connections = Gauge("wunder_connections", "Open long-lived responses.", ("kind",), registry=r)
        self.topics = Gauge("wunder_topics", "Sessions this gateway follows.", registry=r)
        self.subscriptions = Gauge("wunder_subscriptions", "Readers of followed sessions.", registry=r)
        self.line_batches = Counter("wunder_line_batches", "Batches taken from owners' lines.", registry=r)
        self.line_events = Counter("wunder_line_events", "Events taken from owners' lines.", registry=r)
        self.pages = Counter("wunder_pages", "Pages read to catch up.", ("source",), registry=r)
        self.statements = Counter("wunder_statements", "Database statements of this process.", ("query",), registry=r)
        self.tasks = Gauge("wunder_tasks", "Turns and tasks that have not ended, of all nodes.", ("state",), registry=r)
        self.tasks_oldest = Gauge(
            "wunder_tasks_oldest_age_seconds", "Time since the oldest of them was accepted.", ("state",), registry=r
        )
        self.channel_messages = Counter(
            "wunder_channel_messages", "What providers sent, and what became of it.", ("channel", "result"), registry=r
        )
        self.outbox = Gauge(
            "wunder_outbox",
            "Deliveries that wait, are under way or are dead, of all nodes.",
            ("channel", "state"),
            registry=r,
        )
        self.outbox_oldest = Gauge(
            "wunder_outbox_oldest_age_seconds",
            "Time since the oldest of them was recorded.",
            ("channel", "state"),
            registry=r,
        )
        self.hash_busy = Gauge("wunder_password_hash_busy", "Password hashes being computed.", registry=r)
        self.hash_queued = Gauge("wunder_password_hash_queued", "Password hashes waiting.", registry=r)
        self.loop_lag = Gauge(
            "wunder_loop_lag_seconds", "Greatest lag of the event loop since the last scrape.", registry=r
        )
        self.process = Gauge(
            "wunder_process", "Numbers of the cluster's other processes.", ("process", "number"), registry=r
        )
        self.background = TaskMetrics(r)
