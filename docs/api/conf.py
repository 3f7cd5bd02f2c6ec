"""The API reference, from docstrings: python -m sphinx -W docs/api FOLDER."""

import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow

from sphinx.domains.python import PyObject

import qgen_tf

project = "qgen_tf"
release = version = qgen_tf.__version__
html_title = f"qgen_tf {release}"
html_theme = "furo"
html_show_copyright = html_show_sphinx = html_copy_source = False

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autosummary_generate = False  # its tables link to what stands on other pages
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a list of attributes, as of arguments
add_module_names = False
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
# what stands in single backticks: a link if it is a public name, else code
default_role = "py:obj"

# the head of a section, whose indented lines napoleon reads
_SECTION = re.compile(r"[A-Z]\w+:$")
_CODE_OR_MARK = re.compile(r"(`[^`]*`)(?=(\w?))|([*|])(?=\S)")


def plain_docstring(app, what, name, obj, options, lines):
    """Lets a docstring say what it says where it is read as plain text.

    Indented paragraphs, which hold formulas, stand as they are. Stars and bars
    are no markup; single backticks are, with letters behind them, too.
    """
    found = []
    in_section = in_formula = False
    for line in lines:
        if line and not line.startswith(" "):
            in_section, in_formula = bool(_SECTION.match(line)), False
        elif line and not in_section and not in_formula:
            # a paragraph of its own, or the rest of an item in a list
            in_formula = not (found and found[-1])
            if in_formula:
                found += ["::", ""]
        found.append(line if in_formula else _CODE_OR_MARK.sub(_escaped, line))
    lines[:] = found


def _escaped(match):
    code, letter, mark = match.groups()
    if mark:
        return f"\\{mark}"
    return f"{code}\\ " if letter else code


def setup(app):
    """Connects `plain_docstring` ahead of napoleon; says "Attributes"."""
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
