"""Alembic's entry: migrations run on the connection that `broker.service.migrate` holds the lock on."""

from alembic import context

import broker.fleet.models
import broker.service.values  # noqa: F401 - both add their tables to the metadata
from broker.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
