"""Alembic's environment: renders the migrations as SQL, for one database at a time.

structjob always renders first and then runs, or prints, what was rendered (see
``structjob/store/migration_sql.py``). So the script that a DBA reads is the very one that the
library runs, and no part of Alembic's process-wide state outlives the rendering: two trackers that
open at the same time, in two tasks or two threads, do not meet in it. It follows that every
migration must be able to render without a database: it cannot read rows or reflect tables.

The names of the database and of the version table come from ``config.attributes``. Logging is left
alone: Alembic's usual ``fileConfig`` would reconfigure the program's own.
"""

from alembic import context

if not context.is_offline_mode():
    raise SystemExit(
        "structjob's migrations are run by `structjob migrate`, or printed for a DBA by `structjob migrate --sql`"
    )

context.configure(
    dialect_name=context.config.attributes["dialect_name"],
    version_table=context.config.attributes["version_table"],
    literal_binds=True,
    transactional_ddl=False,  # the caller that runs the statements opens the transaction
)
with context.begin_transaction():
    context.run_migrations()
