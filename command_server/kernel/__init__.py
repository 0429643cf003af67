"""The execution of commands: deciders, group commit, and the ports that adapters implement.

Independent of every bounded context, of gRPC and of PostgreSQL.
"""
