"""How Sphinx builds these pages: `python -m sphinx -W docs docs/_build`."""

from importlib.metadata import version as version_of

project = "photometry_tasks"
author = "the photometry_tasks developers"
version = release = version_of("photometry_tasks")
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "body_max_width": "none",
    "description": "The stars that are yet to be measured",
    "page_width": "1100px",
    "sidebar_width": "260px",
}
smartquotes = False  # two hyphens are an option
# Headings can be linked to, as a forge does it.
myst_heading_anchors = 3
autodoc_typehints = "none"  # they stand in the numpydoc sections
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
