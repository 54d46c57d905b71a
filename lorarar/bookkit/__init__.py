"""The book's machinery: what its chapters call, and what executes and renders them.

A chapter is three files of one name: ``book/NN_topic.md`` (prose and short cells),
``lorarar/bookkit/chapters/chNN_topic.py`` (its numbers, statements, claims and own figures) and
``lorarar/bookkit/checks/chNN_topic.py`` (the checks of its exercises). ``book/README.md`` shows how to write
one; ``lorarar book`` executes and renders.
"""
