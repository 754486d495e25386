"""Half magnitudes as an expression on tasks, for counts and means by magnitude."""

from photometry_tasks.models import todolist
from photometry_tasks.sql.functions import whole_part

#: Other magnitudes are left out.
BRIGHTEST, FAINTEST = -30, 40

IS_IN_RANGE = todolist.c.tmag.between(BRIGHTEST, FAINTEST)

#: The number of a half magnitude, counted from the brightest magnitude: truncation then works alike on both sides of 0.
HALF = whole_part((todolist.c.tmag - BRIGHTEST) * 2)
