"""The commands of ``orchestra-fl``, a module each; :mod:`.table` has their names.

A module imports what is light at its top, so that the help is quick, and the rest in ``run``.
"""
