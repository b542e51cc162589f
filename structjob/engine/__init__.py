"""The engine behind a tracker: tasks on its loop that deliver the spool and maintain the sessions.

They run on the tracker's loop and never in a thread that must run Python code: a saturated loop
starves every background thread permanently, but a task gets its turn like any other task. Logging
and storing share nothing but the spool.
"""
