"""Puts together what the sessions of a process share, also where tests bring parts of their own."""

from __future__ import annotations

from actors.children import Children
from actors.clock import Clock
from actors.handles import DirectoryHandle, Reach
from actors.models.registry import Models
from actors.owners import Owners
from actors.scheduler import Scheduler
from actors.settings import ActorSettings
from actors.task_intake import TaskIntake
from actors.tools.agents import agent_tools
from actors.tools.ask_person import AskPerson
from actors.tools.registry import Tools
from actors.turn_runner import Services
from storage.store import AsyncStorageBackend

OWNER_TIMEOUT_S = 12.0


def create_children(
    settings: ActorSettings, store: AsyncStorageBackend, clock: Clock, directory: DirectoryHandle, reach: Reach
) -> Children:
    """Child tasks, as one process starts and ends them."""
    return Children(settings, store, clock, directory, Owners(directory, reach, clock, timeout_s=OWNER_TIMEOUT_S))


def create_scheduler(
    settings: ActorSettings, store: AsyncStorageBackend, clock: Clock, directory: DirectoryHandle, reach: Reach
) -> Scheduler:
    """Schedules, with a task queue to put their tasks into."""
    owners = Owners(directory, reach, clock, timeout_s=OWNER_TIMEOUT_S)
    return Scheduler(settings, store, clock, TaskIntake(settings.agent_queue, store, clock, directory, owners))


def create_services(
    settings: ActorSettings,
    store: AsyncStorageBackend,
    clock: Clock,
    models: Models,
    directory: DirectoryHandle,
    reach: Reach,
) -> Services:
    """Services with the built-in tools, and those for child tasks."""
    children = create_children(settings, store, clock, directory, reach)
    asking = AskPerson(store, clock, settings.tools.timeout_s)
    tools = Tools(settings.tools, more=(*agent_tools(children, clock, settings), asking))
    return Services(settings=settings, store=store, clock=clock, models=models, tools=tools, children=children)
