"""Docstrings and signatures as the sources have them."""

import ast
import textwrap

from sightline.demo.stdlib_text import docstrings, reference_topics, stdlib_root

SOURCE = '''
"""About the module."""
class Heap:
    """A heap."""
    def push(self, item, /, *rest, key=None, **more):
        """Push.

        At length.
        """
        def inner():
            """Within."""
if True:
    try:
        async def read(): "Read."
    except ImportError:
        def read(size=-1): "Read otherwise."
    else:
        def written(): pass
'''


def test_docstrings_come_in_file_order_with_their_owner():
    """Nested, conditional and asynchronous definitions included."""
    found = list(docstrings(ast.parse(textwrap.dedent(SOURCE)), "heaps"))
    assert [(doc.name, doc.signature, doc.text) for doc in found] == [
        ("heaps", "heaps", "About the module."),
        ("Heap", "class Heap", "A heap."),
        ("push", "push(self, item, *rest, key, **more)", "Push.\n\nAt length."),
        ("inner", "inner()", "Within."),
        ("read", "read()", "Read."),
        ("read", "read(size)", "Read otherwise."),
    ]
    assert [doc.top for doc in found] == [0, 3, 3, 3, 12, 12]


def test_the_same_docstrings_as_ast_walk_finds():
    """On a real module nothing is lost."""
    tree = ast.parse((stdlib_root() / "argparse.py").read_text(encoding="utf-8"))
    owners = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)
    expected = sorted(d for node in ast.walk(tree) if isinstance(node, owners) and (d := ast.get_docstring(node)))
    assert sorted(doc.text for doc in docstrings(tree, "argparse")) == expected


def test_topics_of_the_language_reference():
    """They come as text, sorted by name."""
    topics = reference_topics()
    assert "assert" in topics
    assert 'The "assert" statement' in topics["assert"]
    assert list(topics) == sorted(topics)


def test_no_topics_is_no_error(tmp_path):
    """Some distributions leave them out."""
    assert reference_topics(tmp_path) == {}
