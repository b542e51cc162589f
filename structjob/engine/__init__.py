"""What works behind a tracker: the tasks on its loop that deliver the spool to the database, and
look after the sessions.

They run on the tracker's loop and never in a thread that must run Python: a saturated loop starves
every background thread for good, while a task gets its turn like any other. Between logging and
storing nothing is shared but the spool.
"""
