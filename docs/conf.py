"""Settings of the documentation site. ``make docs`` builds it; nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS.parent)]

import sktransfer  # noqa: E402 - the lines above say where it is

project = "sktransfer"
author = "The sktransfer developers"
copyright = f"2026, {author}"
version = release = sktransfer.__version__
REPOSITORY = "https://github.com/sktransfer/sktransfer"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxext.opengraph",
    "links",
    "generated",
    "copies",
]
exclude_patterns = ["_build", "_generated", "gallery", "**/README_*"]
templates_path = ["_templates"]
nitpicky = True
smartquotes = False  # they would turn the quotes of default="auto"

# Single backticks in docstrings are code, as in Markdown. links.py turns the public names among them into links.
default_role = "literal"
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings name the types, in the words of users
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the template of classes lists them

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",  # other examples are shown and not run
    "backreferences_dir": "_generated/backreferences",
    "doc_module": ("sktransfer",),
    "ignore_pattern": r"^_",  # what the examples share
    "within_subsection_order": "gallery_order.InOrder",
    "capture_repr": ("_repr_html_",),  # estimators and frames, and not what matplotlib's functions return
    "default_thumb_file": str(DOCS / "_static" / "social_card.png"),
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "plot_gallery": "True",
}

html_theme = "pydata_sphinx_theme"
html_title = "sktransfer"
html_baseurl = "https://sktransfer.github.io/sktransfer/"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False  # copies.py writes each page as Markdown instead
html_context = {
    "github_user": "sktransfer",
    "github_repo": "sktransfer",
    "github_version": "main",
    "doc_path": "docs",
    "default_mode": "auto",
}
html_theme_options = {
    "logo": {"text": "sktransfer"},
    "github_url": REPOSITORY,
    "use_edit_page_button": True,
    "navbar_align": "left",
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    "switcher": {"json_url": "_static/switcher.json", "version_match": "dev"},
    "check_switcher": False,  # the file is part of the site, which is not published yet while it is built
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc", "edit-this-page"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "start": []}

ogp_site_url = html_baseurl
ogp_site_name = "sktransfer"
ogp_image = "_static/social_card.png"  # docs/make_social_card.py draws it
ogp_image_alt = "sktransfer: pretrained CNNs for your own images, as scikit-learn estimators"
ogp_social_cards = {"enable": False}  # one card for all pages, instead of a drawing for each at every build
ogp_description_length = 200
