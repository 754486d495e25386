"""The list of the stars that a photometry pipeline has yet to measure."""

from photometry_tasks.constraints import build_constraints
from photometry_tasks.status import STATUS
from photometry_tasks.taskmanager import TaskManager

__all__ = ["STATUS", "TaskManager", "build_constraints"]
