"""Configuration of Sphinx: Markdown by MyST, the theme furo, no remote resources."""

project = "Outrider"
copyright = "Outrider contributors"  # noqa: A001 - the name that Sphinx reads
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["generate.py"]
html_theme = "furo"
html_title = "Outrider"
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
