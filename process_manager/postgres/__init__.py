"""The sagas in PostgreSQL: schema, migrations, and the statements that read and write groups and due work."""
