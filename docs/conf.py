"""The site: `sphinx-build -W --keep-going -q -c docs . docs/_build/html`, with the extra `docs`.

The source folder is the repository, so that pages link to the README, the notebooks and cluster/ as they lie there.
Links to files that are no pages lead to the repository on the web.
"""

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

import wkdask

ROOT = Path(__file__).parents[1]
WEB = "https://github.com/wkdask/wkdask/tree/main"

project = "wkdask"
author = "The wkdask developers"
copyright = author
version = release = wkdask.__version__
root_doc = "docs/index"

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
]
include_patterns = [
    "docs/*.md",
    "docs/howto/*.md",
    "docs/api/*.md",
    "notebooks/*.ipynb",
    "cluster/*/README.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/*.md",
]
exclude_patterns = [".venv*", ".git", "docs/_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Notebooks are committed without outputs and run while the site is built; that of the cluster starts own workers.
# `WKDASK_RUN_NOTEBOOKS=0` shows them as they are committed: half of the time of a build.
nb_execution_mode = "off" if os.environ.get("WKDASK_RUN_NOTEBOOKS") == "0" else "force"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True

autodoc_default_options = {"members": True, "member-order": "groupwise", "show-inheritance": False}
autodoc_typehints = "none"
autoclass_content = "class"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "code"
python_display_short_literal_types = True

html_theme = "pydata_sphinx_theme"
html_title = "wkdask"
html_theme_options = {
    "github_url": "https://github.com/wkdask/wkdask",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {page: [] for page in ("docs/index", "docs/quickstart", "docs/concepts")}  # nothing to list
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_copy_source = False
html_extra_path = ["_root"]  # leads from / to /docs/
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def link_to_the_web(app, doctree):
    """Let links to files and folders of the repository that are no pages lead to where they are on the web."""
    here = ROOT / Path(app.env.doc2path(app.env.docname, base=False)).parent
    for node in list(doctree.findall(addnodes.pending_xref)):
        path = Path(os.path.normpath(here / node["reftarget"].partition("#")[0]))
        if node["reftype"] == "myst" and path.is_dir() and path.is_relative_to(ROOT):
            link = nodes.reference(
                "", "", *node.children, refuri=f"{WEB}/{path.relative_to(ROOT)}", internal=False
            )
            node.replace_self(link)


def show_examples(app, context, lines):
    """Show the example of a command as it would be typed."""
    lines[:] = "\n".join(lines).replace("| Example:\n", "Example:\n\n.. code-block:: shell\n\n").split("\n")
    lines[:] = [line.removeprefix("| ") for line in lines]


def setup(app):
    """Connect what is above."""
    app.connect("doctree-read", link_to_the_web)
    app.connect("sphinx-click-process-description", show_examples)
