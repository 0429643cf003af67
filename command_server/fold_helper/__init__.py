"""A process of a command server that folds long streams, so that the server's event loop need not.

How it works. The server starts the process (`fold_process.py`) when it has many events to fold, and ends it
once there was nothing to fold for a while. The process reads events from PostgreSQL itself, and keeps the
states that it reaches in `snapshots`. The server then begins at such a snapshot, and folds the rest. So the
process decides nothing: if it cannot start, fails or hangs, or has other code than the server, the server
folds the events itself, beside its commands. It runs only while a core has nothing else to do, so it gets no
time while all cores are busy; the server takes over then, too.
"""
