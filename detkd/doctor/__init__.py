"""The doctor: says in a minute what will go wrong in a run, or why distillation does not help it.

Each file holds the checks of one subject and the kinds of findings that they can make; :mod:`detkd.doctor.examination` runs
them through the adapters, engines and distiller that training uses.
"""
