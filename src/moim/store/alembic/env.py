"""Alembic's entry: runs the revisions on the engine that ``moim.store.migrate`` passes."""

from alembic import context

with context.config.attributes["engine"].connect() as connection:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET statement_timeout = 0")  # a large table takes its time
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
